//! What the keeper knows about one metric of one active tenant.
//!
//! Made when a slot first needs something, dropped when it was idle and everything of it is
//! reported. Invariant: a new account of a window holds nothing of it, and knows no epoch
//! that it may spend before it has confirmed its bounds.

use std::sync::{Arc, atomic::Ordering};

use model::{
    clock::UnixMs,
    ledger::{Bounds, EpochRef, LeaseReport, WindowKey},
    window::Window,
};

use super::{Id, elsewhere::Elsewhere, overdraft::Kept};
use crate::{
    meter::{Shared, TenantMeter},
    slot::Slot,
};

/// Seconds of the observed rate that one lease should last: the default of 1–2.
const LEASE_SECONDS: u64 = 2;
/// Shortest time that a burst is measured over, in ms: less would take one request for
/// thousands per second.
const BURST_MS: u64 = 250;
/// Time between two points of the moving average, in ms.
const RATE_STEP_MS: u64 = 1_000;
/// Largest single grant: the cell counts in 32 bits, and refunds need room.
pub(super) const GRANT_MAX: u64 = 1 << 30;

/// Which dispatcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    /// The one that edges share.
    Shared,
    /// The one in this process: tranches that only this holder can have.
    Direct,
}

pub(super) struct Account {
    pub(super) meter: Arc<TenantMeter>,
    pub(super) index: usize,
    pub(super) key: WindowKey,
    /// Shared epochs that may be spent, as confirmed.
    pub(super) bounds: Bounds,
    /// The bounds were confirmed, and nothing has shown since that they are behind.
    pub(super) confirmed: bool,
    /// The confirmation is in a call, or will be in the next.
    pub(super) confirming: bool,
    /// Highest epoch known to be opened for this holder's own dispatcher.
    pub(super) direct_latest: u64,
    /// Highest own epoch that the authority had sealed: it may have been told so before this
    /// edge heard that the epoch was opened.
    pub(super) direct_floor: u64,
    /// An open call ended without an answer: an own epoch after `direct_latest` may exist.
    pub(super) doubt: bool,
    /// The limit that the open tranches were opened under, and its version.
    pub(super) limit: u64,
    pub(super) version: u32,
    pub(super) lease: Option<Lease>,
    /// A message to a dispatcher is under way, with this number.
    pub(super) leasing: Option<u64>,
    /// A tranche is on its way to a dispatcher.
    pub(super) installing: bool,
    /// A tranche is being asked for.
    pub(super) opening: Option<Via>,
    /// Open shared epochs have to be closed before the next lease.
    pub(super) closing: bool,
    /// Tokens that expired: they go back with the next message.
    pub(super) parked: Option<Parked>,
    /// Sealed leases of this window that the authority does not know of yet.
    pub(super) pending: u32,
    /// The authority said "exhausted"; believed until then.
    pub(super) exhausted: Option<UnixMs>,
    /// Until then another edge's tranche is waited for instead of opening one; on the
    /// monotonic clock, ms.
    pub(super) grace_until: u64,
    /// Nothing is asked of a dispatcher before; on the monotonic clock, ms.
    pub(super) retry_at: u64,
    /// Until then tokens of closed epochs may come back; on the monotonic clock, ms.
    pub(super) settles_until: u64,
    /// Tokens in the lease at the last look.
    pub(super) seen: u32,
    /// How often in a row others held the last tokens.
    pub(super) soft: u32,
    pub(super) rate: Rate,
    /// When tokens were last taken, or wanted; on the monotonic clock, ms.
    pub(super) active_at: u64,
    pub(super) late_reported: u32,
    /// Tokens kept aside.
    pub(super) kept: Kept,
    /// The authority has another window than was asked for.
    pub(super) elsewhere: Option<Elsewhere>,
}

/// Tokens out of the cell that their dispatcher does not have back.
#[derive(Clone, Copy)]
pub(super) struct Parked {
    pub(super) epoch: u64,
    pub(super) tokens: u64,
}

