//! Edges over a registry, with a clock that tests move and heartbeats that tests beat.

mod contract;
mod edge;
mod interleavings;
mod server;

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering::SeqCst},
};

use model::{
    BoxFuture,
    clock::{Clock, ManualClock, UnixMs},
    sessions::{Enter, Member, Seat, SessionId, SessionRefusal, SessionSource, Visit},
    tenant::TenantId,
};
use uuid::Uuid;

use super::{
    SessionsConfig, Shared, beat,
    in_process::InProcess,
    metrics::Metrics,
    registry::{Admission, Registry, Terms, Unreachable},
};

const TENANT: TenantId = TenantId(Uuid::from_u128(7));
/// Idle time of the sessions of these tests, in ms.
const IDLE_MS: u64 = 60_000;

fn session(number: u8) -> SessionId {
    SessionSource::Cookie("sid".into()).session(&[number])
}

fn member(number: u8) -> Member {
    Member { tenant: TENANT, id: session(number) }
}

fn terms(limit: u64) -> Terms {
    Terms { limit, evict_oldest: false }
}

/// What becomes of an edge's messages.
const ARRIVE: u8 = 0;
const REQUESTS_LOST: u8 = 1;
const ANSWERS_LOST: u8 = 2;

/// A registry behind a line that loses messages.
struct Line {
    registry: Arc<dyn Registry>,
    fault: AtomicU8,
}

impl Line {
    async fn carry<T>(
        &self,
        call: impl Future<Output = Result<T, Unreachable>>,
    ) -> Result<T, Unreachable> {
        if self.fault.load(SeqCst) == REQUESTS_LOST {
            return Err(Unreachable);
        }
        let answer = call.await?;
        if self.fault.load(SeqCst) == ANSWERS_LOST { Err(Unreachable) } else { Ok(answer) }
    }
}

impl Registry for Line {
    fn admit(&self, member: Member, terms: Terms) -> BoxFuture<'_, Result<Admission, Unreachable>> {
        Box::pin(
            async move { self.carry(async { self.registry.admit(member, terms).await }).await },
        )
    }

    fn renew(
        &self,
        tenant: TenantId,
        limit: u64,
        ids: Vec<SessionId>,
    ) -> BoxFuture<'_, Result<Vec<bool>, Unreachable>> {
        Box::pin(async move {
            self.carry(async { self.registry.renew(tenant, limit, ids).await }).await
        })
    }

    fn end(&self, member: Member) -> BoxFuture<'_, Result<(), Unreachable>> {
        Box::pin(async move { self.carry(async { self.registry.end(member).await }).await })
    }

    fn count(&self, tenant: TenantId) -> BoxFuture<'_, Result<u64, Unreachable>> {
        Box::pin(async move { self.carry(async { self.registry.count(tenant).await }).await })
    }
}

/// One edge.
struct Edge {
    shared: Arc<Shared>,
    line: Arc<Line>,
}

impl Edge {
    fn new(clock: &Arc<ManualClock>, registry: &Arc<dyn Registry>, sessions_max: usize) -> Self {
        let (registry, fault) = (Arc::clone(registry), AtomicU8::new(ARRIVE));
        let line = Arc::new(Line { registry, fault });
        let metrics = Metrics::register(&prometheus::Registry::new()).expect("metrics");
        let config = SessionsConfig { sessions_max, ..SessionsConfig::default() };
        let shared = Shared::new(config, Arc::clone(clock) as _, Arc::clone(&line) as _, metrics);
        Self { shared, line }
    }

    fn fault(&self, fault: u8) {
        self.line.fault.store(fault, SeqCst);
    }

    async fn enter_with(
        &self,
        number: u8,
        limit: u64,
        evict_oldest: bool,
    ) -> Result<Seat, SessionRefusal> {
        let seat = self.knock(number, limit, evict_oldest).await?;
        seat.confirm();
        Ok(seat)
    }

    /// A request that the upstream has not answered yet.
    async fn knock(
        &self,
        number: u8,
        limit: u64,
        evict_oldest: bool,
    ) -> Result<Seat, SessionRefusal> {
        let member = member(number);
        let visit = Visit { id: member.id, idle_ms: IDLE_MS, evict_oldest };
        match self.shared.enter(member, visit, limit) {
            Enter::In(seat) => Ok(seat),
            Enter::Refused(refusal) => Err(refusal),
            Enter::Wait(admission) => admission.await,
        }
    }

    async fn enter(&self, number: u8, limit: u64) -> Result<Seat, SessionRefusal> {
        self.enter_with(number, limit, false).await
    }

    /// Whether a request of the session is answered from memory.
    fn knows(&self, number: u8) -> bool {
        let visit = Visit { id: session(number), idle_ms: IDLE_MS, evict_oldest: false };
        self.shared.known(member(number), visit, 1).is_some()
    }

    async fn beat(&self) {
        beat::once(&self.shared).await;
    }

    /// The sessions that it would serve now.
    fn alive(&self) -> Vec<SessionId> {
        let now = self.shared.clock.monotonic_ms();
        let mut alive = Vec::new();
        self.shared.map.each_shard(|shard| {
            let lives = shard.iter().filter(|(_, live)| !live.is_lost_at(now));
            alive.extend(lives.map(|(member, _)| member.id));
        });
        alive
    }
}

/// A clock, and a registry in this process that goes by it.
fn world() -> (Arc<ManualClock>, Arc<dyn Registry>) {
    let clock = Arc::new(ManualClock::at(UnixMs(0)));
    let registry = Arc::new(InProcess::new(Arc::clone(&clock) as _));
    (clock, registry)
}
