//! User sessions: never more alive than the plan allows, on any number of edges.
//!
//! The proxy enters every request of a session; a session known here costs no call. What
//! is new is asked of a registry ([`registry`]), in this process or in Redis, and kept
//! alive by heartbeats ([`beat`]) until it is idle. Invariant: a session is served only as
//! long as the registry counts it: one that could not be renewed is closed [`MARGIN_MS`]
//! before the registry forgets it.
//!
//! [`MARGIN_MS`]: model::sessions::MARGIN_MS

pub(crate) mod beat;
mod in_process;
mod in_redis;
mod live;
mod metrics;
mod registry;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use model::{
    BoxFuture,
    clock::Clock,
    quota::Metric,
    sessions::{
        Enter, GuardStore, Member, Seat, SessionRefusal, Sessions, SessionsUnavailable, Visit,
    },
    snapshot::TenantEntry,
    tenant::TenantId,
};
use tokio::{
    runtime::Handle,
    task::{AbortHandle, JoinHandle},
    time::timeout,
};

use self::{
    in_process::InProcess,
    in_redis::InRedis,
    live::{Live, Map, Room},
    metrics::Metrics,
    registry::{Admission, Registry, Terms},
};
use crate::{redis::Servers, start::StartError};

/// Retry-After while the registry does not answer, in seconds: 1–5, by tenant, so that
/// clients of many tenants do not come back together.
const RETRY_DOWN_S: std::ops::RangeInclusive<u64> = 1..=5;

/// What an operator may set.
#[derive(Clone, Debug)]
pub struct SessionsConfig {
    /// Sessions that one process keeps alive. Default 100,000, about 30 MB: beyond it, new
    /// sessions get 503 until others end.
    pub sessions_max: usize,
    /// Longest wait for the registry, in ms. Default 250: as long as for a lease.
    pub wait_ms_max: u64,
    /// The Redis that several edges share. Default `None`: this process is alone.
    pub redis: Option<Arc<Servers>>,
}

impl Default for SessionsConfig {
    fn default() -> Self {
        Self { sessions_max: 100_000, wait_ms_max: 250, redis: None }
    }
}

/// The sessions of one process. Dropping it stops the heartbeats: the registry forgets its
/// sessions within the TTL.
pub struct LiveSessions {
    shared: Arc<Shared>,
    beat: AbortHandle,
}

/// What requests and the heartbeats share.
pub(crate) struct Shared {
    config: SessionsConfig,
    clock: Arc<dyn Clock>,
    registry: Arc<dyn Registry>,
    map: Map,
    metrics: Metrics,
    runtime: Handle,
}

impl LiveSessions {
    /// Sessions counted in this process, or in the Redis that edges share. Called within
    /// the runtime that is to run the heartbeats; does not wait for Redis.
    ///
    /// # Errors
    /// A series is registered already.
    pub fn start(
        config: SessionsConfig,
        guards: Arc<dyn GuardStore>,
        clock: Arc<dyn Clock>,
        registry: &prometheus::Registry,
    ) -> Result<Arc<Self>, StartError> {
        let counting: Arc<dyn Registry> = match &config.redis {
            None => Arc::new(InProcess::new(Arc::clone(&clock))),
            Some(servers) => Arc::new(InRedis::new(Arc::clone(servers) as _, guards)),
        };
        let shared = Shared::new(config, clock, counting, Metrics::register(registry)?);
        let beat = tokio::spawn(beat::run(Arc::clone(&shared))).abort_handle();
        Ok(Arc::new(Self { shared, beat }))
    }
}

impl Shared {
    fn new(
        config: SessionsConfig,
        clock: Arc<dyn Clock>,
        registry: Arc<dyn Registry>,
        metrics: Metrics,
    ) -> Arc<Self> {
        let map = Map::new(config.sessions_max, metrics.live.clone());
        Arc::new(Self { config, clock, registry, map, metrics, runtime: Handle::current() })
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(self.config.wait_ms_max)
    }

    /// The session, with the request counted in, if it is known and may be served.
    fn known(&self, member: Member, visit: Visit, limit: u64) -> Option<Seat> {
        let now = self.clock.monotonic_ms();
        let shard = self.map.shard(member);
        let live = shard.get(&member).filter(|live| !live.is_lost_at(now))?;
        live.join(visit, limit, now);
        Some(Seat::new(Arc::clone(live) as _))
    }

    fn enter(self: &Arc<Self>, member: Member, visit: Visit, limit: u64) -> Enter {
        if let Some(seat) = self.known(member, visit, limit) {
            return Enter::In(seat);
        }
        let Some(room) = self.map.room() else {
            self.metrics.crowded.inc();
            return Enter::Refused(unavailable(member.tenant));
        };
        let this = Arc::clone(self);
        Enter::Wait(Box::pin(async move { this.admit(member, visit, limit, room).await }))
    }

