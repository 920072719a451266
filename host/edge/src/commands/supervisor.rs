//! What the process tells its supervisor: sd_notify(3) of systemd, `Type=notify-reload`.
//!
//! Without `NOTIFY_SOCKET` in the environment nothing is sent. Invariant: ready is said only
//! when every listener answers, and again after each reload; a supervisor that cannot be
//! told is a line in the log, never a reason to stop.

use std::{sync::Arc, time::Duration};

use model::catalog::ReloadStatus;
use sd_notify::NotifyState;
use tokio::sync::watch;

/// Longest that a reload stays unconfirmed. Less than systemd waits by default (90 s); a
/// reload that takes longer goes on all the same.
const RELOAD_WAIT: Duration = Duration::from_secs(60);

/// Everything listens.
pub(super) fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("serving")]);
}

/// No new connections; exchanges in flight finish.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

/// Says that a reload began, and when it is over what came of it.
pub(super) fn reloading(mut status: watch::Receiver<Arc<ReloadStatus>>) {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "the supervisor is not told of a reload"),
    }
    status.mark_unchanged();
    tokio::spawn(async move {
        let over = tokio::time::timeout(RELOAD_WAIT, status.changed()).await;
        let refused = over.is_ok() && status.borrow().last_error.is_some();
        let text = match (over.is_ok(), refused) {
            (true, false) => "serving",
            (true, true) => "serving; the last reload was refused, see the log",
            (false, _) => "serving; the last reload is still going on",
        };
        tell(&[NotifyState::Ready, NotifyState::Status(text)]);
    });
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the supervisor cannot be told");
    }
}