/// A record in use.
pub(super) struct Lease {
    pub(super) via: Via,
    pub(super) record: u32,
    pub(super) generation: u32,
    pub(super) epoch: u64,
    pub(super) tranche: u64,
    /// When it has to be renewed, and when it ends; on the monotonic clock, ms.
    pub(super) renew_at: u64,
    pub(super) expires: u64,
    /// Taken and refunded so far, as counted.
    pub(super) counted: (u64, u64),
    /// Spent and refunded, as the authority knows.
    pub(super) reported: (u64, u64),
}

impl Account {
    /// An account of the window that holds now. `generation` is the next lease's.
    pub(super) fn new(
        meter: Arc<TenantMeter>,
        index: usize,
        shared: &Shared,
        generation: u32,
    ) -> Option<Self> {
        let slot = meter.slots.get(index)?;
        let window = slot.window(shared.clock.now())?;
        slot.enter(window, generation);
        slot.live(shared.life.load(Ordering::Acquire), generation);
        let (version, limit) = slot.limit();
        let now = shared.clock.monotonic_ms();
        let key = WindowKey { tenant: meter.tenant, metric: slot.metric, window };
        Some(Self {
            meter,
            index,
            key,
            bounds: Bounds::default(),
            confirmed: false,
            confirming: false,
            direct_latest: 0,
            direct_floor: 0,
            doubt: false,
            limit,
            version,
            lease: None,
            leasing: None,
            installing: false,
            opening: None,
            closing: false,
            parked: None,
            pending: 0,
            exhausted: None,
            grace_until: 0,
            retry_at: 0,
            settles_until: 0,
            seen: 0,
            soft: 0,
            rate: Rate { per_s: 0, tokens: 0, since: now },
            active_at: now,
            late_reported: 0,
            kept: Kept::default(),
            elsewhere: None,
        })
    }

    pub(super) fn id(&self) -> Id {
        (self.meter.tenant, self.index)
    }

    pub(super) fn slot(&self) -> &Slot {
        // `new` checked the index; the fallback is never reached.
        let [first, _] = &self.meter.slots;
        self.meter.slots.get(self.index).unwrap_or(first)
    }

    /// Moves to another window. Everything of the old one must be retired; an answer that
    /// is still under way is told by its key.
    pub(super) fn enter(&mut self, window: Window, generation: u32) {
        self.key.window = window;
        self.enter_anew();
        self.slot().enter(window, generation);
    }

    /// Knows nothing of its window any more. Everything must be retired, and no answer
    /// under way.
    pub(super) fn enter_anew(&mut self) {
        self.bounds = Bounds::default();
        self.confirmed = false;
        self.confirming = false;
        self.direct_latest = 0;
        self.direct_floor = 0;
        self.doubt = false;
        self.leasing = None;
        self.installing = false;
        self.opening = None;
        self.closing = false;
        self.parked = None;
        self.pending = 0;
        self.exhausted = None;
        self.grace_until = 0;
        self.retry_at = 0;
        self.settles_until = 0;
        self.soft = 0;
        self.late_reported = 0;
        self.kept = Kept::default();
    }

    /// Whether an answer is awaited before anything else is asked of a dispatcher.
    pub(super) const fn is_busy(&self) -> bool {
        self.leasing.is_some() || self.installing || self.closing || self.confirming
    }

    /// Whether an own tranche was sealed before it came: it was recalled, for the sake of others
    /// in its pool, while the answer that tells of it was on its way.
    pub(super) const fn sealed_early(&self, epoch: u64) -> bool {
        epoch <= self.direct_floor
    }

    /// Own tranches that the authority takes for open: the one in use, and those whose final
    /// figures it does not have.
    pub(super) fn own_tranches(&self) -> u32 {
        let used = self.lease.as_ref().is_some_and(|lease| lease.via == Via::Direct);
        self.pending + u32::from(used)
    }

    pub(super) fn waiting(&self) -> u64 {
        u64::from(self.slot().waiting().load(Ordering::Acquire))
    }

    /// Tokens in the lease; `None` when it was sealed from outside. 0 without a lease.
    pub(super) fn at_hand(&self, shared: &Shared) -> Option<u32> {
        let Some(lease) = &self.lease else { return Some(0) };
        shared.map.record(lease.record)?.tokens(lease.generation)
    }

