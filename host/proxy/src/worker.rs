//! What one worker thread owns: its view of the world, its pools, its deadlines.
//!
//! Shared by reference count with every connection and exchange of the thread, and with
//! no other thread. Invariant: nothing here takes a lock that another worker holds on the
//! path of a request.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::Arc,
};

use model::{
    clock::{Clock, UnixMs},
    gate::Gate,
    level::LevelSink,
    limiter::Limiter,
    region::Backend,
    reservation::StorageGate,
    sessions::Sessions,
    snapshot::{Snapshot, TenantEntry},
};
use rand::{RngCore, SeedableRng, rngs::SmallRng};
use tokio::sync::watch;

use crate::{
    config::ProxyConfig,
    forward::Badge,
    local::Local,
    pool::Pool,
    record::{Books, Series, Tally},
    tenant::jwt::Verifier,
    timer::Wheel,
    tls::Tls,
    wire::io::{Scratch, scratch},
};

/// What the workers of one proxy have in common.
pub(crate) struct Shared {
    pub(crate) config: ProxyConfig,
    pub(crate) gate: Arc<dyn Gate>,
    pub(crate) limiter: Arc<dyn Limiter>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) series: Series,
    pub(crate) issuers: crate::tenant::issuer::Issuers,
    pub(crate) levels: Arc<dyn LevelSink>,
    pub(crate) storage: Arc<dyn StorageGate>,
    pub(crate) sessions: Arc<dyn Sessions>,
    pub(crate) local: Option<Local>,
    pub(crate) tls: Option<Arc<Tls>>,
}

/// One worker.
pub(crate) struct Worker {
    shared: Arc<Shared>,
    pub(crate) wheel: Rc<Wheel>,
    pub(crate) scratch: Scratch,
    pub(crate) pool: Rc<Pool>,
    pub(crate) tokens: Verifier,
    pub(crate) tally: Tally,
    source: RefCell<Source>,
    random: RefCell<SmallRng>,
    exchanges: Cell<usize>,
    /// Requests of the local service in flight.
    pub(crate) local_calls: Cell<usize>,
}

struct Source {
    receiver: watch::Receiver<Arc<Snapshot>>,
    pinned: Rc<Pinned>,
}

/// A snapshot as one worker uses it, with what was worked out from it. Pinned by each
/// exchange, so that a reload changes only later ones.
pub(crate) struct Pinned {
    pub(crate) snapshot: Arc<Snapshot>,
    badges: RefCell<HashMap<*const TenantEntry, Rc<Badge>>>,
    turns: RefCell<HashMap<*const Backend, usize>>,
    pub(crate) books: Books,
}

impl Pinned {
    fn new(snapshot: Arc<Snapshot>) -> Rc<Self> {
        Rc::new(Self {
            snapshot,
            badges: RefCell::default(),
            turns: RefCell::default(),
            books: Books::new(),
        })
    }

    /// The identity fields of a tenant of this snapshot.
    pub(crate) fn badge(&self, entry: &Arc<TenantEntry>) -> Rc<Badge> {
        let mut badges = self.badges.borrow_mut();
        Rc::clone(badges.entry(Arc::as_ptr(entry)).or_insert_with(|| Rc::new(Badge::of(entry))))
    }
}

impl Pinned {
    /// Rises by one with each request to a backend.
    pub(crate) fn turn(&self, backend: &Arc<Backend>) -> usize {
        let mut turns = self.turns.borrow_mut();
        let turn = turns.entry(Arc::as_ptr(backend)).or_default();
        *turn = turn.wrapping_add(1);
        *turn
    }
}

impl std::ops::Deref for Worker {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>, receiver: watch::Receiver<Arc<Snapshot>>) -> Rc<Self> {
        let wheel = Wheel::new();
        let pinned = Pinned::new(Arc::clone(&receiver.borrow()));
        Rc::new(Self {
            pool: Pool::new(&shared.config.limits, &wheel),
            tokens: Verifier::new(shared.config.jwt.cache_entries_max),
            tally: Tally::default(),
            wheel,
            scratch: scratch(),
            source: RefCell::new(Source { receiver, pinned }),
            random: RefCell::new(SmallRng::from_os_rng()),
            exchanges: Cell::new(0),
            local_calls: Cell::new(0),
            shared,
        })
    }

    /// The newest snapshot.
    pub(crate) fn pin(&self) -> Rc<Pinned> {
        let mut source = self.source.borrow_mut();
        if source.receiver.has_changed().unwrap_or(false) {
            let snapshot = Arc::clone(&source.receiver.borrow_and_update());
            source.pinned = Pinned::new(snapshot);
        }
        Rc::clone(&source.pinned)
    }

    /// Wall clock.
    pub(crate) fn now(&self) -> UnixMs {
        self.shared.clock.now()
    }

    /// Fills `bytes` with randomness that is good for ids and jitter, not for secrets.
    pub(crate) fn random(&self, bytes: &mut [u8]) {
        self.random.borrow_mut().fill_bytes(bytes);
    }

    /// Counts an exchange in; false when there are too many.
    pub(crate) fn enter(&self) -> bool {
        self.exchanges.set(self.exchanges.get() + 1);
        self.series.in_flight_changed(1);
        self.exchanges.get() <= self.config.limits.exchanges_max
    }

    /// Counts it out.
    pub(crate) fn leave(&self) {
        self.exchanges.set(self.exchanges.get().saturating_sub(1));
        self.series.in_flight_changed(-1);
    }

    /// Housekeeping between requests.
    pub(crate) fn tick(&self, now_ms: u64) {
        self.pool.expire(now_ms);
        self.source.borrow().pinned.books.flush();
        self.tally.flush(&self.series.tenants);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.tally.finish(&self.series.tenants);
    }
}
