//! Everything around a proxy under test.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use model::{
    clock::{ManualClock, UnixMs},
    directory::TenantRecord,
    gate::{Denial, Gate, Meter, Permit, QuotaStatus, Take, Token, Tokens},
    key::ApiKey,
    level::{LevelChange, LevelSink},
    limiter::{Limiter, Unlimited},
    loss::{OnAuthorityLoss, OnStorageLoss},
    plan::{ChargeOn, Plan},
    policy::{
        BodyDecision, Chain, Decision, HookFuture, Hooks, OnFailure, Plugin, Policy,
        PolicyExchange, PolicyFailure, ResponseDecision,
    },
    quota::{Metric, MetricSet, Quotas},
    region::{Backend, DEFAULT_BACKEND, Region, ResidencyGroup},
    reservation::Reserves,
    route::{Pattern, Route, RouteTable, RouteTag},
    snapshot::{Served, Snapshot, TenantEntry},
    tenant::{Status, SuspendReason, Tenant, TenantId},
    window::Window,
};
use tokio::sync::watch;
use uuid::Uuid;

use super::{
    client::{self, Answer, Client},
    origin::Origin,
    sessions::{self, FakeSessions},
    storage::FakeStorage,
};
use crate::{LocalService, Ports, Proxy, ProxyConfig, Running, StartError};

/// 2026-01-15T12:00:00Z.
pub(super) const NOW: UnixMs = UnixMs(1_768_478_400_000);

/// A proxy with two regions, one origin each, and a handful of tenants.
pub(super) struct World {
    pub(super) address: SocketAddr,
    pub(super) running: Option<Running>,
    pub(super) origin: Origin,
    pub(super) far_origin: Origin,
    pub(super) gate: Arc<FakeGate>,
    pub(super) levels: Arc<FakeLevels>,
    pub(super) storage: Arc<FakeStorage>,
    pub(super) sessions: Arc<FakeSessions>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) registry: prometheus::Registry,
    pub(super) snapshots: watch::Sender<Arc<Snapshot>>,
    /// An API key of acme.
    pub(super) key: String,
    setup: Setup,
    api_key: Arc<ApiKey>,
}

/// What a test wants to be different.
#[derive(Clone)]
pub(super) struct Setup {
    pub(super) config: ProxyConfig,
    pub(super) chain: Arc<Chain>,
    pub(super) charge_on: ChargeOn,
    pub(super) endpoint: Option<SocketAddr>,
    /// Further endpoints of the home region.
    pub(super) more: Vec<SocketAddr>,
    pub(super) api: Option<Arc<dyn LocalService>>,
    pub(super) limiter: Arc<dyn Limiter>,
    pub(super) storage_loss: OnStorageLoss,
}

impl Default for Setup {
    fn default() -> Self {
        let config = ProxyConfig {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            workers: Some(1),
            // Two regions that do not help each other, unless a test wants it.
            upstreams: crate::UpstreamsConfig { region_failover: false, ..Default::default() },
            ..ProxyConfig::default()
        };
        let chain = Arc::default();
        let limiter = Arc::new(Unlimited);
        let (charge_on, storage_loss) = (ChargeOn::Answered, OnStorageLoss::Deny);
        Self {
            config,
            chain,
            charge_on,
            endpoint: None,
            more: Vec::new(),
            api: None,
            limiter,
            storage_loss,
        }
    }
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(Setup::default())
    }

    pub(super) fn with_policies(policies: Vec<Policy>) -> Self {
        Self::with(Setup { chain: Arc::new(Chain::new(policies)), ..Setup::default() })
    }

    pub(super) fn with(setup: Setup) -> Self {
        Self::try_with(setup).expect("the proxy starts")
    }

    pub(super) fn try_with(setup: Setup) -> Result<Self, StartError> {
        let (key, id, hash) = model::key::mint(&[9; 40]);
        let api_key = Arc::new(ApiKey { id, tenant: tenant_id(1), hash, expires_at: None });
        let (origin, far_origin) = (Origin::start(), Origin::start());
        let endpoint = setup.endpoint.unwrap_or(origin.address);
        let snapshot = snapshot(1, &setup, endpoint, far_origin.address, &api_key);
        let (snapshots, receiver) = watch::channel(Arc::new(snapshot));
        let gate = Arc::<FakeGate>::default();
        let clock = Arc::new(ManualClock::at(NOW));
        let registry = prometheus::Registry::new();
        let levels = Arc::<FakeLevels>::default();
        let storage = Arc::<FakeStorage>::default();
        let sessions = Arc::<FakeSessions>::default();
        let ports = Ports {
            snapshots: receiver,
            gate: Arc::clone(&gate) as _,
            limiter: Arc::clone(&setup.limiter),
            clock: Arc::clone(&clock) as _,
            levels: Arc::clone(&levels) as _,
            storage: Arc::clone(&storage) as _,
            sessions: Arc::clone(&sessions) as _,
            api: setup.api.clone(),
        };
        let running = Proxy::start(setup.config.clone(), ports, &registry)?;
        Ok(Self {
            address: running.addrs()[0],
            running: Some(running),
            origin,
            far_origin,
            gate,
            levels,
            storage,
            sessions,
            clock,
            registry,
            snapshots,
            key,
            setup,
            api_key,
        })
    }

    /// Publishes a snapshot in which acme has another chain.
    pub(super) fn publish(&self, chain: Vec<Policy>) {
        let setup = Setup { chain: Arc::new(Chain::new(chain)), ..self.setup.clone() };
        let endpoint = setup.endpoint.unwrap_or(self.origin.address);
        let next = snapshot(2, &setup, endpoint, self.far_origin.address, &self.api_key);
        self.snapshots.send_replace(Arc::new(next));
    }

    pub(super) fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// One request on a connection of its own.
    pub(super) fn send(&self, bytes: impl AsRef<[u8]>) -> Answer {
        client::exchange(self.address, bytes)
    }

    /// GET as acme, with further fields (each with its CRLF).
    pub(super) fn get(&self, path: &str, fields: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: acme.test\r\n{fields}\r\n"))
    }

    /// The same where timeouts are so short that a busy machine may miss one.
    pub(super) fn serves_again(&self) {
        assert!((0..100).any(|_| self.get("/still-serves", "").status == 200));
    }

    /// Proof that the process lives: a clean request on a new connection.
    pub(super) fn still_serves(&self) {
        assert_eq!(self.get("/still-serves", "").status, 200);
    }
}

