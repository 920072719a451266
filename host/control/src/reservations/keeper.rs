//! One reservation as its request holds it, and until when it may be relied on.
//!
//! Invariant: both clocks have to agree that there is time left; a machine that slept finds
//! the wall clock past it, one whose wall clock was set back the other.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use model::{
    BoxFuture,
    clock::Clock,
    reservation::{Amount, Keeper, Outcome, Refused},
};

use super::{MARGIN_MS, Shared, TTL_MS};
use crate::store::Held;

/// When a reservation stops being live, on either clock, in ms.
pub(super) struct Until {
    wall: AtomicU64,
    monotonic: AtomicU64,
}

impl Until {
    /// The time of a request that is sent now.
    pub(super) fn from_now(clock: &dyn Clock) -> Self {
        let lived = TTL_MS - MARGIN_MS;
        Self {
            wall: clock.now().plus_ms(lived).0.into(),
            monotonic: clock.monotonic_ms().saturating_add(lived).into(),
        }
    }

    pub(super) fn extend(&self, to: &Self) {
        for (mine, theirs) in [(&self.wall, &to.wall), (&self.monotonic, &to.monotonic)] {
            mine.fetch_max(theirs.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    fn is_past(&self, clock: &dyn Clock) -> bool {
        clock.now().0 >= self.wall.load(Ordering::Relaxed)
            || clock.monotonic_ms() >= self.monotonic.load(Ordering::Relaxed)
    }
}

/// Behind a `Reservation`.
pub(super) struct Kept {
    pub(super) shared: Arc<Shared>,
    pub(super) held: Held,
    pub(super) until: Arc<Until>,
}

impl Keeper for Kept {
    fn extend(&self, more: Amount) -> BoxFuture<'static, Result<u64, Refused>> {
        self.shared.extend(self.held, more)
    }

    fn is_live(&self) -> bool {
        !self.until.is_past(&*self.shared.clock)
    }

    fn settle(&self, outcome: Outcome) {
        self.shared.end(self.held, outcome);
    }
}
