//! Children that draw calls from one pool: at several edges, and within one process.

use std::{sync::Arc, time::Duration};

use control::Store;
use futures_util::future::join_all;
use model::{
    anchor::Anchor,
    clock::{Clock, SystemClock},
    gate::{Denial, Gate as _},
    ledger::{Authority, BootId},
    pool::Drawn,
    quota::Metric,
    snapshot::TenantEntry,
    tenant::TenantId,
};
use prometheus::Registry;
use quota::{Quota, QuotaConfig, RedisServers, RedisTarget, RedisTls};
use services::{Redis, RedisOptions};
use uuid::Uuid;

use crate::bench::{API, entry, take};

/// The pool; large enough for several leases of each edge, small enough to run out soon.
const POOL: u64 = 600;
/// Guaranteed to the first child.
const GUARANTEED: u64 = 100;
/// Rounds without an admission after which nothing more comes: longer than everything that
/// is parked takes to come back.
const QUIET: u32 = 40;

/// An owner with three children, in a database.
struct Family {
    url: String,
    owner: TenantId,
    children: [TenantId; 3],
}

impl Family {
    async fn new() -> Self {
        let url = services::postgres().database();
        Store::open(&url, Arc::new(SystemClock::default())).await.unwrap().close().await;
        let id = || TenantId(Uuid::new_v4());
        let family = Self { url, owner: id(), children: [id(), id(), id()] };
        let mut rows = family.tenant(family.owner, "owner", None);
        for (n, child) in family.children.iter().enumerate() {
            rows += &family.tenant(*child, &format!("child-{n}"), Some(family.owner));
        }
        let owner = family.owner;
        rows += &format!(
            "INSERT INTO pool (tenant_id, metric, total, open)
             VALUES ('{owner}', 'api_calls', {POOL}, 0);
             INSERT INTO quota_pool (tenant_id, metric, freed, total_high, since_ms)
             VALUES ('{owner}', 'api_calls', 0, {POOL}, 0);"
        );
        for (child, guaranteed) in family.children.iter().zip([GUARANTEED, 0, 0]) {
            rows += &format!(
                "INSERT INTO pool_share (tenant_id, metric, child, guaranteed, maximum)
                 VALUES ('{owner}', 'api_calls', '{child}', {guaranteed}, {POOL});"
            );
        }
        services::postgres().superuser(&family.url, &format!("SET search_path = edge; {rows}"));
        family
    }

    fn tenant(&self, id: TenantId, slug: &str, parent: Option<TenantId>) -> String {
        let above = parent.map_or("NULL".to_owned(), |parent| format!("'{parent}'"));
        let line = parent.map(|parent| (parent, 1));
        let line: String = line
            .into_iter()
            .chain([(id, 0)])
            .map(|(ancestor, depth)| {
                format!("INSERT INTO tenant_closure VALUES ('{id}', '{ancestor}', {depth});")
            })
            .collect();
        format!(
            "INSERT INTO tenant (id, slug, organization_name, display_name, admin_email, plan,
                 data_residency, parent, status, created_at, version)
             VALUES ('{id}', '{slug}', '{slug}', '{slug}', 'a@b.example', 'test', 'eu', {above},
                 'active', 0, 1); {line}"
        )
    }

    /// A child as the snapshot has it.
    fn child(&self, n: usize) -> TenantEntry {
        let drawn =
            Drawn { top: self.owner, limit: POOL, above: 1_000_000, anchor: Anchor::default() };
        entry(self.children[n], 5, 0).in_pools([Some(drawn), None])
    }
}

struct Edge {
    quota: Arc<Quota>,
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    _folder: tempfile::TempDir,
}

