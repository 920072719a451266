//! One metric of one tenant as the hot path sees it: which lease to spend from, until
//! when, and what to say when there is none.
//!
//! Read on every request; written by the keeper, and by the gate when a limit changes.
//! Invariant: `lease` is published after the times it is valid for, and a lease is sealed
//! before another window's times are published, so a taker that read an old pair fails at
//! the generation in the cell. A lease of a shared dispatcher also ends on the monotonic
//! clock; the keeper takes its tokens out soon after.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
};

use model::{
    anchor::Anchor,
    clock::UnixMs,
    gate::{QuotaStatus, Token},
    ledger::Above,
    quota::Metric,
    window::Window,
};

use crate::{
    lease_file::{Map, Taken},
    window_clock::WindowClock,
};

/// The end of a lease that ends with its window only.
pub(crate) const NEVER: u64 = u64::MAX;

/// The limit stands for "unlimited".
const UNLIMITED: u8 = 1;
/// The limit is a share of a pool.
const POOLED: u8 = 2;

/// A metric that the hot path takes tokens of.
pub(crate) struct Slot {
    pub(crate) metric: Metric,
    limit: AtomicU64,
    /// Rises with every change of the limit.
    limit_version: AtomicU32,
    /// How the limit is shown: [`UNLIMITED`], [`POOLED`].
    shown: AtomicU8,
    /// What lies above the pools that the tenant draws from; for the keeper alone.
    above: Mutex<Option<Above>>,
    /// `generation:32 | record:32`; 0 when there is no lease.
    lease: AtomicU64,
    /// The window that lease and figures belong to, ms.
    since: AtomicU64,
    until: AtomicU64,
    /// When the tenant's months begin: an [`Anchor`] in one word.
    anchor: AtomicU64,
    /// Requests are served without a token when nobody can say whether there is one.
    allows: AtomicBool,
    /// End of the lease on the monotonic clock, ms; [`NEVER`] without one.
    expires: AtomicU64,
    /// At so many tokens or fewer the keeper is asked for more.
    mark: AtomicU32,
    /// Tokens of the window outside the cell.
    beyond: AtomicU64,
    /// Exhausted is a definite answer until then, ms.
    empty_until: AtomicU64,
    /// Others hold the last tokens: until then, on the monotonic clock, ms.
    soft_until: AtomicU64,
    /// The authority is needed and does not answer.
    refused: AtomicBool,
    /// Tokens lie at a dispatcher that is away: until then, on the monotonic clock, ms.
    away_until: AtomicU64,
    /// Tokens given back too late: `first generation of the window:32 | count:32`.
    late: AtomicU64,
    /// Which of this process's holders counts them.
    life: AtomicU32,
    demanded: AtomicBool,
    waiting: AtomicU32,
}

/// What a take found.
pub(crate) enum SlotTake {
    /// One token; whether it is time to ask for more.
    Token(Token, bool),
    /// No token at hand.
    Dry,
}

impl Slot {
    pub(crate) fn new(metric: Metric) -> Self {
        Self {
            metric,
            limit: AtomicU64::new(0),
            limit_version: AtomicU32::new(0),
            shown: AtomicU8::new(0),
            above: Mutex::new(None),
            lease: AtomicU64::new(0),
            since: AtomicU64::new(0),
            until: AtomicU64::new(0),
            anchor: AtomicU64::new(Anchor::default().to_bits()),
            allows: AtomicBool::new(false),
            expires: AtomicU64::new(NEVER),
            mark: AtomicU32::new(0),
            beyond: AtomicU64::new(0),
            empty_until: AtomicU64::new(0),
            soft_until: AtomicU64::new(0),
            refused: AtomicBool::new(false),
            away_until: AtomicU64::new(0),
            late: AtomicU64::new(0),
            life: AtomicU32::new(0),
            demanded: AtomicBool::new(false),
            waiting: AtomicU32::new(0),
        }
    }

    /// Takes a token of the present lease. `now` is the time of windows.
    pub(crate) fn take(&self, map: &Map, now: UnixMs, clock: &WindowClock) -> SlotTake {
        let lease = self.lease.load(Ordering::Acquire);
        let (generation, index) = ((lease >> 32) as u32, lease as u32);
        if lease == 0 || now.0 >= self.until.load(Ordering::Acquire) {
            return SlotTake::Dry;
        }
        let expires = self.expires.load(Ordering::Acquire);
        if expires != NEVER && clock.monotonic_ms() >= expires {
            return SlotTake::Dry;
        }
        match map.record(index).map(|record| record.take(generation)) {
            Some(Taken::Left(left)) => {
                let ask = left <= self.mark.load(Ordering::Relaxed)
                    && !self.demanded.load(Ordering::Relaxed);
                SlotTake::Token(Token { metric: self.metric, lease: index, generation }, ask)
            }
            _ => SlotTake::Dry,
        }
    }

