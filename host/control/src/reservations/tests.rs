use std::collections::BTreeMap;

use model::{clock::ManualClock, quota::Metric, reservation::Exceeded, tenant::TenantId};

use super::*;
use crate::{
    store::{Actor, NewTenant},
    testing::{Backend, Database, NEW_YEAR, guide, on_both},
};

on_both![
    what_is_given_up_or_settled_reaches_the_store,
    a_request_that_stops_waiting_leaves_nothing_behind,
    a_reservation_is_live_while_it_is_renewed,
    a_limit_that_is_reached_and_a_store_that_is_away_are_told_apart,
    a_start_leaves_what_a_killed_run_reserved_counted,
    every_end_of_a_reservation_is_counted_and_what_nobody_knows_of_is_shown,
];

const EDGE: Uuid = Uuid::from_u128(9);
const WAIT_MS: u64 = 20_000;

struct Bench {
    store: Arc<Store>,
    clock: Arc<ManualClock>,
    tenant: TenantId,
    catalog: watch::Sender<Arc<Catalog>>,
    registry: Mutex<Registry>,
    _database: Database,
}

impl Bench {
    async fn new(on: Backend) -> Self {
        let database = on.database();
        let clock = Arc::new(ManualClock::at(NEW_YEAR));
        let store = Store::open(&database.url(), Arc::clone(&clock) as _).await.expect("a store");
        let new = NewTenant {
            slug: "one".parse().expect("a slug"),
            organization_name: "one".to_owned(),
            display_name: None,
            admin_email: "a@b.example".to_owned(),
            plan: "team".to_owned(),
            data_residency: Some("eu".to_owned()),
            home_region: None,
            parent: None,
            quota_anchor: None,
        };
        let tenant = store.create_tenant(&Actor::Program, new).await.expect("a tenant").id;
        let catalog = watch::Sender::new(Arc::new(guide()));
        let registry = Mutex::default();
        Self { store, clock, tenant, catalog, registry, _database: database }
    }

    async fn open(&self) -> Arc<Reservations> {
        let store = Arc::clone(&self.store);
        let clock = Arc::clone(&self.clock) as _;
        // A new process has new series.
        let registry = Registry::new();
        let catalog = self.catalog.subscribe();
        let opened = Reservations::open(store, catalog, EDGE, clock, WAIT_MS, &registry);
        let opened = Arc::new(opened.await.expect("the store answers"));
        *lock(&self.registry) = registry;
        opened
    }

    /// A series of the gate that was opened last, of storage.
    fn series(&self, name: &str, event: Option<&str>) -> u64 {
        let families = lock(&self.registry).gather();
        let family = families.iter().find(|family| family.name() == name).expect("the series");
        let has = |metric: &prometheus::proto::Metric, value: &str| {
            metric.get_label().iter().any(|label| label.value() == value)
        };
        let is = |metric: &&prometheus::proto::Metric| {
            has(metric, "storage") && event.is_none_or(|event| has(metric, event))
        };
        let of = family.get_metric().iter().find(is).expect("the series of storage");
        (of.get_counter().get_value() + of.get_gauge().get_value()) as u64
    }

    fn wanted(&self, bytes: u64) -> Wanted {
        let amount = Amount::exactly(bytes);
        Wanted { tenant: self.tenant, metric: Metric::Storage, amount }
    }

    /// What is set aside, what of it is unresolved, and what is used.
    async fn figures(&self) -> (u64, u64, u64) {
        let sums = self.store.set_aside(self.tenant).await.expect("sums");
        let sum = sums.get(&Metric::Storage).copied().unwrap_or_default();
        let levels = self.store.levels(self.tenant).await.expect("levels");
        let used = levels.get(&Metric::Storage).copied().unwrap_or(0);
        (sum.reserved, sum.unresolved, used)
    }

