//! Levels that responses reported, on their way into the store.
//!
//! The data plane [`record`](LevelSink::record)s a change: one short append to a journal
//! file, so that the change outlives the process. Five times a second the journal is
//! sealed and its sums go to the store as one numbered batch, which the store counts once.
//! What a predecessor left is applied first. Invariant: a change is in a journal file until
//! the store has it, and a file is removed only then. It survives `kill -9`; a power loss
//! may take what the system had not yet written out.

mod journal;

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use control::Store;
use model::level::{LevelBatch, LevelChange, LevelSink};
use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use tokio::sync::oneshot;
use uuid::Uuid;

use self::journal::{Folder, Journal};

/// Milliseconds between batches (200): usage figures are at most 2 s old, and a busy edge
/// costs the database five small transactions a second.
const FLUSH_MS: u64 = 200;
/// Milliseconds before a batch that failed is tried again (1,000).
const RETRY_MS: u64 = 1_000;
/// Bytes of a journal file (64 MiB, two million changes): a database that is away for so
/// long that it fills costs levels, and the log says so.
const JOURNAL_BYTES_MAX: u64 = 64 << 20;

/// The journal that the data plane writes to.
pub struct Levels {
    folder: Folder,
    open: Mutex<Journal>,
    /// Sealed by a predecessor, oldest first; taken by the first run.
    inherited: Mutex<VecDeque<Sealed>>,
    batches: IntCounterVec,
    waiting: IntGauge,
}

/// A journal that nobody writes to any more.
struct Sealed {
    file: PathBuf,
    batch: LevelBatch,
}

impl Levels {
    /// Opens a journal in `dir`, and finds what predecessors left there. Blocks on the
    /// file system.
    ///
    /// # Errors
    /// The folder cannot be used, or another process uses it.
    pub fn open(dir: &Path, registry: &Registry) -> anyhow::Result<Self> {
        let folder = Folder::lock(dir)?;
        let inherited = folder.inherited()?;
        let open = folder.begin(Uuid::new_v4(), 1)?;
        let batches = Opts::new("edge_level_batches_total", "Batches of levels, by outcome");
        let batches = IntCounterVec::new(batches, &["outcome"])?;
        let waiting = IntGauge::new(
            "edge_level_batches_waiting",
            "Sealed batches of levels that the store does not have yet",
        )?;
        registry.register(Box::new(batches.clone()))?;
        registry.register(Box::new(waiting.clone()))?;
        let (open, inherited) = (Mutex::new(open), Mutex::new(inherited.into()));
        Ok(Self { folder, open, inherited, batches, waiting })
    }

    /// Hands batches to the store until told to stop, and then what there is once more;
    /// what the store does not take stays for the next start.
    pub async fn run(&self, store: &Store, mut stopped: oneshot::Receiver<()>) {
        let mut sealed = std::mem::take(&mut *lock(&self.inherited));
        loop {
            let pause = match self.hand_over(store, &mut sealed).await {
                true => FLUSH_MS,
                false => RETRY_MS,
            };
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(pause)) => {}
                _ = &mut stopped => break,
            }
        }
        if self.hand_over(store, &mut sealed).await {
            // A batch may have been sealed while its predecessor waited.
            self.hand_over(store, &mut sealed).await;
        }
    }

    /// Applies what is sealed, then what was recorded since. False when the store did not
    /// take all of it.
    async fn hand_over(&self, store: &Store, sealed: &mut VecDeque<Sealed>) -> bool {
        if sealed.is_empty() {
            match self.seal() {
                Ok(batch) => sealed.extend(batch),
                Err(error) => tracing::error!(%error, "the journal of levels cannot be sealed"),
            }
        }
        while let Some(next) = sealed.front() {
            self.waiting.set(i64::try_from(sealed.len()).unwrap_or(i64::MAX));
            if let Err(error) = store.apply_level_deltas(&next.batch).await {
                tracing::warn!(%error, "levels wait for the store");
                self.batches.with_label_values(&["failed"]).inc();
                return false;
            }
            self.batches.with_label_values(&["applied"]).inc();
            if let Err(error) = std::fs::remove_file(&next.file) {
                // Applied again by the next start, and counted once all the same.
                tracing::warn!(file = %next.file.display(), %error, "a journal stays behind");
            }
            sealed.pop_front();
        }
        self.waiting.set(0);
        true
    }

    /// Ends the open journal and begins another; `None` when nothing was recorded.
    fn seal(&self) -> io::Result<Option<Sealed>> {
        let mut open = lock(&self.open);
        if open.is_empty() {
            return Ok(None);
        }
        let next = self.folder.begin(open.id(), open.number().saturating_add(1))?;
        Ok(Some(std::mem::replace(&mut *open, next).seal()))
    }
}

impl LevelSink for Levels {
    fn record(&self, change: LevelChange) -> bool {
        match lock(&self.open).append(change, JOURNAL_BYTES_MAX) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, "a level cannot be written to its journal");
                false
            }
        }
    }
}

impl std::fmt::Debug for Levels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Levels").field("folder", &self.folder).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere left the value whole: every change of it is one assignment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