    /// Counts a token that came back after its lease was sealed; false when its window is
    /// over too.
    pub(crate) fn give_back_late(&self, generation: u32) -> bool {
        self.late
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |late| {
                let first = (late >> 32) as u32;
                let in_window = generation.wrapping_sub(first) < u32::MAX / 2;
                let room = late as u32 != u32::MAX;
                (in_window && room).then_some(late + 1)
            })
            .is_ok()
    }

    /// Tokens of this window that came back late.
    pub(crate) fn late(&self) -> u32 {
        self.late.load(Ordering::Acquire) as u32
    }

    /// Belongs to a holder's life; what came back late to an earlier one stays charged, as
    /// it was counted there.
    pub(crate) fn live(&self, life: u32, first: u32) {
        if self.life.swap(life, Ordering::AcqRel) != life {
            self.late.store(u64::from(first) << 32, Ordering::Release);
        }
    }

    /// Moves to a window; tokens of generations before `first` belong to earlier ones.
    /// No lease is published.
    pub(crate) fn enter(&self, window: Window, first: u32) {
        self.refused.store(false, Ordering::Release);
        if self.since.load(Ordering::Acquire) == window.start.0 {
            self.until.store(window.end.0, Ordering::Release);
            return;
        }
        self.late.store(u64::from(first) << 32, Ordering::Release);
        self.beyond.store(0, Ordering::Relaxed);
        self.empty_until.store(0, Ordering::SeqCst);
        self.soft_until.store(0, Ordering::Release);
        self.away_until.store(0, Ordering::Release);
        self.since.store(window.start.0, Ordering::Release);
        self.until.store(window.end.0, Ordering::Release);
    }

    /// The window that holds `now`.
    pub(crate) fn window(&self, now: UnixMs) -> Option<Window> {
        let anchor = Anchor::from_bits(self.anchor.load(Ordering::Relaxed));
        Window::of(self.metric, now, anchor)
    }

    pub(crate) fn set_allows(&self, allows: bool) {
        self.allows.store(allows, Ordering::Relaxed);
    }

    pub(crate) fn allows(&self) -> bool {
        self.allows.load(Ordering::Relaxed)
    }

    /// Puts another anchor in force; it never changes the window that holds now.
    pub(crate) fn set_anchor(&self, anchor: Anchor) {
        self.anchor.store(anchor.to_bits(), Ordering::Relaxed);
    }

    /// Puts a lease in place for takers, until `expires` on the monotonic clock.
    pub(crate) fn publish(&self, generation: u32, index: u32, expires: u64) {
        self.expires.store(expires, Ordering::Release);
        self.lease.store(u64::from(generation) << 32 | u64::from(index), Ordering::Release);
    }

    /// The lease in place holds until then.
    pub(crate) fn prolong(&self, expires: u64) {
        self.expires.store(expires, Ordering::Release);
    }

    /// Takes the lease out of takers' sight.
    pub(crate) fn withdraw(&self) {
        self.lease.store(0, Ordering::Release);
    }

    /// Ends the present lease at once, from any thread.
    pub(crate) fn seal(&self, map: &Map) {
        let lease = self.lease.load(Ordering::Acquire);
        if let Some(record) = map.record(lease as u32).filter(|_| lease != 0) {
            record.seal((lease >> 32) as u32);
        }
    }

    /// Puts a new limit in force; true when it fell, or holds in other pools (`moved`).
    pub(crate) fn set_limit(&self, limit: u64, unlimited: bool, moved: bool) -> bool {
        let pooled = self.above().is_some();
        let shown = if pooled { POOLED } else { 0 } | if unlimited { UNLIMITED } else { 0 };
        self.shown.store(shown, Ordering::Relaxed);
        let before = self.limit.swap(limit, Ordering::SeqCst);
        if before != limit || moved {
            self.limit_version.fetch_add(1, Ordering::SeqCst);
            self.empty_until.store(0, Ordering::SeqCst);
        }
        limit < before || moved
    }

    /// What lies above the pools that the tenant draws from.
    pub(crate) fn above(&self) -> Option<Above> {
        *self.above.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the tenant into pools, out of them, or under another top. Before
    /// [`Self::set_limit`]; true when it was elsewhere.
    pub(crate) fn set_above(&self, above: Option<Above>) -> bool {
        let mut held = self.above.lock().unwrap_or_else(PoisonError::into_inner);
        let top = |above: Option<Above>| above.map(|above| above.tenant);
        let moved = top(*held) != top(above);
        *held = above;
        moved
    }

    /// Version and value of the limit in force.
    pub(crate) fn limit(&self) -> (u32, u64) {
        loop {
            let version = self.limit_version.load(Ordering::SeqCst);
            let limit = self.limit.load(Ordering::SeqCst);
            if self.limit_version.load(Ordering::SeqCst) == version {
                return (version, limit);
            }
        }
    }

    /// Says "exhausted" until then, unless the limit changed since `version`.
    pub(crate) fn declare_empty(&self, version: u32, until: UnixMs) {
        self.empty_until.store(until.0, Ordering::SeqCst);
        if self.limit_version.load(Ordering::SeqCst) != version {
            self.empty_until.store(0, Ordering::SeqCst);
        }
    }

    /// Forgets that the window was exhausted.
    pub(crate) fn clear_empty(&self) {
        self.empty_until.store(0, Ordering::SeqCst);
    }

    /// Whether "exhausted" holds at `now`; believed for at most `cache_ms`, also when the
    /// clock was set back.
    pub(crate) fn is_empty(&self, now: UnixMs, cache_ms: u64) -> bool {
        let until = self.empty_until.load(Ordering::SeqCst);
        until > now.0 && until - now.0 <= cache_ms
    }

    /// Others hold the last tokens of the window; believed until then on the monotonic
    /// clock.
    pub(crate) fn declare_soft(&self, until: u64) {
        self.soft_until.store(until, Ordering::Release);
    }

    /// Whether others hold the last tokens.
    pub(crate) fn is_soft(&self, monotonic_ms: u64) -> bool {
        monotonic_ms < self.soft_until.load(Ordering::Acquire)
    }

    pub(crate) fn set_mark(&self, mark: u32) {
        self.mark.store(mark, Ordering::Relaxed);
    }

    pub(crate) fn mark(&self) -> u32 {
        self.mark.load(Ordering::Relaxed)
    }

    pub(crate) fn set_beyond(&self, tokens: u64) {
        self.beyond.store(tokens, Ordering::Relaxed);
    }

    pub(crate) fn set_refused(&self, refused: bool) {
        self.refused.store(refused, Ordering::Release);
    }

    /// Tokens lie at a dispatcher that is away; believed until then on the monotonic clock.
    pub(crate) fn declare_away(&self, until: u64) {
        self.away_until.store(until, Ordering::Release);
    }

    /// Whether nobody can say if there is a token.
    pub(crate) fn is_refused(&self, monotonic_ms: u64) -> bool {
        self.refused.load(Ordering::Acquire)
            || monotonic_ms < self.away_until.load(Ordering::Acquire)
    }

    /// Notes that the keeper is to look at this slot; true for the caller that has to say
    /// so.
    pub(crate) fn demand(&self) -> bool {
        !self.demanded.swap(true, Ordering::AcqRel)
    }

    /// The keeper looks; whatever is demanded from here on needs another look.
    pub(crate) fn demand_seen(&self) {
        self.demanded.swap(false, Ordering::AcqRel);
    }

    /// Requests that wait, for the size of the next grant.
    pub(crate) fn waiting(&self) -> &AtomicU32 {
        &self.waiting
    }

    /// How the quota stands.
    pub(crate) fn status(&self, map: &Map, now: UnixMs) -> Option<QuotaStatus> {
        let (since, until) =
            (self.since.load(Ordering::Acquire), self.until.load(Ordering::Acquire));
        let known = Window { start: UnixMs(since), end: UnixMs(until) };
        let current = known.contains(now);
        let window = if current { known } else { self.window(now)? };
        let lease = self.lease.load(Ordering::Acquire);
        let at_hand = map
            .record(lease as u32)
            .filter(|_| lease != 0)
            .and_then(|record| record.tokens((lease >> 32) as u32))
            .map_or(0, u64::from);
        let remaining = if current { at_hand + self.beyond.load(Ordering::Relaxed) } else { 0 };
        let limit = self.limit.load(Ordering::Relaxed);
        let shown = self.shown.load(Ordering::Relaxed);
        Some(QuotaStatus {
            metric: self.metric,
            limit,
            window,
            remaining: remaining.min(limit),
            unlimited: shown & UNLIMITED != 0,
            pooled: shown & POOLED != 0,
        })
    }
}