pub(super) fn tenant_id(number: u128) -> TenantId {
    TenantId(Uuid::from_u128(number))
}

fn snapshot(
    version: u64,
    setup: &Setup,
    endpoint: SocketAddr,
    far: SocketAddr,
    key: &Arc<ApiKey>,
) -> Snapshot {
    let region = |name: &str, endpoints: Vec<SocketAddr>| {
        let backend = |name: &str| {
            (name.into(), Arc::new(Backend { name: name.into(), endpoints: endpoints.clone() }))
        };
        let backends = BTreeMap::from([backend(DEFAULT_BACKEND), backend("canary")]);
        Arc::new(Region { name: name.into(), backends })
    };
    let (near, far) =
        (region("eu-1", [vec![endpoint], setup.more.clone()].concat()), region("eu-2", vec![far]));
    let group =
        Arc::new(ResidencyGroup { name: "eu".into(), regions: vec![Arc::clone(&near), far] });
    let plans: BTreeMap<String, Arc<Plan>> =
        [("developer", 1_000), ("team", 50_000), ("enterprise", 999_999_999)]
            .into_iter()
            .map(|(name, calls)| (name.to_owned(), Arc::new(plan(name, calls, setup))))
            .collect();
    let entry = |tenant: Tenant, chain: &Arc<Chain>| {
        let record =
            Arc::new(TenantRecord { tenant, secrets: BTreeMap::new(), pools: Default::default() });
        let plan = Arc::clone(&plans["developer"]);
        let (group, near) = (Arc::clone(&group), Arc::clone(&near));
        Arc::new(TenantEntry::new(record, plan, group, near, Arc::clone(chain), Vec::new()))
    };
    let none = Arc::new(Chain::default());
    let mut entries = vec![entry(tenant(1, "acme", Status::Active), &setup.chain)];
    entries.push(entry(tenant(2, "beta", Status::Active), &none));
    for (number, slug, status, reason) in [
        (3, "preparing", Status::Provisioning, None),
        (4, "suspended", Status::Suspended, Some(SuspendReason::Abuse)),
        (5, "unpaid", Status::Suspended, Some(SuspendReason::Unpaid)),
        (6, "expired", Status::Trial, None),
        (7, "erased", Status::Erased, None),
        (8, "overdue", Status::PastDue, None),
    ] {
        let tenant = Tenant {
            suspend_reason: reason,
            trial_ends_at: Some(UnixMs(NOW.0 - 1)),
            ..tenant(number, slug, status)
        };
        entries.push(entry(tenant, &none));
    }
    let served = entries.into_iter().map(|entry| {
        let keys = if key.tenant == entry.id() { vec![Arc::clone(key)] } else { Vec::new() };
        Served { entry, keys: keys.into() }
    });
    Snapshot::new(version, "test", plans, routes(), served)
}

