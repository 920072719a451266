//! The lease file: where what was spent survives a `kill -9`.
//!
//! Opened once at start: [`LeaseFile::lock`], [`LeaseFile::legacy`] for what the
//! predecessor left, [`LeaseFile::claim`] to make it this holder's own. Invariant: one
//! process owns the file, by an exclusive lock that dies with it; a file that is not whole,
//! or of another uptime of the machine, is not trusted at all: then the open tranches of
//! its holder stay charged.

mod legacy;
mod map;
mod record;

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    // Records take their atomics from here, so that `tests/cell` can give them loom's.
    sync::{self, atomic::Ordering},
    time::{Duration, Instant},
};

use model::{
    ledger::{BootId, EpochRef, HolderId, WindowKey},
    quota::Metric,
};

pub(crate) use self::{
    legacy::Legacy,
    map::Map,
    record::{Record, Taken},
};

/// First word of a valid file: "LVlease2".
const MAGIC: u64 = u64::from_le_bytes(*b"LVlease2");
/// High half of the state word of a record in use.
const IN_USE: u64 = 0x4c45_4153;
/// Bytes written at once while a file is preallocated.
const ZERO_CHUNK: usize = 1 << 20;
/// Longest wait for a lock that somebody holds: a child that this process or the last one
/// forked holds it too, until it has become another program.
const LOCK_WAIT: Duration = Duration::from_millis(500);
/// Between two tries to lock.
const LOCK_RETRY: Duration = Duration::from_millis(10);

const _: () = assert!(size_of::<Record>() == 128, "the file format has 128 bytes per record");

/// The lease file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LeaseFileError {
    /// Another process owns it.
    #[error("the lease file {} is in use by another process", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot use the lease file {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A lease file that this process has locked.
pub(crate) struct LeaseFile {
    path: PathBuf,
    file: File,
}

impl LeaseFile {
    /// Opens or creates the file and locks it. Blocks on the disk, and up to [`LOCK_WAIT`]
    /// for the lock.
    pub(crate) fn lock(path: &Path) -> Result<Self, LeaseFileError> {
        let failed = |source| LeaseFileError::Io { path: path.to_owned(), source };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed)?;
        let given_up = Instant::now() + LOCK_WAIT;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { path: path.to_owned(), file }),
                Err(TryLockError::Error(source)) => return Err(failed(source)),
                Err(TryLockError::WouldBlock) if Instant::now() < given_up => {
                    std::thread::sleep(LOCK_RETRY);
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(LeaseFileError::InUse { path: path.to_owned() });
                }
            }
        }
    }

    /// What the file says about its last holder. Blocks on the disk.
    pub(crate) fn legacy(&mut self, boot: BootId) -> Result<Legacy, LeaseFileError> {
        legacy::read(&mut self.file, boot).map_err(|source| self.failed(source))
    }

    /// Empties the file, preallocates it and makes it `holder`'s. Blocks on the disk.
    pub(crate) fn claim(
        mut self,
        holder: HolderId,
        boot: BootId,
        capacity: u32,
    ) -> Result<Map, LeaseFileError> {
        let length = map::file_bytes(capacity);
        zero(&mut self.file, length).map_err(|source| self.failed(source))?;
        let path = self.path;
        let failed = |source| LeaseFileError::Io { path: path.clone(), source };
        let map = Map::new(self.file, capacity).map_err(failed)?;
        map.write_header(holder, boot);
        Ok(map)
    }

    fn failed(&self, source: io::Error) -> LeaseFileError {
        LeaseFileError::Io { path: self.path.clone(), source }
    }
}

/// Overwrites the file with zeros from its start on, so that it is no lease file any more
/// from the first byte, and no later write finds the disk full.
fn zero(file: &mut File, length: usize) -> io::Result<()> {
    file.seek(SeekFrom::Start(0))?;
    let chunk = vec![0_u8; ZERO_CHUNK.min(length)];
    let mut left = length;
    while left > 0 {
        let part = chunk.get(..left.min(chunk.len())).unwrap_or(&chunk);
        file.write_all(part)?;
        left -= part.len();
    }
    file.set_len(length as u64)
}

/// Magic, capacity, holder, boot id, checksum.
fn header_words(holder: HolderId, boot: BootId, capacity: u32) -> [u64; 7] {
    let (holder_high, holder_low) = holder.0.as_u64_pair();
    let (boot_high, boot_low) = boot.0.as_u64_pair();
    let words = [u64::from(capacity), holder_high, holder_low, boot_high, boot_low];
    let [capacity, a, b, c, d] = words;
    [MAGIC, capacity, a, b, c, d, checksum(&words)]
}

fn checksum(words: &[u64]) -> u64 {
    let mut crc = crc32fast::Hasher::new();
    for word in words {
        crc.update(&word.to_ne_bytes());
    }
    u64::from(crc.finalize())
}

fn identity_words(of: &EpochRef, tranche: u64, lease: u32) -> [u64; record::IDENTITY_WORDS] {
    let WindowKey { tenant, metric, window } = of.key;
    let (high, low) = tenant.0.as_u64_pair();
    let metric = Metric::ALL.iter().position(|known| *known == metric).unwrap_or_default();
    let (start, end) = (window.start.0, window.end.0);
    [high, low, metric as u64, start, end, of.epoch, tranche, u64::from(lease)]
}

impl Map {
    /// Makes the file a holder's. The magic word last: a half-written header is no header.
    fn write_header(&self, holder: HolderId, boot: BootId) {
        let header = header_words(holder, boot, self.capacity());
        for (index, word) in header.iter().enumerate().rev() {
            if let Some(place) = self.header_word(index) {
                place.write(*word);
            }
        }
    }

    /// Frees every record and makes the file another holder's, because the authority has
    /// ended the one before. What it spent is counted as lost already.
    pub(crate) fn hand_over(&self, holder: HolderId, boot: BootId) {
        if let Some(magic) = self.header_word(0) {
            magic.write(0);
        }
        (0..self.capacity()).filter_map(|index| self.record(index)).for_each(Record::free);
        self.write_header(holder, boot);
    }
}

const fn state_word(crc: u64) -> u64 {
    IN_USE << 32 | crc
}

impl Record {
    /// Begins a lease in a free record: identity, then state, then tokens. Only the keeper
    /// calls it.
    pub(crate) fn begin(&self, of: &EpochRef, tranche: u64, generation: u32, tokens: u32) {
        let words = identity_words(of, tranche, generation);
        for (place, word) in self.identity.iter().zip(words) {
            place.store(word, Ordering::Relaxed);
        }
        for figure in [&self.cell, &self.received, &self.returned, &self.refunded] {
            figure.store(0, Ordering::Relaxed);
        }
        self.state.store(state_word(checksum(&words)), Ordering::Release);
        self.start(generation, tokens);
    }

    /// Frees a sealed record whose final figures are durable. Only the keeper calls it.
    pub(crate) fn free(&self) {
        self.state.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
