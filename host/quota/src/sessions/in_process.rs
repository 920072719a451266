//! The registry inside one process: a map per tenant under sharded locks.
//!
//! What one edge needs beside nothing, and the reference for the Redis script: the rules
//! are the same, line by line. Invariant: every operation is one critical section of its
//! tenant's shard.

use std::{
    collections::{BTreeMap, HashMap},
    future::ready,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use model::{
    BoxFuture,
    clock::Clock,
    sessions::{Member, SessionId, TTL_MS},
    tenant::TenantId,
};

use super::registry::{Admission, Registry, Terms, Unreachable};

/// Locks (16): as many admissions at once as a machine of this kind has workers.
const SHARDS: usize = 16;

/// The registry of one process.
pub(crate) struct InProcess {
    clock: Arc<dyn Clock>,
    shards: Vec<Mutex<HashMap<TenantId, Set>>>,
    swept: AtomicUsize,
}

/// The sessions of one tenant.
#[derive(Default)]
struct Set {
    live: HashMap<SessionId, Place>,
    /// Ended a moment ago: until when other edges' heartbeats are told, and whether the
    /// session was evicted.
    gone: BTreeMap<SessionId, (u64, bool)>,
    admissions: u64,
}

struct Place {
    expires_ms: u64,
    /// Which admission of the tenant it was.
    turn: u64,
}

impl Set {
    fn prune(&mut self, now: u64) {
        self.live.retain(|_, place| place.expires_ms > now);
        self.gone.retain(|_, (until, _)| *until > now);
    }

    fn renews(&mut self, id: SessionId, now: u64) -> bool {
        let place = self.live.get_mut(&id).filter(|place| place.expires_ms > now);
        place.map(|place| place.expires_ms = now.saturating_add(TTL_MS)).is_some()
    }

    fn add(&mut self, id: SessionId, now: u64) {
        self.admissions = self.admissions.saturating_add(1);
        let place = Place { expires_ms: now.saturating_add(TTL_MS), turn: self.admissions };
        self.live.insert(id, place);
    }

    fn has_room(&mut self, limit: u64, now: u64) -> bool {
        self.prune(now);
        (self.live.len() as u64) < limit
    }

    /// Ends the session that was admitted first.
    fn evict(&mut self, now: u64) {
        let oldest = self.live.iter().min_by_key(|(_, place)| place.turn).map(|(id, _)| *id);
        if let Some(id) = oldest {
            self.end(id, now, true);
        }
    }

    fn end(&mut self, id: SessionId, now: u64, evicted: bool) {
        if self.live.remove(&id).is_some() {
            self.gone.insert(id, (now.saturating_add(TTL_MS), evicted));
        }
    }

    fn admit(&mut self, id: SessionId, terms: Terms, now: u64) -> Admission {
        if self.renews(id, now) {
            return Admission::Present;
        }
        if self.gone.get(&id).is_some_and(|(until, evicted)| *evicted && *until > now) {
            return Admission::Full;
        }
        if terms.evict_oldest && terms.limit > 0 {
            while !self.has_room(terms.limit, now) {
                self.evict(now);
            }
        }
        if !self.has_room(terms.limit, now) {
            return Admission::Full;
        }
        self.gone.remove(&id);
        self.add(id, now);
        Admission::Admitted
    }

    fn renew(&mut self, id: SessionId, limit: u64, now: u64) -> bool {
        if self.renews(id, now) {
            return true;
        }
        let counts = self.has_room(limit, now) && !self.gone.contains_key(&id);
        if counts {
            self.add(id, now);
        }
        counts
    }
}

impl InProcess {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { clock, shards, swept: AtomicUsize::new(0) }
    }

    fn with<T: Default>(&self, tenant: TenantId, act: impl FnOnce(&mut Set, u64) -> T) -> T {
        let index = (tenant.0.as_u128() % SHARDS as u128) as usize;
        let Some(shard) = self.shards.get(index) else { return T::default() };
        let now = self.clock.monotonic_ms();
        let mut sets = lock(shard);
        let set = sets.entry(tenant).or_default();
        let done = act(set, now);
        if set.live.is_empty() && set.gone.is_empty() {
            sets.remove(&tenant);
        }
        done
    }
}

impl Registry for InProcess {
    fn admit(&self, member: Member, terms: Terms) -> BoxFuture<'_, Result<Admission, Unreachable>> {
        let admitted = self.with(member.tenant, |set, now| Some(set.admit(member.id, terms, now)));
        Box::pin(ready(admitted.ok_or(Unreachable)))
    }

    fn renew(
        &self,
        tenant: TenantId,
        limit: u64,
        ids: Vec<SessionId>,
    ) -> BoxFuture<'_, Result<Vec<bool>, Unreachable>> {
        let renewed: Vec<bool> =
            self.with(tenant, |set, now| ids.iter().map(|id| set.renew(*id, limit, now)).collect());
        Box::pin(ready(Ok(renewed)))
    }

    fn end(&self, member: Member) -> BoxFuture<'_, Result<(), Unreachable>> {
        self.with(member.tenant, |set, now| set.end(member.id, now, false));
        Box::pin(ready(Ok(())))
    }

    fn count(&self, tenant: TenantId) -> BoxFuture<'_, Result<u64, Unreachable>> {
        let count = self.with(tenant, |set, now| {
            set.prune(now);
            set.live.len() as u64
        });
        Box::pin(ready(Ok(count)))
    }

    fn sweep(&self) {
        let turn = self.swept.fetch_add(1, Ordering::Relaxed) % SHARDS;
        let Some(shard) = self.shards.get(turn) else { return };
        let now = self.clock.monotonic_ms();
        lock(shard).retain(|_, set| {
            set.prune(now);
            !(set.live.is_empty() && set.gone.is_empty())
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere left the maps whole: each change of them is one call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