fn plan(name: &str, calls: u64, setup: &Setup) -> Plan {
    let Setup { charge_on, storage_loss, .. } = *setup;
    Plan {
        name: name.to_owned(),
        quotas: Quotas {
            max_users: 1,
            max_projects: 1,
            max_api_calls_per_month: calls,
            max_storage_mb: 1,
            max_ai_requests_per_day: 100,
            max_concurrent_sessions: 1,
        },
        features: BTreeMap::new(),
        offered: true,
        charge_on,
        chain: Vec::new(),
        price: None,
        plugins: Default::default(),
        trial_quotas: Default::default(),
        on_authority_loss: OnAuthorityLoss { storage: storage_loss, ..Default::default() },
        rate: None,
    }
}

fn tenant(number: u128, slug: &str, status: Status) -> Tenant {
    Tenant {
        id: tenant_id(number),
        slug: slug.parse().expect("a slug"),
        organization_name: slug.to_owned(),
        display_name: slug.to_owned(),
        admin_email: "admin@example.test".to_owned(),
        plan: "developer".to_owned(),
        data_residency: "eu".to_owned(),
        parent: None,
        status,
        suspend_reason: None,
        trial_ends_at: None,
        grace_ends_at: None,
        custom_domains: vec![format!("www.{slug}-custom.example")],
        quota_overrides: BTreeMap::new(),
        dated_quotas: BTreeMap::new(),
        quota_anchor: Default::default(),
        attributes: BTreeMap::new(),
        created_at: UnixMs(0),
        version: 1,
    }
}

fn routes() -> RouteTable {
    let route = |name: &str, pattern: &str, tags: Vec<RouteTag>, timeout_ms| {
        let path = Pattern::parse(pattern).expect("a pattern");
        let reports = matches!(name, "metered" | "stored");
        let meters = if reports { super::levels::rules() } else { Vec::new() };
        let reserves = match name {
            "stored" => vec![Reserves::Body],
            "created" => vec![Reserves::One(Metric::Users)],
            _ => Vec::new(),
        };
        let methods = Vec::new();
        let (name, session) = (name.into(), None);
        Arc::new(Route { name, methods, path, tags, timeout_ms, meters, reserves, session })
    };
    let mut routes = sessions::routes();
    routes.extend([
        route("metered", "/metered/*", Vec::new(), None),
        route("stored", "/stored/**", vec![RouteTag::Upload], None),
        route("created", "/created/*", vec![RouteTag::UserCreate], None),
        route("ai", "/ai/**", vec![RouteTag::Ai], None),
        route("short", "/never", Vec::new(), Some(60_000)),
        route("root", "/", Vec::new(), None),
        route("any", "/*", Vec::new(), None),
        route("deep", "/*/*", Vec::new(), None),
    ]);
    RouteTable(routes)
}

/// A sink that remembers.
#[derive(Debug, Default)]
pub(super) struct FakeLevels(Mutex<(Vec<LevelChange>, bool)>);

impl FakeLevels {
    /// What was recorded since the last look.
    pub(super) fn taken(&self) -> Vec<LevelChange> {
        std::mem::take(&mut self.0.lock().expect("the levels").0)
    }

    /// The changes of storage since the last look; they may follow their answer.
    pub(super) fn await_storage(&self, want: &[i64]) {
        let mut deltas = Vec::new();
        for _ in 0..2_000 {
            let storage =
                self.taken().into_iter().filter(|change| change.metric == Metric::Storage);
            deltas.extend(storage.map(|change| change.delta));
            if deltas == want {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert_eq!(deltas, want);
    }

    /// From now on there is no room.
    pub(super) fn fill(&self) {
        self.0.lock().expect("the levels").1 = true;
    }
}

impl LevelSink for FakeLevels {
    fn record(&self, change: LevelChange) -> bool {
        let mut levels = self.0.lock().expect("the levels");
        let has_room = !levels.1;
        if has_room {
            levels.0.push(change);
        }
        has_room
    }
}

/// What the gate answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    #[default]
    Grant,
    Exhausted,
    Soft,
    Unavailable,
    WaitThenGrant,
    WaitThenDeny,
    Unlimited,
}

/// A gate that counts.
#[derive(Debug, Default)]
pub(super) struct FakeGate {
    shared: Arc<Counts>,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    mode: Mutex<Mode>,
    taken: AtomicUsize,
    refunded: AtomicUsize,
}

impl FakeGate {
    pub(super) fn set(&self, mode: Mode) {
        *self.shared.mode.lock().expect("the mode") = mode;
    }

    /// Tokens taken and given back.
    pub(super) fn counts(&self) -> (usize, usize) {
        let Counts { taken, refunded, .. } = &*self.shared;
        (taken.load(Ordering::SeqCst), refunded.load(Ordering::SeqCst))
    }

