//! The data plane alone, for profiling: one tenant, no policies, a gate that always grants.
//!
//! `passthrough LISTEN ORIGIN [WORKERS]`, for example
//! `passthrough 127.0.0.1:8080 127.0.0.1:9000 1`; then ask for `http://acme.localhost:8080/`.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use model::{
    BoxFuture,
    clock::{SystemClock, UnixMs},
    directory::TenantRecord,
    gate::{Gate, Meter, Permit, QuotaStatus, Take, Token, Tokens},
    level::{LevelChange, LevelSink},
    plan::{ChargeOn, Plan},
    policy::Chain,
    quota::{Metric, MetricSet, Quotas},
    region::{Backend, DEFAULT_BACKEND, Region, ResidencyGroup},
    reservation::{Refused, Reservation, StorageGate, Wanted},
    route::{Pattern, Route, RouteTable},
    sessions::{Enter, Member, SessionRefusal, Sessions, SessionsUnavailable, Visit},
    snapshot::{Served, Snapshot, TenantEntry},
    tenant::{Status, Tenant, TenantId},
};
use proxy::{Ports, Proxy, ProxyConfig};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Grants everything; shows no quota.
struct Open;

impl Gate for Open {
    fn meter(&self, _: &TenantEntry) -> Arc<dyn Meter> {
        Arc::new(Self)
    }
}

impl Meter for Open {
    fn take(self: Arc<Self>, _: MetricSet, _: UnixMs) -> Take {
        Take::Granted(Permit::new(self, Tokens::new()))
    }

    fn refund(&self, _: &[Token]) {}

    fn status(&self, _: Metric, _: UnixMs) -> Option<QuotaStatus> {
        None
    }
}

/// Keeps nothing; no route here reports a level.
struct Nowhere;

impl LevelSink for Nowhere {
    fn record(&self, _: LevelChange) -> bool {
        false
    }
}

/// Has no room; no route here needs any.
struct Full;

impl StorageGate for Full {
    fn reserve(&self, _: Wanted) -> BoxFuture<'static, Result<Reservation, Refused>> {
        Box::pin(std::future::ready(Err(Refused::Unavailable)))
    }
}

/// No route here has sessions.
impl Sessions for Nowhere {
    fn enter(&self, _: &TenantEntry, _: Visit) -> Enter {
        Enter::Refused(SessionRefusal::Unavailable { retry_after_s: 1 })
    }

    fn end(&self, _: Member) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    fn count(&self, _: TenantId) -> BoxFuture<'_, Result<u64, SessionsUnavailable>> {
        Box::pin(std::future::ready(Ok(0)))
    }

    fn here(&self) -> BTreeMap<TenantId, u64> {
        BTreeMap::new()
    }
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut address = || -> anyhow::Result<SocketAddr> {
        arguments
            .next()
            .context("usage: passthrough LISTEN ORIGIN [WORKERS]")?
            .parse()
            .context("an address")
    };
    let (listen, origin) = (address()?, address()?);
    let workers = arguments.next().map(|count| count.parse()).transpose()?;
    let config = ProxyConfig { listen: vec![listen], workers, ..ProxyConfig::default() };
    let (_publisher, snapshots) = tokio::sync::watch::channel(Arc::new(snapshot(origin)?));
    let registry = prometheus::Registry::new();
    let clock = Arc::new(SystemClock::default());
    let ports = Ports {
        snapshots,
        gate: Arc::new(Open),
        limiter: Arc::new(model::limiter::Unlimited),
        clock,
        levels: Arc::new(Nowhere),
        storage: Arc::new(Full),
        sessions: Arc::new(Nowhere),
        api: None,
    };
    let running = Proxy::start(config, ports, &registry)?;
    eprintln!("{:?}", running.addrs());
    loop {
        std::thread::park();
    }
}

fn snapshot(origin: SocketAddr) -> anyhow::Result<Snapshot> {
    let backend = Backend { name: DEFAULT_BACKEND.into(), endpoints: vec![origin] };
    let backends = BTreeMap::from([(DEFAULT_BACKEND.into(), Arc::new(backend))]);
    let home = Arc::new(Region { name: "local".into(), backends });
    let group = ResidencyGroup { name: "local".into(), regions: vec![Arc::clone(&home)] };
    let plan = Arc::new(Plan {
        name: "enterprise".to_owned(),
        quotas: Quotas {
            max_users: 1,
            max_projects: 1,
            max_api_calls_per_month: 999_999_999,
            max_storage_mb: 1,
            max_ai_requests_per_day: 1,
            max_concurrent_sessions: 1,
        },
        features: BTreeMap::new(),
        offered: true,
        charge_on: ChargeOn::Answered,
        chain: Vec::new(),
        price: None,
        plugins: Default::default(),
        trial_quotas: Default::default(),
        on_authority_loss: Default::default(),
        rate: None,
    });
    let tenant = Tenant {
        id: TenantId(uuid::Uuid::nil()),
        slug: "acme".parse()?,
        organization_name: String::new(),
        display_name: String::new(),
        admin_email: String::new(),
        plan: plan.name.clone(),
        data_residency: "local".to_owned(),
        parent: None,
        status: Status::Active,
        suspend_reason: None,
        trial_ends_at: None,
        grace_ends_at: None,
        custom_domains: Vec::new(),
        quota_overrides: BTreeMap::new(),
        dated_quotas: BTreeMap::new(),
        quota_anchor: Default::default(),
        attributes: BTreeMap::new(),
        created_at: UnixMs(0),
        version: 1,
    };
    let record =
        Arc::new(TenantRecord { tenant, secrets: BTreeMap::new(), pools: Default::default() });
    let chain = Arc::new(Chain::default());
    let entry =
        TenantEntry::new(record, Arc::clone(&plan), Arc::new(group), home, chain, Vec::new());
    let any = Route {
        name: "any".into(),
        methods: Vec::new(),
        path: Pattern::parse("/**")?,
        tags: Vec::new(),
        timeout_ms: None,
        meters: Vec::new(),
        reserves: Vec::new(),
        session: None,
    };
    let plans = BTreeMap::from([(plan.name.clone(), plan)]);
    let routes = RouteTable(vec![Arc::new(any)]);
    let served = Served { entry: Arc::new(entry), keys: Vec::new().into() };
    Ok(Snapshot::new(1, "localhost", plans, routes, [served]))
}
