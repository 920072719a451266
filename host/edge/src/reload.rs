//! What calls for a reload: SIGHUP, or a change below `policies/` or a component folder.
//!
//! Invariant: a burst of file events is one reload, after the burst.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// How long files must be quiet before a reload, in ms: longer than an editor or a build
/// takes between writes of one save, far shorter than a person waits.
const QUIET_MS: u64 = 100;
/// How long a burst may put a reload off, in ms: a folder that never rests is read anyway.
const BURST_MS_MAX: u64 = 1_000;

/// Sends `()` for every change that may matter. The watch ends when it is dropped.
pub struct FileWatch {
    watcher: RecommendedWatcher,
    folders: Vec<PathBuf>,
}

impl FileWatch {
    /// Watches `dir` with everything below it.
    ///
    /// # Errors
    /// When the system refuses the watch.
    pub fn start(dir: &Path, changes: mpsc::Sender<()>) -> notify::Result<Self> {
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                let matters = event.is_ok_and(|event| !matches!(event.kind, EventKind::Access(_)));
                if matters {
                    // A full queue holds a change already.
                    let _full = changes.try_send(());
                }
            })?;
        watcher.watch(dir, RecursiveMode::Recursive)?;
        Ok(Self { watcher, folders: Vec::new() })
    }

    /// Also watches these folders, in place of those named before. A folder that cannot
    /// be watched is logged and left out.
    pub fn also(&mut self, folders: Vec<PathBuf>) {
        if folders == self.folders {
            return;
        }
        for gone in self.folders.iter().filter(|folder| !folders.contains(folder)) {
            let _was_gone_already = self.watcher.unwatch(gone);
        }
        for folder in folders.iter().filter(|folder| !self.folders.contains(folder)) {
            if let Err(error) = self.watcher.watch(folder, RecursiveMode::NonRecursive) {
                tracing::warn!(folder = %folder.display(), %error, "not watched for changes");
            }
        }
        self.folders = folders;
    }
}

/// After a change: waits for the burst to end, [`BURST_MS_MAX`] at most.
pub async fn settle(changes: &mut mpsc::Receiver<()>) {
    let quiet = Duration::from_millis(QUIET_MS);
    let burst =
        async { while let Ok(Some(())) = tokio::time::timeout(quiet, changes.recv()).await {} };
    let _still_changing = tokio::time::timeout(Duration::from_millis(BURST_MS_MAX), burst).await;
}
