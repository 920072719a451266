//! Several edges on one PostgreSQL and one Redis: together they admit the limit, and not one
//! request more, whatever is lost.

use std::{path::PathBuf, sync::Arc, time::Duration};

use control::Store;
use model::{
    clock::{Clock, SystemClock},
    gate::{Denial, Gate as _, Meter},
    ledger::{Authority, BootId},
    quota::MetricSet,
    snapshot::TenantEntry,
};
use prometheus::Registry;
use quota::{Quota, QuotaConfig, RedisServers, RedisTarget, RedisTls};
use services::{Dump, Redis, RedisOptions};
use uuid::Uuid;

use crate::bench::{API, entry, take, tenant};

/// A database, a Redis, and what outlives the edges.
struct Site {
    url: String,
    redis: Redis,
    folder: tempfile::TempDir,
    boot: BootId,
}

struct Edge {
    quota: Arc<Quota>,
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    registry: Registry,
}

impl Site {
    fn new() -> Self {
        Self {
            url: services::postgres().database(),
            redis: Redis::start(RedisOptions::default()),
            folder: tempfile::tempdir().unwrap(),
            boot: BootId(Uuid::new_v4()),
        }
    }

    fn lease_file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The accounts as they are stored, for a failure's message.
    fn epochs(&self) -> String {
        services::postgres().superuser(
            &self.url,
            "SET search_path = edge; SELECT epoch, shared, state, tranche_own FROM quota_epoch ORDER BY epoch;
             SELECT epoch, holder, lease, spent, sealed FROM quota_report ORDER BY epoch;
             SELECT limit_tokens, granted, credited, latest, shared_floor, shared_latest
             FROM quota_window; SELECT holder, edge, ended_at, lost FROM quota_holder;",
        )
    }

    async fn edge(&self, name: &str) -> Edge {
        self.edge_at(name, name).await
    }

    /// An edge of a name, with the lease file of another.
    async fn edge_at(&self, file: &str, name: &str) -> Edge {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let store = Store::open(&self.url, Arc::clone(&clock)).await.unwrap();
        let registry = Registry::new();
        let target = RedisTarget::parse(&self.redis.url(), RedisTls::default()).unwrap();
        let servers = RedisServers::connect(target, Duration::from_secs(2)).unwrap();
        let config = QuotaConfig {
            edge: name.to_owned(),
            boot: Some(self.boot),
            lease_records: 256,
            report_interval_ms: 100,
            idle_return_ms: 300,
            // Nothing is given up for the time that the test machine takes.
            admit_wait_ms_max: 20_000,
            authority_timeout_ms: 60_000,
            ..QuotaConfig::new(self.lease_file(file)).with_redis(servers)
        };
        let authority: Arc<dyn Authority> = Arc::clone(&store) as _;
        let quota = Quota::start(config, authority, Arc::clone(&clock), &registry).await.unwrap();
        Edge { quota, store, clock, registry }
    }
}

