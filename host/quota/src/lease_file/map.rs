//! The mapping of the lease file: the only unsafe code of this crate.
//!
//! Invariant: a [`Map`] covers `capacity` records after one header page, for as long as it
//! lives; every field of a [`Record`] is atomic, so shared references to it are sound while
//! other threads write, and every bit pattern is a value.
#![expect(unsafe_code, reason = "lease records live in a shared mapping, to survive a kill")]

use std::{
    fs::File,
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use memmap2::MmapRaw;

use super::record::Record;

/// Bytes before the first record: one page.
pub(super) const HEADER_BYTES: usize = 4096;

/// The mapped file. The open file keeps the exclusive lock.
pub(crate) struct Map {
    raw: MmapRaw,
    capacity: u32,
    _locked: File,
}

/// Length of a file of `capacity` records, in bytes.
pub(super) const fn file_bytes(capacity: u32) -> usize {
    HEADER_BYTES + capacity as usize * size_of::<Record>()
}

impl Map {
    /// Maps a file that is locked by this process and at least [`file_bytes`] long.
    pub(super) fn new(file: File, capacity: u32) -> io::Result<Self> {
        let raw = MmapRaw::map_raw(&file)?;
        if raw.len() < file_bytes(capacity) {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is too short"));
        }
        Ok(Self { raw, capacity, _locked: file })
    }

    /// How many records there are.
    pub(crate) const fn capacity(&self) -> u32 {
        self.capacity
    }

    /// A record; `None` beyond the capacity.
    pub(crate) fn record(&self, index: u32) -> Option<&Record> {
        if index >= self.capacity {
            return None;
        }
        let at = HEADER_BYTES + index as usize * size_of::<Record>();
        // SAFETY: `new` checked that the mapping holds `capacity` records after the header,
        // and `index` is below it, so the record lies inside. The mapping starts on a page,
        // the header is a page and a record is 128 bytes long and aligned to 64, so it is
        // aligned. `Record` consists of atomics only: any content is valid, and concurrent
        // access through shared references is allowed. The mapping lives as long as `self`,
        // to which the reference is bound. The file is not truncated under us: it is locked
        // by this process, and only `LeaseFile::open` changes its length, before mapping.
        Some(unsafe { &*self.raw.as_mut_ptr().add(at).cast::<Record>() })
    }

    /// A word of the header page; `None` beyond it.
    pub(super) fn header_word(&self, index: usize) -> Option<HeaderWord<'_>> {
        if index >= HEADER_BYTES / size_of::<AtomicU64>() {
            return None;
        }
        // SAFETY: the word lies inside the header page, which `new` checked to be mapped,
        // and is aligned because the mapping starts on a page. `AtomicU64` accepts any
        // content and concurrent access; the reference is bound to `self`.
        Some(HeaderWord(unsafe { &*self.raw.as_mut_ptr().cast::<AtomicU64>().add(index) }))
    }
}

/// One word of the header.
pub(super) struct HeaderWord<'a>(&'a AtomicU64);

impl HeaderWord<'_> {
    /// Writes it, after everything written before.
    pub(super) fn write(&self, value: u64) {
        self.0.store(value, Ordering::Release);
    }
}
