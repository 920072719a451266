//! The files that hold changes of levels until the store has them.
//!
//! A file is a header (magic, id of the journal, number of the batch) and records of 32
//! bytes, each with its checksum; reading stops at the first that does not check, which is
//! the one that a dying process was writing. Invariant: one process writes in a folder,
//! and a record is whole or at the end.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use model::{
    level::{LevelBatch, LevelChange},
    quota::Metric,
    tenant::TenantId,
};
use uuid::Uuid;

use super::Sealed;

const MAGIC: &[u8; 8] = b"LVLEVEL1";
const HEADER_BYTES: usize = 32;
const RECORD_BYTES: usize = 32;
/// Where the checksum of a record begins.
const CHECKED_BYTES: usize = 28;
/// What journal files end in.
const EXTENSION: &str = "levels";

/// The folder of the journals, held by this process.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    _lock: File,
}

impl Folder {
    /// Takes the folder for this process, until it is dropped.
    pub(super) fn lock(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
        let path = dir.join("lock");
        let lock = OpenOptions::new().create(true).write(true).truncate(false).open(&path);
        let lock = lock.with_context(|| format!("{} cannot be opened", path.display()))?;
        if lock.try_lock().is_err() {
            bail!("{}: another process writes its levels here", dir.display());
        }
        Ok(Self { dir: dir.to_owned(), _lock: lock })
    }

    /// What predecessors left, by journal and in the order of the batches. A file without
    /// a whole record, or that is no journal, is not among them.
    pub(super) fn inherited(&self) -> Result<Vec<Sealed>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let file = entry?.path();
            if file.extension().is_none_or(|extension| extension != EXTENSION) {
                continue;
            }
            let bytes = fs::read(&file).with_context(|| file.display().to_string())?;
            match parse(&bytes) {
                Some(batch) if batch.changes.is_empty() => fs::remove_file(&file)?,
                Some(batch) => found.push(Sealed { file, batch }),
                // Killed before the header was whole: nothing was recorded yet.
                None if bytes.len() < HEADER_BYTES => fs::remove_file(&file)?,
                None => bail!("{} is no journal of levels", file.display()),
            }
        }
        found.sort_by_key(|sealed| (sealed.batch.journal, sealed.batch.number));
        Ok(found)
    }

    /// A new, empty journal.
    pub(super) fn begin(&self, id: Uuid, number: u64) -> io::Result<Journal> {
        let path = self.dir.join(format!("{id}-{number}.{EXTENSION}"));
        let mut file = OpenOptions::new().create_new(true).append(true).open(&path)?;
        let header = [&MAGIC[..], id.as_bytes(), &number.to_le_bytes()].concat();
        file.write_all(&header)?;
        let bytes = header.len() as u64;
        Ok(Journal { path, file, id, number, bytes, sums: BTreeMap::new(), is_broken: false })
    }
}

type Sums = BTreeMap<(TenantId, Metric), i64>;

/// A file that changes are appended to, with their sums.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    id: Uuid,
    number: u64,
    bytes: u64,
    sums: Sums,
    /// A record was cut and could not be taken back: nothing may follow it.
    is_broken: bool,
}

impl Journal {
    pub(super) const fn id(&self) -> Uuid {
        self.id
    }

    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sums.is_empty()
    }

    /// Appends a change: one write, no wait for the disk.
    pub(super) fn append(&mut self, change: LevelChange, bytes_max: u64) -> io::Result<()> {
        if self.is_broken || self.bytes.saturating_add(RECORD_BYTES as u64) > bytes_max {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let written = encode(change).and_then(|record| self.file.write_all(&record));
        if let Err(error) = written {
            self.is_broken = self.file.set_len(self.bytes).is_err();
            return Err(error);
        }
        self.bytes += RECORD_BYTES as u64;
        add(&mut self.sums, change);
        Ok(())
    }

    pub(super) fn seal(self) -> Sealed {
        let batch = batch(self.id, self.number, self.sums);
        Sealed { file: self.path, batch }
    }
}

fn add(sums: &mut Sums, change: LevelChange) {
    let sum = sums.entry((change.tenant, change.metric)).or_default();
    *sum = sum.saturating_add(change.delta);
}

fn batch(journal: Uuid, number: u64, sums: Sums) -> LevelBatch {
    let change = |((tenant, metric), delta)| LevelChange { tenant, metric, delta };
    LevelBatch { journal, number, changes: sums.into_iter().map(change).collect() }
}

/// A metric's number in a file; stable, unlike the order of the enum.
const CODES: [(Metric, u8); 3] = [(Metric::Users, 1), (Metric::Projects, 2), (Metric::Storage, 3)];

fn encode(change: LevelChange) -> io::Result<Vec<u8>> {
    let code = CODES.iter().find(|(metric, _)| *metric == change.metric);
    let (_, code) = code.ok_or(io::ErrorKind::InvalidInput)?;
    let mut record = Vec::with_capacity(RECORD_BYTES);
    record.extend_from_slice(change.tenant.0.as_bytes());
    record.extend_from_slice(&[*code, 0, 0, 0]);
    record.extend_from_slice(&change.delta.to_le_bytes());
    let sum = crc32fast::hash(&record);
    record.extend_from_slice(&sum.to_le_bytes());
    Ok(record)
}