impl Edge {
    fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap();
        family.get_metric().iter().map(|metric| metric.get_counter().get_value()).sum()
    }

    /// The one series of a family with this label.
    fn labelled(&self, name: &str, label: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap();
        let mut series = family.get_metric().iter();
        let of = series.find(|metric| metric.get_label().iter().any(|of| of.value() == label));
        of.unwrap().get_counter().get_value()
    }

    /// Ends the process without a word.
    async fn crash(self) {
        let Self { quota, store, .. } = self;
        drop(quota);
        while Arc::strong_count(&store) > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        store.close().await;
    }

    /// Requests until so many were admitted, or the quota is used up for good.
    async fn spend(&self, tenant: &TenantEntry, metrics: MetricSet, at_most: u64) -> u64 {
        let meter = self.quota.meter(tenant);
        let mut admitted = 0;
        while admitted < at_most {
            match self.one(&meter, metrics).await {
                Ok(()) => admitted += 1,
                Err(Denial::Exhausted(_)) => break,
                Err(Denial::Soft(_) | Denial::Unavailable { .. }) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
        admitted
    }

    async fn one(&self, meter: &Arc<dyn Meter>, metrics: MetricSet) -> Result<(), Denial> {
        let permit = take(meter, metrics, self.clock.now()).await?;
        drop(permit.spend());
        Ok(())
    }
}

/// Spends at all edges at once until nothing more is admitted anywhere, also not after
/// everything that was parked has come back.
async fn spend_out(edges: &[&Edge], tenant: &TenantEntry) -> u64 {
    let mut admitted = 0;
    let mut quiet = 0;
    while quiet < 40 {
        let spent = futures_util::future::join_all(
            edges.iter().map(|edge| edge.spend(tenant, API, u64::MAX)),
        );
        let spent: u64 = spent.await.into_iter().sum();
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
async fn three_edges_together_admit_the_limit_to_the_request() {
    let site = Site::new();
    let (a, b, c) = (site.edge("a").await, site.edge("b").await, site.edge("c").await);
    let tenant = tenant(2_000, 0);
    assert_eq!(spend_out(&[&a, &b, &c], &tenant).await, 2_000, "{}", site.epochs());
    assert!(a.metric("quota_dispatcher_calls_total") > 0.0, "Redis was asked");
    audit(&a).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_idle_edge_holds_can_be_spent_at_another() {
    let site = Site::new();
    let (a, b) = (site.edge("a").await, site.edge("b").await);
    let tenant = tenant(100, 0);
    assert_eq!(a.spend(&tenant, API, 30).await, 30);
    assert_eq!(spend_out(&[&b], &tenant).await, 70);
    audit(&a).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_was_killed_wastes_nothing_once_it_is_back() {
    let site = Site::new();
    let (a, b) = (site.edge("a").await, site.edge("b").await);
    let tenant = tenant(1_000, 0);
    assert_eq!(a.spend(&tenant, API, 123).await, 123);
    assert_eq!(b.spend(&tenant, API, 45).await, 45);
    a.crash().await;
    let a = site.edge("a").await;
    let rest = spend_out(&[&a, &b], &tenant).await;
    assert_eq!(rest, 1_000 - 123 - 45, "{}", site.epochs());
    audit(&b).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn losing_all_data_of_redis_wastes_nothing_and_admits_nothing_twice() {
    let site = Site::new();
    let (a, b) = (site.edge("a").await, site.edge("b").await);
    let tenant = tenant(1_000, 0);
    let mut admitted = 0;
    for round in 0..4 {
        admitted += a.spend(&tenant, API, 60).await;
        admitted += b.spend(&tenant, API, 60).await;
        match round {
            0 => site.redis.flush(),
            1 => site.redis.restart(Dump::Delete),
            2 => {
                site.redis.save();
                site.redis.restart(Dump::Keep);
            }
            _ => {}
        }
    }
    admitted += spend_out(&[&a, &b], &tenant).await;
    assert_eq!(admitted, 1_000);
    audit(&a).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_away_edges_draw_from_the_database_and_stay_exact() {
    let site = Site::new();
    let (a, b) = (site.edge("a").await, site.edge("b").await);
    let tenant = tenant(1_000, 0);
    let mut admitted = a.spend(&tenant, API, 50).await + b.spend(&tenant, API, 50).await;
    site.redis.kill();
    admitted += a.spend(&tenant, API, 100).await;
    admitted += b.spend(&tenant, API, 100).await;
    assert_eq!(admitted, 300);
    assert!(a.metric("quota_direct_tranches_total") > 0.0);
    site.redis.restart(Dump::Delete);
    admitted += spend_out(&[&a, &b], &tenant).await;
    assert_eq!(admitted, 1_000);
    audit(&a).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_that_falls_and_rises_is_kept_by_all_edges() {
    let site = Site::new();
    let (a, b) = (site.edge("a").await, site.edge("b").await);
    let large = tenant(1_000, 0);
    let id = large.id();
    assert_eq!(a.spend(&large, API, 100).await, 100);
    assert_eq!(b.spend(&large, API, 100).await, 100);
    let small = entry(id, 300, 0);
    assert_eq!(spend_out(&[&a, &b], &small).await, 100);
    let larger = entry(id, 500, 0);
    assert_eq!(spend_out(&[&a, &b], &larger).await, 200);
    audit(&a).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_was_taken_for_lost_begins_anew_and_wastes_at_most_its_lease() {
    let site = Site::new();
    let (a, b) = (site.edge("a").await, site.edge("b").await);
    let tenant = tenant(1_000, 0);
    let mut spent = a.spend(&tenant, API, 100).await + b.spend(&tenant, API, 100).await;
    // Another process starts under the name of the first, which still lives.
    let impostor = site.edge_at("impostor", "a").await;
    spent += spend_out(&[&a, &b, &impostor], &tenant).await;
    assert!((980..=1_000).contains(&spent), "{spent}");
    audit(&b).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_has_forgotten_of_a_lost_machine_is_asked_for_once() {
    let site = Site::new();
    let (a, b) = (site.edge("a").await, site.edge("b").await);
    let tenant = tenant(1_000, 0);
    let mut spent = a.spend(&tenant, API, 100).await + b.spend(&tenant, API, 10).await;
    a.crash().await;
    site.redis.flush();
    // Its disk is gone too: what it held is told by nobody.
    let a = site.edge_at("another disk", "a").await;
    spent += spend_out(&[&a, &b], &tenant).await;
    assert!(spent <= 1_000, "{spent}");
    let closes = || [&a, &b].map(|edge| edge.labelled("quota_dispatcher_calls_total", "close"));
    let reports = || [&a, &b].map(|edge| edge.labelled("quota_authority_calls_total", "report"));
    let after = async |more: f64| {
        let before = reports();
        while reports().iter().zip(before).any(|(now, before)| *now < before + more) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    after(20.0).await;
    let asked = closes();
    assert!(asked.iter().sum::<f64>() > 0.0, "{}", site.epochs());
    after(20.0).await;
    assert_eq!(closes(), asked, "with every report again");
    audit(&b).await;
}
