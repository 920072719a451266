//! How far the data plane of this process has come with the published directory.
//!
//! Waited for once, after a change is published ([`super::change`]). Invariant: the wait is
//! bounded: a change that is committed is answered, whatever the data plane does.

use std::{sync::OnceLock, time::Duration};

use tokio::sync::watch;

use super::Store;

/// How long the answer to a change waits for the data plane, in ms: the second within which
/// a change is in force at every edge.
const WAIT_MS_MAX: u64 = 1_000;

/// The version of the directory that the data plane serves from; nothing where there is no
/// data plane.
#[derive(Debug, Default)]
pub(super) struct Applied(OnceLock<watch::Receiver<u64>>);

impl Applied {
    /// Waits until the data plane has come to a version of the directory.
    async fn wait_for(&self, version: u64) {
        let Some(mut applied) = self.0.get().cloned() else { return };
        let reached = applied.wait_for(|applied| *applied >= version);
        match tokio::time::timeout(Duration::from_millis(WAIT_MS_MAX), reached).await {
            // An error means that the data plane has ended, and the process with it.
            Ok(_) => {}
            Err(_) => tracing::warn!(version, "a change is answered before it is in force"),
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

    /// The version of the directory that the data plane serves from, if there is one here.
    pub(crate) fn applied(&self) -> Option<u64> {
        self.applied.0.get().map(|applied| *applied.borrow())
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
