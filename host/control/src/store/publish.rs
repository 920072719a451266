//! The published directory, kept at what the database has committed.
//!
//! Every change of the directory has a number, the revision of the head, taken one change
//! at a time; every tenant carries the number of its last change. So whoever knows a
//! number asks for the tenants above it: after a change of its own, when another process
//! announces one, and every [`POLL_MS`] in case an announcement was lost. Invariant:
//! what is published was committed, and an older state never replaces a newer one. While
//! the database is away the last directory stays.

use std::{sync::Arc, time::Duration};

use model::directory::Directory;
use tokio::{
    sync::{Mutex, watch},
    task::AbortHandle,
};

use super::{
    StoreError,
    db::{Db, Notices, Purpose},
    directory,
    sealed::Sealer,
};

/// How often the head is looked at without being told, in ms: changes arrive in five
/// seconds even when announcements do not.
const POLL_MS: u64 = 2_000;
/// First wait before listening anew, in ms; doubles with every failure.
const PAUSE_MIN_MS: u64 = 100;
/// Longest wait before listening anew, in ms: within the second that clients are told to wait
/// while the database is away.
const PAUSE_MAX_MS: u64 = 1_000;

/// The directory as the data plane sees it.
#[derive(Debug)]
pub(super) struct Published {
    db: Db,
    sealer: Sealer,
    directory: watch::Sender<Arc<Directory>>,
    /// The revision up to which the directory is complete; 0 before the first load.
    complete_to: Mutex<i64>,
}

impl Published {
    /// Reads the whole directory.
    pub(super) async fn open(db: Db, sealer: Sealer) -> Result<Self, StoreError> {
        let directory = watch::Sender::new(Arc::new(Directory::default()));
        let published = Self { db, sealer, directory, complete_to: Mutex::new(0) };
        published.catch_up().await?;
        Ok(published)
    }

    pub(super) fn directory(&self) -> &watch::Sender<Arc<Directory>> {
        &self.directory
    }

    /// Publishes what was committed since the last time.
    pub(super) async fn catch_up(&self) -> Result<(), StoreError> {
        let mut complete_to = self.complete_to.lock().await;
        let mut tx = self.db.control(Purpose::Read).await?;
        let news = directory::news(&mut tx, &self.sealer, *complete_to).await;
        let Some(news) = tx.end(news).await? else { return Ok(()) };
        let head = news.head;
        // Nobody else publishes while this one knows how far it is complete.
        let held = Arc::clone(&self.directory.borrow());
        self.directory.send_replace(Arc::new(directory::with(&held, news)));
        *complete_to = head;
        Ok(())
    }

    /// Waits until the directory holds what the database has committed by now.
    pub(super) async fn reach_head(&self) -> Result<(), StoreError> {
        let mut directory = self.directory.subscribe();
        let mut tx = self.db.control(Purpose::Read).await?;
        let head = directory::head(&mut tx).await;
        let head = tx.end(head).await?;
        while *self.complete_to.lock().await < head {
            // It fails only when nobody publishes any more.
            let _ended = directory.changed().await;
        }
        Ok(())
    }

    /// Follows the changes of other processes, if there can be any, until dropped.
    pub(super) fn follow(self: &Arc<Self>) -> Option<Following> {
        let notices = self.db.notices()?;
        let task = tokio::spawn(follow(Arc::clone(self), notices));
        Some(Following(task.abort_handle()))
    }
}

/// The task that follows; ends when dropped.
#[derive(Debug)]
pub(super) struct Following(AbortHandle);

impl Following {
    pub(super) fn stop(&self) {
        self.0.abort();
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn follow(published: Arc<Published>, notices: Notices) {
    let mut pause = PAUSE_MIN_MS;
    loop {
        let Err(error) = listen(&published, &notices, &mut pause).await;
        if pause == PAUSE_MIN_MS {
            tracing::warn!(%error, "no changes are heard of; the last directory stays in force");
        }
        tokio::time::sleep(Duration::from_millis(pause)).await;
        pause = (pause * 2).min(PAUSE_MAX_MS);
    }
}

/// Listens, then looks, then waits: so nothing that happens before the wait is missed.
async fn listen(
    published: &Published,
    notices: &Notices,
    pause: &mut u64,
) -> Result<std::convert::Infallible, StoreError> {
    let mut listening = notices.listen().await?;
    loop {
        published.catch_up().await?;
        if *pause != PAUSE_MIN_MS {
            tracing::info!("changes are heard of again; the directory has caught up");
            *pause = PAUSE_MIN_MS;
        }
        listening.heard(Duration::from_millis(POLL_MS)).await?;
    }
}
