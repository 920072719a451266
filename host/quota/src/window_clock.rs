//! The authority's time at this edge: what decides in which window a token is spent.
//!
//! Read on every request with a shared dispatcher, else the process's own clock. Every
//! answer of the authority that carries its time gives two bounds: it was at least that
//! late when the answer came, and at most later by the time that the call took. Invariant:
//! windows begin late and end early by that uncertainty, so that no two edges are ever in
//! two windows of an account with tokens of the same one; only the rate of the edge's clock
//! is trusted, never its time. A later answer may know less than the one before; the time
//! that was read stays read, so that no edge goes back into a window that it has left.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use model::clock::{Clock, UnixMs};

/// A clock for windows.
pub(crate) struct WindowClock {
    clock: Arc<dyn Clock>,
    /// Both bounds, less the monotonic clock, in ms; `None` where the process is alone.
    shared: Option<Bounds>,
}

#[derive(Default)]
struct Bounds {
    earliest: AtomicU64,
    latest: AtomicU64,
    /// The latest time that was read, ms: written once in a millisecond, by whoever is first.
    read: AtomicU64,
}

impl WindowClock {
    /// The process's own clock.
    pub(crate) const fn own(clock: Arc<dyn Clock>) -> Self {
        Self { clock, shared: None }
    }

    /// The authority's, to be [learnt](Self::learn) before it is read.
    pub(crate) fn authority(clock: Arc<dyn Clock>) -> Self {
        Self { clock, shared: Some(Bounds::default()) }
    }

    /// The process's own clock.
    pub(crate) fn source(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    /// ms on the monotonic clock.
    pub(crate) fn monotonic_ms(&self) -> u64 {
        self.clock.monotonic_ms()
    }

    /// The authority said `now` to a call that was sent at `sent` on the monotonic clock.
    pub(crate) fn learn(&self, sent: u64, now: UnixMs) {
        let Some(bounds) = &self.shared else { return };
        bounds.earliest.store(now.0.wrapping_sub(self.monotonic_ms()), Ordering::Relaxed);
        // A millisecond more: both clocks are read in whole ones.
        bounds.latest.store((now.0 + 1).wrapping_sub(sent), Ordering::Relaxed);
    }

    /// It is at least so late. With a shared dispatcher it never goes back.
    pub(crate) fn now(&self) -> UnixMs {
        match &self.shared {
            None => self.clock.now(),
            Some(bounds) => bounds.read(self.plus(&bounds.earliest)),
        }
    }

    /// It is at most so late: never earlier than [`WindowClock::now`].
    pub(crate) fn latest(&self) -> UnixMs {
        match &self.shared {
            None => self.clock.now(),
            Some(bounds) => self.now().max(self.plus(&bounds.latest)),
        }
    }

    fn plus(&self, offset: &AtomicU64) -> UnixMs {
        UnixMs(self.monotonic_ms().wrapping_add(offset.load(Ordering::Relaxed)))
    }

    /// The time of a request that the process's clock says is `now`.
    pub(crate) fn of_request(&self, now: UnixMs) -> UnixMs {
        if self.shared.is_some() { self.now() } else { now }
    }
}

impl Bounds {
    /// Notes a time, and answers the latest that was noted.
    fn read(&self, now: UnixMs) -> UnixMs {
        let read = self.read.load(Ordering::Relaxed);
        if now.0 <= read {
            return UnixMs(read);
        }
        UnixMs(self.read.fetch_max(now.0, Ordering::Relaxed).max(now.0))
    }
}

#[cfg(test)]
mod tests {
    use model::clock::ManualClock;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_authority_is_as_late_as_it_said_plus_at_most_the_time_of_the_call() {
        let own = Arc::new(ManualClock::at(UnixMs(7)));
        own.advance_ms(1_000);
        let clock = WindowClock::authority(Arc::clone(&own) as _);
        let sent = clock.monotonic_ms();
        own.advance_ms(30);
        clock.learn(sent, UnixMs(500_000));
        assert_eq!((clock.now(), clock.latest()), (UnixMs(500_000), UnixMs(500_031)));
        own.advance_ms(10);
        assert_eq!((clock.now(), clock.latest()), (UnixMs(500_010), UnixMs(500_041)));
        assert_eq!(clock.of_request(UnixMs(1)), UnixMs(500_010));
    }

    #[test]
    fn a_process_that_is_alone_has_its_own_time() {
        let own = Arc::new(ManualClock::at(UnixMs(7)));
        let clock = WindowClock::own(own);
        clock.learn(0, UnixMs(500_000));
        assert_eq!((clock.now(), clock.latest()), (UnixMs(7), UnixMs(7)));
        assert_eq!(clock.of_request(UnixMs(9)), UnixMs(9));
    }

    proptest! {
        #[test]
        fn it_never_goes_back_and_holds_the_true_time_between_its_bounds(
            steps in proptest::collection::vec((0_u64..40, 0_u64..400, 0_u64..400), 1..60),
        ) {
            let own = Arc::new(ManualClock::default());
            let clock = WindowClock::authority(Arc::clone(&own) as _);
            let truth = |own: &ManualClock| own.monotonic_ms() + 500_000;
            let mut before = UnixMs(0);
            for (pause, there, back) in steps {
                own.advance_ms(pause);
                let sent = clock.monotonic_ms();
                own.advance_ms(there);
                let said = UnixMs(truth(&own));
                own.advance_ms(back);
                clock.learn(sent, said);
                let (now, latest) = (clock.now(), clock.latest());
                prop_assert!(before <= now, "{before:?} before {now:?}");
                prop_assert!(now.0 <= truth(&own) && truth(&own) <= latest.0);
                before = now;
            }
        }

        #[test]
        fn an_authority_whose_clock_is_set_back_holds_it_still(
            said in proptest::collection::vec(0_u64..10_000, 1..60),
        ) {
            let own = Arc::new(ManualClock::default());
            let clock = WindowClock::authority(Arc::clone(&own) as _);
            let mut before = UnixMs(0);
            for said in said {
                own.advance_ms(1);
                clock.learn(own.monotonic_ms(), UnixMs(said));
                prop_assert!(before <= clock.now() && clock.now() <= clock.latest());
                before = clock.now();
            }
        }
    }
}