    async fn admit(
        self: &Arc<Self>,
        member: Member,
        visit: Visit,
        limit: u64,
        room: Room,
    ) -> Result<Seat, SessionRefusal> {
        let terms = Terms { limit, evict_oldest: visit.evict_oldest };
        let asked = self.clock.monotonic_ms();
        let answer = timeout(self.patience(), self.registry.admit(member, terms)).await;
        match answer {
            Ok(Ok(counted @ (Admission::Admitted | Admission::Present))) => {
                self.metrics.admitted.inc();
                let confirmed = counted == Admission::Present;
                let live = Live::new(self, member, room, asked, confirmed);
                Ok(self.take_in(live, visit, limit, asked))
            }
            Ok(Ok(Admission::Full)) => {
                self.metrics.full.inc();
                Err(SessionRefusal::Full { limit })
            }
            Ok(Ok(Admission::Held { ms })) => {
                self.metrics.held.inc();
                Err(SessionRefusal::Unavailable { retry_after_s: ms.div_ceil(1000).max(1) })
            }
            Ok(Err(_)) | Err(_) => {
                self.metrics.unavailable.inc();
                Err(unavailable(member.tenant))
            }
        }
    }

    /// Puts an admitted session in the map, or takes the one that came first; with one more
    /// request in it.
    fn take_in(&self, live: Arc<Live>, visit: Visit, limit: u64, asked: u64) -> Seat {
        let now = self.clock.monotonic_ms();
        let mut shard = self.map.shard(live.member);
        let first = shard.get(&live.member).filter(|first| !first.is_lost_at(now)).cloned();
        let live = first.unwrap_or_else(|| {
            if let Some(fenced) = shard.insert(live.member, Arc::clone(&live)) {
                self.metrics.fenced.inc();
                fenced.lose();
            }
            live
        });
        live.join(visit, limit, now);
        live.renewed(asked);
        Seat::new(live)
    }

    /// Ends a session that no upstream took, unless it was taken or joined meanwhile. Its
    /// slot is free at once, so that made-up values hold none.
    fn end_nobodys(self: &Arc<Self>, member: Member) {
        let mut shard = self.map.shard(member);
        if !shard.get(&member).is_some_and(|live| live.was_nobodys()) {
            return;
        }
        if let Some(live) = shard.remove(&member) {
            live.lose();
            self.metrics.refused.inc();
            drop(self.end(member));
        }
    }

    /// Has the registry end a session, also when nobody waits for it.
    fn end(self: &Arc<Self>, member: Member) -> JoinHandle<()> {
        let shared = Arc::clone(self);
        self.runtime.spawn(async move {
            // Without an answer the registry forgets it within the TTL.
            let _late = timeout(shared.patience(), shared.registry.end(member)).await;
        })
    }

    /// Stops serving a session; false when it is not in the map any more.
    fn forget(&self, live: &Arc<Live>) -> bool {
        live.lose();
        let mut shard = self.map.shard(live.member);
        let is_same = shard.get(&live.member).is_some_and(|known| Arc::ptr_eq(known, live));
        is_same && shard.remove(&live.member).is_some()
    }
}

fn unavailable(tenant: TenantId) -> SessionRefusal {
    let spread = RETRY_DOWN_S.end() - RETRY_DOWN_S.start() + 1;
    SessionRefusal::Unavailable {
        retry_after_s: RETRY_DOWN_S.start() + tenant.0.as_u64_pair().1 % spread,
    }
}

impl Sessions for LiveSessions {
    fn enter(&self, tenant: &TenantEntry, visit: Visit) -> Enter {
        let member = Member { tenant: tenant.id(), id: visit.id };
        self.shared.enter(member, visit, tenant.quotas.of(Metric::ConcurrentSessions))
    }

    fn end(&self, member: Member) -> BoxFuture<'static, ()> {
        if let Some(live) = self.shared.map.shard(member).remove(&member) {
            self.shared.metrics.ended.inc();
            live.lose();
        }
        let ended = self.shared.end(member);
        Box::pin(async move {
            let _cancelled = ended.await;
        })
    }

    fn count(&self, tenant: TenantId) -> BoxFuture<'_, Result<u64, SessionsUnavailable>> {
        Box::pin(async move {
            let count = timeout(self.shared.patience(), self.shared.registry.count(tenant)).await;
            count.ok().and_then(Result::ok).ok_or(SessionsUnavailable)
        })
    }

    fn here(&self) -> BTreeMap<TenantId, u64> {
        let (now, mut here) = (self.shared.clock.monotonic_ms(), BTreeMap::new());
        self.shared.map.each_shard(|shard| {
            for (member, _) in shard.iter().filter(|(_, live)| !live.is_lost_at(now)) {
                *here.entry(member.tenant).or_default() += 1;
            }
        });
        here
    }
}

impl Drop for LiveSessions {
    fn drop(&mut self) {
        self.beat.abort();
    }
}

impl fmt::Debug for LiveSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveSessions").finish_non_exhaustive()
    }
}