    /// Waits until the counts are so: a settlement may follow its answer.
    pub(super) fn await_counts(&self, want: (usize, usize)) {
        for _ in 0..2_000 {
            if self.counts() == want {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert_eq!(self.counts(), want);
    }
}

impl Gate for FakeGate {
    fn meter(&self, _: &TenantEntry) -> Arc<dyn Meter> {
        Arc::new(FakeMeter(Arc::clone(&self.shared)))
    }
}

struct FakeMeter(Arc<Counts>);

impl FakeMeter {
    fn mode(&self) -> Mode {
        *self.0.mode.lock().expect("the mode")
    }

    fn grant(self: Arc<Self>, metrics: MetricSet) -> Permit {
        let counted = Metric::CONSUMABLE.into_iter().filter(|metric| metrics.contains(*metric));
        let tokens: Tokens =
            counted.map(|metric| Token { metric, lease: 0, generation: 0 }).collect();
        self.0.taken.fetch_add(tokens.len(), Ordering::SeqCst);
        Permit::new(self, tokens)
    }
}

impl Meter for FakeMeter {
    fn take(self: Arc<Self>, metrics: MetricSet, now: model::clock::UnixMs) -> Take {
        let metric = match metrics.contains(Metric::AiRequests) {
            true => Metric::AiRequests,
            false => Metric::ApiCalls,
        };
        let status = self.status(metric, now).expect("a window");
        match self.mode() {
            Mode::Grant | Mode::Unlimited => Take::Granted(self.grant(metrics)),
            Mode::Exhausted => Take::Denied(Denial::Exhausted(status)),
            Mode::Soft => Take::Denied(Denial::Soft(status)),
            Mode::Unavailable => Take::Denied(Denial::Unavailable { retry_after_s: 3 }),
            Mode::WaitThenGrant => Take::Wait(Box::pin(async move {
                tokio::task::yield_now().await;
                Ok(self.grant(metrics))
            })),
            Mode::WaitThenDeny => Take::Wait(Box::pin(async move {
                tokio::task::yield_now().await;
                Err(Denial::Exhausted(status))
            })),
        }
    }

    fn refund(&self, tokens: &[Token]) {
        self.0.refunded.fetch_add(tokens.len(), Ordering::SeqCst);
    }

    fn status(&self, metric: Metric, now: UnixMs) -> Option<QuotaStatus> {
        let window = Window::of(metric, now, Default::default())?;
        let limit = if metric == Metric::ApiCalls { 1_000 } else { 100 };
        let unlimited = self.mode() == Mode::Unlimited;
        Some(QuotaStatus { metric, limit, window, remaining: limit - 1, unlimited, pooled: false })
    }
}

type OnRequest = Box<dyn Fn(&mut PolicyExchange) -> Result<Decision, PolicyFailure> + Send + Sync>;
type OnBody =
    Box<dyn Fn(&mut PolicyExchange, Bytes) -> Result<BodyDecision, PolicyFailure> + Send + Sync>;
type OnResponse =
    Box<dyn Fn(&mut PolicyExchange) -> Result<ResponseDecision, PolicyFailure> + Send + Sync>;

/// A plugin made of closures; an absent one is an absent hook.
#[derive(Default)]
pub(super) struct Fake {
    pub(super) request: Option<OnRequest>,
    pub(super) body: Option<OnBody>,
    pub(super) response: Option<OnResponse>,
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fake")
    }
}

/// A policy with a request hook.
pub(super) fn on_request(
    name: &str,
    on_failure: OnFailure,
    hook: impl Fn(&mut PolicyExchange) -> Result<Decision, PolicyFailure> + Send + Sync + 'static,
) -> Policy {
    policy(name, on_failure, Fake { request: Some(Box::new(hook)), ..Fake::default() })
}

pub(super) fn policy(name: &str, on_failure: OnFailure, plugin: Fake) -> Policy {
    Policy { name: name.into(), version: "0".into(), on_failure, plugin: Arc::new(plugin) }
}

impl Plugin for Fake {
    fn hooks(&self) -> Hooks {
        Hooks {
            request: self.request.is_some(),
            request_body: self.body.is_some(),
            response: self.response.is_some(),
        }
    }

    fn on_request(&self, mut exchange: Box<PolicyExchange>) -> HookFuture<'_, Decision> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            let decision = self.request.as_ref().expect("a hook")(&mut exchange);
            (exchange, decision)
        })
    }

    fn on_request_body(
        &self,
        mut exchange: Box<PolicyExchange>,
        body: Bytes,
    ) -> HookFuture<'_, BodyDecision> {
        Box::pin(async move {
            let decision = self.body.as_ref().expect("a hook")(&mut exchange, body);
            (exchange, decision)
        })
    }

    fn on_response(&self, mut exchange: Box<PolicyExchange>) -> HookFuture<'_, ResponseDecision> {
        Box::pin(async move {
            let decision = self.response.as_ref().expect("a hook")(&mut exchange);
            (exchange, decision)
        })
    }
}
