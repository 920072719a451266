//! One session as this edge serves it, and the map of all of them.
//!
//! The hot path of a known session is one look into a sharded map. Invariants: a session
//! is served only before `good_until`, which moves only by a renewal that the registry
//! answered, counted from the moment it was asked; and it is in the map, and in the count
//! that bounds the map, exactly as long as it may be served.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
};

use model::{
    clock::Clock,
    sessions::{HEARTBEAT_MS, Held, MARGIN_MS, Member, TTL_MS, Visit},
};
use prometheus::IntGauge;

use super::Shared;

/// Locks (64): a request of a known session holds one for a look-up.
const SHARDS: usize = 64;

/// A session that this edge keeps alive.
pub(crate) struct Live {
    pub(crate) member: Member,
    clock: Arc<dyn Clock>,
    /// Monotonic ms; from then on it is not served.
    good_until: AtomicU64,
    last_request: AtomicU64,
    idle_ms: AtomicU64,
    limit: AtomicU64,
    open: AtomicU32,
    lost: AtomicBool,
    confirmed: AtomicBool,
    owner: Weak<Shared>,
    _room: Room,
}

impl Live {
    /// A session that the registry counted when asked at `asked`, without a request yet.
    /// One that it counted before is `confirmed`.
    pub(crate) fn new(
        owner: &Arc<Shared>,
        member: Member,
        room: Room,
        asked: u64,
        confirmed: bool,
    ) -> Arc<Self> {
        let clock = Arc::clone(&owner.clock);
        Arc::new(Self {
            member,
            good_until: AtomicU64::new(good_until(asked)),
            last_request: AtomicU64::new(clock.monotonic_ms()),
            clock,
            idle_ms: AtomicU64::new(0),
            limit: AtomicU64::new(0),
            open: AtomicU32::new(0),
            lost: AtomicBool::new(false),
            confirmed: AtomicBool::new(confirmed),
            owner: Arc::downgrade(owner),
            _room: room,
        })
    }

    /// Counts a request in, under the lock of the map.
    pub(crate) fn join(&self, visit: Visit, limit: u64, now: u64) {
        self.last_request.store(now, SeqCst);
        self.idle_ms.store(visit.idle_ms, SeqCst);
        self.limit.store(limit, SeqCst);
        self.open.fetch_add(1, SeqCst);
    }

    /// The registry counted it when asked at `asked`.
    pub(crate) fn renewed(&self, asked: u64) {
        self.good_until.fetch_max(good_until(asked), SeqCst);
    }

    /// Takes it out of service for good.
    pub(crate) fn lose(&self) {
        self.lost.store(true, SeqCst);
    }

    pub(crate) fn is_lost_at(&self, now: u64) -> bool {
        self.lost.load(SeqCst) || now >= self.good_until.load(SeqCst)
    }

    /// Whether nobody has used it for as long as its route allows.
    pub(crate) fn is_idle_at(&self, now: u64) -> bool {
        let since = now.saturating_sub(self.last_request.load(SeqCst));
        self.open.load(SeqCst) == 0 && since >= self.idle_ms.load(SeqCst)
    }

    /// Whether all of its requests are over and none of them made it a session.
    pub(crate) fn was_nobodys(&self) -> bool {
        self.open.load(SeqCst) == 0 && !self.confirmed.load(SeqCst)
    }

    /// Whether its next heartbeat is due.
    pub(crate) fn is_due_at(&self, now: u64) -> bool {
        let left = self.good_until.load(SeqCst).saturating_sub(now);
        left.saturating_add(MARGIN_MS) <= TTL_MS - HEARTBEAT_MS
    }

    /// The quota when it was last used, and when that was.
    pub(crate) fn terms(&self) -> (u64, u64) {
        (self.last_request.load(SeqCst), self.limit.load(SeqCst))
    }
}

const fn good_until(asked: u64) -> u64 {
    asked.saturating_add(TTL_MS - MARGIN_MS)
}

impl Held for Live {
    fn is_lost(&self) -> bool {
        self.is_lost_at(self.clock.monotonic_ms())
    }

    fn leave(&self) {
        self.last_request.fetch_max(self.clock.monotonic_ms(), SeqCst);
        self.open.fetch_sub(1, SeqCst);
        if self.was_nobodys()
            && let Some(owner) = self.owner.upgrade()
        {
            owner.end_nobodys(self.member);
        }
    }

    fn confirm(&self) {
        self.confirmed.store(true, SeqCst);
    }
}

type Shard = HashMap<Member, Arc<Live>>;

/// All sessions of the process.
pub(crate) struct Map {
    shards: [Mutex<Shard>; SHARDS],
    room: Arc<Rooms>,
}

struct Rooms {
    taken: AtomicUsize,
    max: usize,
    gauge: IntGauge,
}

/// A place among the sessions of the process.
pub(crate) struct Room(Arc<Rooms>);

impl Drop for Room {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, SeqCst);
        self.0.gauge.dec();
    }
}

impl Map {
    pub(crate) fn new(max: usize, gauge: IntGauge) -> Self {
        let shards = std::array::from_fn(|_| Mutex::default());
        Self { shards, room: Arc::new(Rooms { taken: AtomicUsize::new(0), max, gauge }) }
    }

    /// A place for one more; `None` when the process has as many as it may.
    pub(crate) fn room(&self) -> Option<Room> {
        let one_more = |taken| (taken < self.room.max).then_some(taken + 1);
        self.room.taken.fetch_update(SeqCst, SeqCst, one_more).ok()?;
        self.room.gauge.inc();
        Some(Room(Arc::clone(&self.room)))
    }

    /// The shard of a session, locked.
    pub(crate) fn shard(&self, member: Member) -> MutexGuard<'_, Shard> {
        // The id is a hash already.
        let [first, ..] = member.id.as_bytes();
        let index = usize::from(*first) % SHARDS;
        #[expect(clippy::indexing_slicing, reason = "there are so many, and the index is below")]
        lock(&self.shards[index])
    }

    /// Every shard, one lock at a time.
    pub(crate) fn each_shard(&self, mut act: impl FnMut(&mut Shard)) {
        self.shards.iter().for_each(|shard| act(&mut lock(shard)));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere left the map whole: each change of it is one call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
