//! Tokens that a slot keeps aside, as the hot path sees them.
//!
//! Spent only when neither the dispatcher nor the authority answers; the keeper draws them
//! once a window and puts them here. Invariant: they are tokens of a record like any other,
//! so they survive a kill and are refunded like any other; none is spent after its window.

use std::sync::atomic::{AtomicU64, Ordering};

use model::{clock::UnixMs, gate::Token, quota::Metric};

use crate::lease_file::{Map, Taken};

/// One slot's.
#[derive(Default)]
pub(crate) struct Overdraft {
    /// How many the plan wants kept; 0 for none.
    size: AtomicU64,
    /// `generation:32 | record:32`; 0 while nothing is kept.
    lease: AtomicU64,
    /// End of their window, ms.
    until: AtomicU64,
}

impl Overdraft {
    pub(crate) fn set_size(&self, tokens: u64) {
        self.size.store(tokens, Ordering::Relaxed);
    }

    pub(crate) fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    /// Puts a record in place for takers. The one before it is sealed.
    pub(crate) fn publish(&self, generation: u32, index: u32, until: UnixMs) {
        self.until.store(until.0, Ordering::Release);
        self.lease.store(u64::from(generation) << 32 | u64::from(index), Ordering::Release);
    }

    /// Takes the record out of takers' sight.
    pub(crate) fn withdraw(&self) {
        self.lease.store(0, Ordering::Release);
    }

    /// Ends it at once, from any thread.
    pub(crate) fn seal(&self, map: &Map) {
        let lease = self.lease.load(Ordering::Acquire);
        if let Some(record) = map.record(lease as u32).filter(|_| lease != 0) {
            record.seal((lease >> 32) as u32);
        }
    }

    /// Takes one, if there is one. `latest` is the latest that it may be at the authority.
    pub(crate) fn take(&self, map: &Map, metric: Metric, latest: UnixMs) -> Option<Token> {
        let lease = self.lease.load(Ordering::Acquire);
        let (generation, index) = ((lease >> 32) as u32, lease as u32);
        if lease == 0 || latest.0 >= self.until.load(Ordering::Acquire) {
            return None;
        }
        match map.record(index)?.take(generation) {
            Taken::Left(_) => Some(Token { metric, lease: index, generation }),
            Taken::Dry | Taken::Gone => None,
        }
    }

    /// How many are left.
    pub(crate) fn at_hand(&self, map: &Map) -> u64 {
        let lease = self.lease.load(Ordering::Acquire);
        let record = map.record(lease as u32).filter(|_| lease != 0);
        record.and_then(|record| record.tokens((lease >> 32) as u32)).map_or(0, u64::from)
    }
}