    /// How many tokens the next lease should bring.
    pub(super) fn want(&self, now: u64) -> u64 {
        let waiting = self.waiting();
        let rate = self.rate.at(now, waiting);
        rate.saturating_mul(LEASE_SECONDS).max(waiting).clamp(1, GRANT_MAX)
    }

    /// Counts what happened in the lease since the last time.
    pub(super) fn count(&mut self, shared: &Shared, now: u64) {
        let Some(lease) = &mut self.lease else { return };
        let news = lease.news(shared);
        if news == (0, 0) {
            return;
        }
        self.active_at = now;
        self.rate.tokens += news.0;
        self.meter.count(self.index, news);
    }

    /// Everything that is in use.
    fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.lease.iter().chain(&self.kept.lease)
    }

    pub(super) fn leases_mut(&mut self) -> impl Iterator<Item = &mut Lease> {
        self.lease.iter_mut().chain(&mut self.kept.lease)
    }

    /// Whether an epoch is the one kept aside.
    pub(super) fn keeps(&self, epoch: u64) -> bool {
        self.kept.lease.as_ref().is_some_and(|lease| lease.epoch == epoch)
    }

    /// What the authority should know of the present leases, where it changed.
    pub(super) fn changed(&self, shared: &Shared) -> impl Iterator<Item = LeaseReport> {
        self.leases().filter_map(|lease| lease.changed(self.key, shared))
    }

    /// Whether the account can be forgotten.
    pub(super) fn is_done(&self) -> bool {
        self.lease.is_none()
            && self.pending == 0
            && self.opening.is_none()
            && !self.is_busy()
            && !self.doubt
            && self.waiting() == 0
            && self.late_reported == self.slot().late()
            && self.kept.lease.is_none()
            && !self.kept.asking
    }
}

impl Lease {
    /// Tokens taken and given back since the last time.
    pub(super) fn news(&mut self, shared: &Shared) -> (u64, u64) {
        let Some(record) = shared.map.record(self.record) else { return (0, 0) };
        let refunded = record.refunded();
        let taken = record.spent() + refunded;
        let (taken_before, refunded_before) = self.counted;
        self.counted = (taken.max(taken_before), refunded);
        (taken.saturating_sub(taken_before), refunded.saturating_sub(refunded_before))
    }

    fn changed(&self, key: WindowKey, shared: &Shared) -> Option<LeaseReport> {
        let record = shared.map.record(self.record)?;
        let (spent, refunded) = (record.spent(), record.refunded());
        ((spent, refunded) != self.reported).then_some(LeaseReport {
            of: EpochRef { key, epoch: self.epoch },
            tranche: self.tranche,
            lease: self.generation,
            spent,
            refunded,
            sealed: false,
        })
    }
}

/// Tokens per second, as observed.
pub(super) struct Rate {
    per_s: u64,
    tokens: u64,
    since: u64,
}

impl Rate {
    /// The rate now: the average, or the present burst with what waits, if that is more.
    pub(super) fn at(&self, now: u64, waiting: u64) -> u64 {
        let elapsed = now.saturating_sub(self.since).max(BURST_MS);
        self.per_s.max((self.tokens + waiting).saturating_mul(1_000) / elapsed)
    }

    /// Takes a point of the average when it is time.
    pub(super) fn tick(&mut self, now: u64) {
        let elapsed = now.saturating_sub(self.since);
        if elapsed >= RATE_STEP_MS {
            self.per_s = (self.per_s + self.tokens.saturating_mul(1_000) / elapsed) / 2;
            self.tokens = 0;
            self.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_counts_at_once_and_the_average_follows() {
        let mut rate = Rate { per_s: 0, tokens: 8, since: 0 };
        assert_eq!(rate.at(1, 0), 32, "8 tokens in one instant are not 8,000 per second");
        assert_eq!(rate.at(1, 2), 40);
        rate.tick(1_000);
        assert_eq!(rate.at(1_000, 0), 4);
        rate.tick(1_500);
        assert_eq!(rate.at(1_500, 0), 4, "too early for another point");
        rate.tick(3_000);
        assert_eq!(rate.at(3_000, 0), 2);
    }
}
