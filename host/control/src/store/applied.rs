//! How far the data plane of this process has come with the published directory.
//!
//! Waited for once, after a change is published ([`super::change`]). Invariant: the wait is
//! bounded: a change that is committed is answered, whatever the data plane does.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use model::{directory::TenantRecord, tenant::TenantId};
use tokio::sync::watch;

use super::{Store, StoreError};

/// How long the answer to a change waits for the data plane, in ms: longer than a busy
/// machine takes to join 100,000 tenants, shorter than clients wait for an answer.
const WAIT_MS_MAX: u64 = 5_000;

/// The version of the directory that the data plane serves from; nothing where there is no
/// data plane.
#[derive(Debug, Default)]
pub(super) struct Applied(OnceLock<watch::Receiver<u64>>);

impl Applied {
    /// Waits until the data plane has come to a version of the directory.
    async fn reach(&self, version: u64) {
        let Some(mut applied) = self.0.get().cloned() else { return };
        // It fails only when the data plane has ended, and the process with it.
        let _ended = applied.wait_for(|applied| *applied >= version).await.is_err();
    }

    /// The same within [`WAIT_MS_MAX`].
    async fn wait_for(&self, version: u64) {
        let wait = Duration::from_millis(WAIT_MS_MAX);
        if tokio::time::timeout(wait, self.reach(version)).await.is_err() {
            tracing::warn!(version, "a change is answered before it is in force");
        }
    }
}

impl Store {
    /// Has the answers to changes wait for the data plane of this process, which tells the
    /// version of the directory that it serves from. Called once, at start-up.
    pub fn set_applied(&self, applied: watch::Receiver<u64>) {
        if self.applied.0.set(applied).is_err() {
            tracing::error!("a store has one data plane only");
        }
    }

    /// Waits, for as long as it takes, until the data plane serves from what the database has
    /// committed by now; the version of the directory that it then serves from.
    pub(crate) async fn reach_head(&self) -> Result<u64, StoreError> {
        self.published.reach_head().await?;
        let version = self.published.directory().borrow().version;
        self.applied.reach(version).await;
        Ok(version)
    }

    /// A tenant as it is published.
    pub(crate) fn published(&self, id: TenantId) -> Option<Arc<TenantRecord>> {
        let directory = self.published.directory().borrow();
        directory.record(id).map(Arc::clone)
    }

    /// Waits until the data plane serves from the directory as it is published now.
    pub(super) async fn in_force(&self) {
        let version = self.published.directory().borrow().version;
        self.applied.wait_for(version).await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Future, poll_fn};
    use std::pin::pin;
    use std::task::Poll;

    use super::*;

    /// Whether it is over after one poll.
    async fn is_over(future: impl Future<Output = ()>) -> bool {
        let mut future = pin!(future);
        poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await
    }

    #[tokio::test]
    async fn a_wait_ends_with_the_version_and_needs_no_data_plane() {
        let applied = Applied::default();
        assert!(is_over(applied.wait_for(7)).await, "there is no data plane");
        let (sender, receiver) = watch::channel(6);
        applied.0.set(receiver).expect("the first");
        assert!(!is_over(applied.wait_for(7)).await);
        sender.send_replace(8);
        assert!(is_over(applied.wait_for(7)).await);
        assert!(!is_over(applied.wait_for(9)).await);
        drop(sender);
        assert!(is_over(applied.wait_for(9)).await, "the data plane has ended");
    }

    #[tokio::test]
    async fn a_data_plane_that_stands_still_delays_an_answer_for_a_bounded_time() {
        let applied = Applied::default();
        let (_sender, receiver) = watch::channel(0);
        applied.0.set(receiver).expect("the first");
        applied.wait_for(1).await;
    }
}