    async fn await_figures(&self, want: (u64, u64, u64)) {
        for _ in 0..2_000 {
            if self.figures().await == want {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(self.figures().await, want);
    }
}

/// A running gate; stops in order.
struct Running {
    gate: Arc<Reservations>,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    fn start(gate: &Arc<Reservations>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let running = Arc::clone(gate);
        let task = tokio::spawn(async move { running.run(stopped, WAIT_MS).await });
        Self { gate: Arc::clone(gate), stop, task }
    }

    async fn stop(self) {
        let _gone = self.stop.send(());
        self.task.await.expect("no panic");
    }
}

async fn what_is_given_up_or_settled_reaches_the_store(on: Backend) {
    let bench = Bench::new(on).await;
    let running = Running::start(&bench.open().await);
    let reserve = |bytes| running.gate.reserve(bench.wanted(bytes));
    let first = reserve(700).await.expect("room");
    let second = reserve(40).await.expect("room");
    let third = reserve(5).await.expect("room");
    assert_eq!(first.amount(), 700);
    assert_eq!(first.extend(Amount::exactly(100)).await, Ok(100));
    assert_eq!(bench.figures().await, (845, 0, 0));
    first.settle(Outcome::Taken(790));
    drop(second);
    bench.await_figures((5, 0, 790)).await;
    third.settle(Outcome::Unknown);
    let last = reserve(1).await.expect("room");
    last.settle(Outcome::Taken(1));
    // A stop settles what is under way.
    running.stop().await;
    assert_eq!(bench.figures().await, (5, 5, 791));
}

async fn a_request_that_stops_waiting_leaves_nothing_behind(on: Backend) {
    let bench = Bench::new(on).await;
    let running = Running::start(&bench.open().await);
    for _ in 0..20 {
        let waits = tokio::spawn(running.gate.reserve(bench.wanted(10)));
        tokio::task::yield_now().await;
        waits.abort();
    }
    drop(running.gate.reserve(bench.wanted(10)));
    let kept = running.gate.reserve(bench.wanted(7)).await.expect("room");
    bench.await_figures((7, 0, 0)).await;
    drop(kept);
    bench.await_figures((0, 0, 0)).await;
    running.stop().await;
}

async fn a_reservation_is_live_while_it_is_renewed(on: Backend) {
    let bench = Bench::new(on).await;
    let gate = bench.open().await;
    let upload = gate.reserve(bench.wanted(100)).await.expect("room");
    for _ in 0..5 {
        bench.clock.advance_ms(TTL_MS - MARGIN_MS - 1);
        assert!(upload.is_live());
        renew(Arc::clone(&gate.shared)).await;
    }
    assert_eq!(bench.figures().await, (100, 0, 0));
    bench.clock.advance_ms(TTL_MS - MARGIN_MS);
    assert!(!upload.is_live(), "in time before the store takes it for lost");
    assert_eq!(bench.figures().await, (100, 0, 0));
    bench.clock.advance_ms(MARGIN_MS);
    renew(Arc::clone(&gate.shared)).await;
    assert!(!upload.is_live(), "too late");
    assert_eq!(bench.figures().await, (100, 100, 0));
}

async fn a_limit_that_is_reached_and_a_store_that_is_away_are_told_apart(on: Backend) {
    let bench = Bench::new(on).await;
    let gate = bench.open().await;
    let limit = guide().plans["team"].quotas.level_limit(Metric::Storage);
    let facts = BTreeMap::from([(Metric::Storage, limit)]);
    bench.store.put_levels(&Actor::Program, bench.tenant, &facts).await.expect("levels");
    let refused = gate.reserve(bench.wanted(1)).await.expect_err("no room");
    let full = |why: Exceeded| why.used == limit && why.limit == limit && why.reserved == 0;
    assert!(matches!(refused, Refused::Exceeded(why) if full(why)), "{refused:?}");
    bench.store.close().await;
    let refused = gate.reserve(bench.wanted(1)).await.expect_err("nobody can say");
    assert_eq!(refused, Refused::Unavailable);
}

async fn a_start_leaves_what_a_killed_run_reserved_counted(on: Backend) {
    let bench = Bench::new(on).await;
    let killed = bench.open().await;
    let upload = killed.reserve(bench.wanted(100)).await.expect("room");
    // Nobody settles it any more.
    std::mem::forget(upload);
    let running = Running::start(&bench.open().await);
    assert_eq!(bench.figures().await, (100, 100, 0));
    let next = running.gate.reserve(bench.wanted(20)).await.expect("room");
    assert_eq!(bench.figures().await, (120, 100, 0));
    next.settle(Outcome::Taken(20));
    running.stop().await;
    assert_eq!(bench.figures().await, (100, 100, 20));
}

async fn every_end_of_a_reservation_is_counted_and_what_nobody_knows_of_is_shown(on: Backend) {
    let bench = Bench::new(on).await;
    let running = Running::start(&bench.open().await);
    let reserve = |bytes| running.gate.reserve(bench.wanted(bytes));
    reserve(10).await.expect("room").settle(Outcome::Taken(10));
    drop(reserve(20).await.expect("room"));
    reserve(30).await.expect("room").settle(Outcome::Unknown);
    let overtaken = reserve(40).await.expect("room");
    reserve(1 << 60).await.expect_err("no room");
    bench.await_figures((70, 30, 10)).await;
    look(Arc::clone(&running.gate.shared)).await;
    let shown = || {
        let series = |name| bench.series(name, None);
        (series("edge_reservations_unresolved"), series("edge_reservations_unresolved_amount"))
    };
    assert_eq!(shown(), (1, 30));
    // An hour later the backend reports, and the last one answers after that.
    bench.clock.advance_ms(3_600_000);
    look(Arc::clone(&running.gate.shared)).await;
    assert_eq!(shown(), (2, 70));
    let facts = BTreeMap::from([(Metric::Storage, 50)]);
    bench.store.put_levels(&Actor::Program, bench.tenant, &facts).await.expect("levels");
    overtaken.settle(Outcome::Taken(40));
    look(Arc::clone(&running.gate.shared)).await;
    assert_eq!(shown(), (0, 0));
    running.stop().await;
    let events = ["reserved", "committed", "released", "unknown", "late", "refused"];
    let counted = events.map(|event| bench.series("edge_reservations_total", Some(event)));
    assert_eq!(counted, [4, 1, 1, 1, 1, 1]);
}