impl Edge {
    async fn start(family: &Family, name: &str, redis: Option<&Redis>) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let store = Store::open(&family.url, Arc::clone(&clock)).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut config = QuotaConfig {
            edge: name.to_owned(),
            boot: Some(BootId(Uuid::new_v4())),
            lease_records: 256,
            report_interval_ms: 100,
            idle_return_ms: 300,
            // Nothing is given up for the time that the test machine takes.
            admit_wait_ms_max: 20_000,
            authority_timeout_ms: 60_000,
            ..QuotaConfig::new(folder.path().join("leases"))
        };
        if let Some(redis) = redis {
            let target = RedisTarget::parse(&redis.url(), RedisTls::default()).unwrap();
            let servers = RedisServers::connect(target, Duration::from_secs(2)).unwrap();
            config = config.with_redis(servers);
        }
        let authority: Arc<dyn Authority> = Arc::clone(&store) as _;
        let quota =
            Quota::start(config, authority, Arc::clone(&clock), &Registry::new()).await.unwrap();
        Self { quota, store, clock, _folder: folder }
    }

    /// Requests of one tenant until it is refused for good, or as many as asked for.
    async fn spend(&self, tenant: &TenantEntry, at_most: u64) -> u64 {
        let meter = self.quota.meter(tenant);
        let mut admitted = 0;
        while admitted < at_most {
            match take(&meter, API, self.clock.now()).await {
                Ok(permit) => {
                    drop(permit.spend());
                    admitted += 1;
                }
                Err(Denial::Exhausted(_)) => break,
                Err(Denial::Soft(_) | Denial::Unavailable { .. }) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
        admitted
    }
}

/// Spends for these tenants at these edges, all at once, until nothing more is admitted.
async fn spend_out(edges: &[&Edge], tenants: &[TenantEntry]) -> u64 {
    let (mut admitted, mut quiet) = (0, 0);
    while quiet < QUIET {
        let all =
            edges.iter().flat_map(|edge| tenants.iter().map(|tenant| edge.spend(tenant, u64::MAX)));
        let spent: u64 = join_all(all).await.into_iter().sum();
        admitted += spent;
        quiet = if spent == 0 { quiet + 1 } else { 0 };
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    admitted
}

async fn audit(edge: &Edge) {
    assert_eq!(edge.store.audit_quotas().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_children_that_race_at_two_edges_are_admitted_exactly_the_pool() {
    let family = Family::new().await;
    let redis = Redis::start(RedisOptions::default());
    let a = Edge::start(&family, "a", Some(&redis)).await;
    let b = Edge::start(&family, "b", Some(&redis)).await;
    let children = [family.child(0), family.child(1), family.child(2)];
    assert_eq!(spend_out(&[&a, &b], &children).await, POOL);
    audit(&a).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_idle_children_hold_can_be_spent_by_another_and_a_guarantee_can_not() {
    let family = Family::new().await;
    let redis = Redis::start(RedisOptions::default());
    let a = Edge::start(&family, "a", Some(&redis)).await;
    let b = Edge::start(&family, "b", Some(&redis)).await;
    assert_eq!(a.spend(&family.child(1), 7).await, 7);
    assert_eq!(b.spend(&family.child(2), 9).await, 9);
    let rest = spend_out(&[&a, &b], &[family.child(1)]).await;
    assert_eq!(rest, POOL - GUARANTEED - 7 - 9);
    assert_eq!(spend_out(&[&b], &[family.child(0)]).await, GUARANTEED);
    audit(&a).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_children_share_a_pool_as_exactly() {
    let family = Family::new().await;
    let edge = Edge::start(&family, "a", None).await;
    let children = [family.child(0), family.child(1), family.child(2)];
    assert_eq!(edge.spend(&children[1], 11).await, 11);
    assert_eq!(spend_out(&[&edge], &children).await, POOL - 11);
    let meter = edge.quota.meter(&children[1]);
    let status = meter.status(Metric::ApiCalls, edge.clock.now()).unwrap();
    assert_eq!((status.rate_limit_name(), status.limit), ("monthly-api-pool", POOL));
    audit(&edge).await;
}
