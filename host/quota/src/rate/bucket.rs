//! One bucket as its takers see it, wherever it is kept.
//!
//! Invariant: a taker sees one rate from beginning to end, whoever changes it meanwhile.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use model::{
    clock::Clock,
    limiter::{Bucket, Taken, Verdict},
    rate::Rate,
};

use super::{
    gcra::{Gcra, Pace},
    lent::{self, Lender, Lent},
};

/// A bucket of this process.
pub(crate) struct KeyBucket {
    clock: Arc<dyn Clock>,
    /// A [`Rate`] in one word.
    rate: AtomicU64,
    /// All of it, or this edge's share while the lender is away.
    gcra: Gcra,
    lent: Option<Lent>,
}

impl KeyBucket {
    /// Kept here.
    pub(crate) fn alone(clock: Arc<dyn Clock>, rate: Rate) -> Self {
        Self { clock, rate: AtomicU64::new(rate.to_bits()), gcra: Gcra::default(), lent: None }
    }

    /// Borrowed from, under `key`.
    pub(crate) fn lent(clock: Arc<dyn Clock>, rate: Rate, lender: Arc<Lender>, key: &str) -> Self {
        Self { lent: Some(Lent::new(lender, key)), ..Self::alone(clock, rate) }
    }

    pub(crate) fn set_rate(&self, rate: Rate) {
        if self.rate.load(Ordering::Relaxed) != rate.to_bits() {
            self.rate.store(rate.to_bits(), Ordering::Relaxed);
        }
    }

    pub(crate) fn rate(&self) -> Rate {
        Rate::from_bits(self.rate.load(Ordering::Relaxed))
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.monotonic_ms()
    }

    /// Takes from what is kept here, at a pace of its own.
    pub(crate) fn take_here(&self, rate: Rate, pace: Pace, now_ms: u64, cost: u32) -> Verdict {
        self.gcra.take(rate, pace, now_ms, cost)
    }

    /// Leaves nothing saved up here.
    pub(crate) fn drain_here(&self, pace: Pace, now_ms: u64) {
        self.gcra.drain(pace, now_ms);
    }

    pub(crate) const fn of_lender(&self) -> Option<&Lent> {
        self.lent.as_ref()
    }

    /// From when on, in ms, nothing is lost by forgetting it.
    pub(crate) fn idle_at_ms(&self) -> u64 {
        self.gcra.full_at_ms().max(self.lent.as_ref().map_or(0, Lent::idle_at_ms))
    }
}

impl Bucket for KeyBucket {
    fn take(self: Arc<Self>, cost: u32) -> Taken {
        if let Some(lent) = &self.lent {
            return lent::take(&self, lent, cost);
        }
        let rate = self.rate();
        Taken::Now(self.gcra.take(rate, Pace::of(rate), self.now_ms(), cost))
    }
}