fn decode(record: &[u8]) -> Option<LevelChange> {
    let (checked, sum) = record.split_at_checked(CHECKED_BYTES)?;
    if crc32fast::hash(checked).to_le_bytes() != sum {
        return None;
    }
    let (tenant, rest) = checked.split_at_checked(16)?;
    let (code, delta) = rest.split_at_checked(4)?;
    let metric = CODES.iter().find(|(_, known)| code == [*known, 0, 0, 0])?.0;
    let tenant = TenantId(Uuid::from_slice(tenant).ok()?);
    Some(LevelChange { tenant, metric, delta: i64::from_le_bytes(delta.try_into().ok()?) })
}

/// The batch of a file; `None` when it has no header of ours.
fn parse(bytes: &[u8]) -> Option<LevelBatch> {
    let (header, records) = bytes.split_at_checked(HEADER_BYTES)?;
    let (magic, header) = header.split_at_checked(MAGIC.len())?;
    let (id, number) = header.split_at_checked(16)?;
    if magic != MAGIC {
        return None;
    }
    let mut sums = Sums::new();
    records.chunks(RECORD_BYTES).map_while(decode).for_each(|change| add(&mut sums, change));
    let number = u64::from_le_bytes(number.try_into().ok()?);
    Some(batch(Uuid::from_slice(id).ok()?, number, sums))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BYTES_MAX: u64 = 1 << 20;

    fn change(tenant: u128, metric: Metric, delta: i64) -> LevelChange {
        LevelChange { tenant: TenantId(Uuid::from_u128(tenant)), metric, delta }
    }

    fn left(dir: &Path) -> Vec<LevelBatch> {
        let folder = Folder::lock(dir).expect("the folder");
        folder.inherited().expect("journals").into_iter().map(|sealed| sealed.batch).collect()
    }

    #[test]
    fn what_was_appended_is_found_by_the_next_process() {
        let dir = tempfile::tempdir().expect("a folder");
        let id = Uuid::from_u128(7);
        let folder = Folder::lock(dir.path()).expect("the folder");
        assert!(Folder::lock(dir.path()).is_err(), "held by this process");
        let mut first = folder.begin(id, 9).expect("a journal");
        let mut second = folder.begin(id, 10).expect("a journal");
        let _empty = folder.begin(id, 11).expect("a journal");
        for (tenant, metric, delta) in [
            (1, Metric::Storage, 1_000),
            (2, Metric::Users, 1),
            (1, Metric::Storage, -3_000),
            (1, Metric::Users, 5),
        ] {
            first.append(change(tenant, metric, delta), BYTES_MAX).expect("room");
        }
        second.append(change(3, Metric::Projects, 1), BYTES_MAX).expect("room");
        // No seal, no drop in order: the process is gone.
        std::mem::forget((first, second));
        drop(folder);
        let sums = vec![
            change(1, Metric::Storage, -2_000),
            change(1, Metric::Users, 5),
            change(2, Metric::Users, 1),
        ];
        let last = vec![change(3, Metric::Projects, 1)];
        let want = [
            LevelBatch { journal: id, number: 9, changes: sums },
            LevelBatch { journal: id, number: 10, changes: last },
        ];
        assert_eq!(left(dir.path()), want);
    }

    #[test]
    fn a_full_journal_takes_nothing_more() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = Folder::lock(dir.path()).expect("the folder");
        let mut journal = folder.begin(Uuid::from_u128(7), 1).expect("a journal");
        let max = (HEADER_BYTES + 2 * RECORD_BYTES) as u64;
        assert!(journal.append(change(1, Metric::Users, 1), max).is_ok());
        assert!(journal.append(change(1, Metric::Users, 1), max).is_ok());
        assert!(journal.append(change(1, Metric::Users, 1), max).is_err());
        assert!(journal.append(change(1, Metric::ApiCalls, 1), BYTES_MAX).is_err(), "no level");
        assert_eq!(journal.seal().batch.changes, [change(1, Metric::Users, 2)]);
    }

    #[test]
    fn a_file_that_is_none_of_ours_stops_the_start() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("x.levels"), [0; 64]).expect("a file");
        let folder = Folder::lock(dir.path()).expect("the folder");
        assert!(folder.inherited().is_err());
        fs::write(dir.path().join("x.levels"), b"LVLEV").expect("a file");
        assert!(folder.inherited().expect("nothing").is_empty(), "a header that was cut");
    }

    proptest! {
        #[test]
        fn a_cut_or_flipped_tail_costs_only_itself(
            deltas in prop::collection::vec(-1_000_i64..1_000, 1..20), cut in 0_usize..640,
            flip in 0_usize..5_000,
        ) {
            let mut bytes = [&MAGIC[..], &[1; 16], &7_u64.to_le_bytes()].concat();
            for delta in &deltas {
                bytes.extend(encode(change(1, Metric::Storage, *delta)).expect("a record"));
            }
            let whole = bytes.len().saturating_sub(cut).max(HEADER_BYTES);
            bytes.truncate(whole);
            let mut records = (whole - HEADER_BYTES) / RECORD_BYTES;
            if let Some(byte) = bytes.get_mut(HEADER_BYTES + flip) {
                *byte ^= 0x10;
                records = records.min(flip / RECORD_BYTES);
            }
            let batch = parse(&bytes).expect("a header");
            let sum: i64 = deltas[..records].iter().sum();
            let found: i64 = batch.changes.iter().map(|change| change.delta).sum();
            prop_assert_eq!(found, sum);
        }
    }
}
