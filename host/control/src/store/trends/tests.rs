use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures_util::future::join_all;
use model::{
    anchor::Anchor,
    clock::{ManualClock, UnixMs},
    ledger::{
        Authority, BootId, EpochRef, Fence, Holder, HolderId, LateRefunds, LeaseReport,
        OpenRequest, Opening, Report, WindowKey,
    },
    quota::Metric,
    tenant::TenantId,
    window::Window,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use uuid::Uuid;

use super::{BucketLength, HOUR_MS, Span, filled};
use crate::{
    store::{
        Actor, NewTenant, Sampled, Store,
        db::{Purpose, sql},
    },
    testing::{Backend, Database, NEW_YEAR, on_both, report_of},
};

on_both![
    the_buckets_of_every_window_sum_to_what_it_charged,
    processes_that_sample_at_once_count_once,
    a_sample_without_news_touches_nothing,
    what_came_back_leaves_the_newest_hours_first,
    what_is_known_after_the_end_is_counted_in_the_last_hour,
    a_level_is_carried_from_before_and_through_gaps,
    old_buckets_go_and_a_levels_last_one_stays,
    days_and_hours_say_the_same,
];

const DAY_MS: u64 = 24 * HOUR_MS;
const LIMIT: u64 = 1_000_000;

/// A tranche of the test's own holder.
#[derive(Clone, Copy, Debug)]
struct Tranche {
    key: WindowKey,
    epoch: u64,
    size: u64,
    spent: u64,
}

struct Bench {
    /// `None` only while the process starts again.
    running: Option<Arc<Store>>,
    clock: Arc<ManualClock>,
    tenants: Vec<TenantId>,
    holder: HolderId,
    number: u64,
    open: Vec<Tranche>,
    late: BTreeMap<WindowKey, u64>,
    /// Every window that was ever touched.
    windows: BTreeSet<WindowKey>,
    database: Database,
}

impl Bench {
    async fn new(on: Backend) -> Self {
        let database = on.database();
        let clock = Arc::new(ManualClock::at(NEW_YEAR));
        let store = Store::open(&database.url(), Arc::clone(&clock) as _).await.expect("a store");
        let tenants = vec![tenant(&store, "one").await, tenant(&store, "two").await];
        let holder = register(&store).await;
        Self {
            running: Some(store),
            clock,
            tenants,
            holder,
            number: 0,
            open: Vec::new(),
            late: BTreeMap::new(),
            windows: BTreeSet::new(),
            database,
        }
    }

    fn store(&self) -> &Arc<Store> {
        self.running.as_ref().expect("running")
    }

    fn now(&self) -> UnixMs {
        model::clock::Clock::now(&*self.clock)
    }

    fn key(&self, tenant: TenantId, metric: Metric) -> WindowKey {
        let window = Window::of(metric, self.now(), Anchor::default()).expect("a window");
        WindowKey { tenant, metric, window }
    }

    /// Opens a tranche in the window of now; its place in `open`.
    async fn open(&mut self, tenant: TenantId, metric: Metric) -> usize {
        let key = self.key(tenant, metric);
        self.windows.insert(key);
        let account = self.store().accounts(vec![key]).await.expect("an answer").remove(0);
        let latest = account.map_or(0, |account| account.latest);
        let fence = Fence::Holder(self.holder);
        let request = OpenRequest { key, fence, latest, limit: LIMIT, above: None, rate_per_s: 3 };
        match self.store().open(self.holder, vec![request]).await.expect("an answer").remove(0) {
            Opening::Opened(permit) => {
                let (epoch, size) = (permit.epoch(), permit.tranche());
                self.open.push(Tranche { key, epoch, size, spent: 0 });
                self.open.len() - 1
            }
            other => panic!("expected a tranche, got {other:?}"),
        }
    }

    async fn report(&mut self, at: usize, spent: u64, sealed: bool) {
        let tranche = &mut self.open[at];
        tranche.spent = spent;
        let Tranche { key, epoch, size, spent } = *tranche;
        let of = EpochRef { key, epoch };
        let lease = LeaseReport { of, tranche: size, lease: 1, spent, refunded: 0, sealed };
        self.send(vec![lease], Vec::new()).await;
        if sealed {
            self.open.remove(at);
        }
    }

    async fn send(&mut self, leases: Vec<LeaseReport>, late: Vec<LateRefunds>) {
        self.number += 1;
        let report = Report { late, ..report_of(self.holder, self.number, leases) };
        self.store().report(report).await.expect("an answer");
    }

    /// Spends from a new tranche that is sealed at once.
    async fn spend(&mut self, tenant: TenantId, metric: Metric, amount: u64) {
        let at = self.open(tenant, metric).await;
        self.report(at, amount, true).await;
    }

    async fn late(&mut self, key: WindowKey, more: u64) {
        let total = self.late.entry(key).or_insert(0);
        *total += more;
        let total = *total;
        self.send(Vec::new(), vec![LateRefunds { key, total }]).await;
    }

    /// A holder seals the tranches of a window that has ended; here up to a day late.
    async fn seal_ended(&mut self) {
        let late = UnixMs(self.now().0 - DAY_MS);
        while let Some(at) = self.open.iter().position(|open| open.key.window.end < late) {
            let spent = self.open[at].spent;
            self.report(at, spent, true).await;
        }
    }

    /// The holder is lost, with what it held, and the process starts again.
    async fn crash(&mut self, reopen: bool) {
        if reopen {
            self.store().close().await;
            self.running = None;
            self.running = Some(reopened(&self.database, &self.clock).await);
        }
        self.holder = register(self.store()).await;
        self.store().strand_others(self.holder).await.expect("an answer");
        self.open.clear();
        self.late.clear();
        self.number = 0;
    }

    async fn sample(&self) -> Sampled {
        self.store().sample_usage().await.expect("a sample")
    }

    async fn charged(&self, key: WindowKey) -> u64 {
        let account = self.store().accounts(vec![key]).await.expect("an answer").remove(0);
        account.expect("a window").charged
    }

    /// What the buckets of a window say, by hour.
    async fn hours(&self, key: WindowKey) -> Vec<u64> {
        let buckets = key.window.end.ms_since(key.window.start) / HOUR_MS;
        let span = Span { length: BucketLength::Hour, start: key.window.start, buckets };
        let trends = self.store().trends(key.tenant, &[key.metric], span).await.expect("trends");
        trends[&key.metric].clone()
    }

    async fn sums_hold(&self) {
        for &key in &self.windows {
            let sum: u64 = self.hours(key).await.iter().sum();
            assert_eq!(sum, self.charged(key).await, "{key:?}");
        }
    }

    async fn trend(&self, metric: Metric, length: BucketLength, buckets: u64) -> Vec<u64> {
        let span = Span::until(self.now(), length, buckets);
        let trends = self.store().trends(self.tenants[0], &[metric], span).await.expect("trends");
        trends[&metric].clone()
    }

    async fn level(&self, metric: Metric, level: u64) {
        let facts = BTreeMap::from([(metric, level)]);
        self.store().put_levels(&Actor::Program, self.tenants[0], &facts).await.expect("levels");
    }

    async fn buckets(&self) -> i64 {
        let mut tx = self.store().db.control(Purpose::Read).await.expect("a transaction");
        let count = sql("SELECT count(*) FROM usage_bucket").one::<(i64,), _>(&mut tx).await;
        tx.end(count).await.expect("a row").0
    }
}

async fn reopened(database: &Database, clock: &Arc<ManualClock>) -> Arc<Store> {
    loop {
        let opened = Store::open(&database.url(), Arc::clone(clock) as _).await;
        if let Ok(store) = opened {
            return store;
        }
        tokio::task::yield_now().await;
    }
}

async fn register(store: &Store) -> HolderId {
    let id = HolderId::random();
    let boot = BootId(Uuid::new_v4());
    store.register(Holder { id, edge: "local".into(), boot }).await.expect("registered");
    id
}

async fn tenant(store: &Arc<Store>, slug: &str) -> TenantId {
    let new = NewTenant {
        slug: slug.parse().expect("a slug"),
        organization_name: slug.to_owned(),
        display_name: None,
        admin_email: "a@b.example".to_owned(),
        plan: "team".to_owned(),
        data_residency: Some("eu".to_owned()),
        home_region: None,
        parent: None,
        quota_anchor: None,
    };
    store.create_tenant(&Actor::Program, new).await.expect("a tenant").id
}

/// Two months of a synthetic history: tranches, reports, seals, late refunds, crashes and
/// restarts, with time passing in steps of minutes to days.
async fn the_buckets_of_every_window_sum_to_what_it_charged(on: Backend) {
    let mut bench = Bench::new(on).await;
    let mut random = StdRng::seed_from_u64(7);
    let end = NEW_YEAR.plus_ms(62 * DAY_MS);
    while bench.now() < end {
        let tenant = bench.tenants[random.random_range(0..2)];
        let metric = Metric::CONSUMABLE[random.random_range(0..2)];
        match random.random_range(0..20) {
            0..8 => {
                let at = bench.open(tenant, metric).await;
                let spent = random.random_range(0..=bench.open[at].size);
                bench.report(at, spent, random.random()).await;
            }
            8..14 if !bench.open.is_empty() => {
                let at = random.random_range(0..bench.open.len());
                let Tranche { size, spent, .. } = bench.open[at];
                // Refunds within a tranche may bring its figure down, too.
                let spent = random.random_range(spent / 2..=size);
                bench.report(at, spent, random.random()).await;
            }
            14..16 => {
                let key = bench.key(tenant, metric);
                bench.late(key, random.random_range(1..5)).await;
            }
            16 => bench.crash(random.random()).await,
            _ => {
                bench.clock.advance_ms(random.random_range(1..12 * HOUR_MS));
                bench.seal_ended().await;
                bench.sample().await;
            }
        }
        if random.random_range(0..3) == 0 {
            bench.sample().await;
            bench.sums_hold().await;
        }
    }
    bench.sample().await;
    bench.sums_hold().await;
    assert!(bench.windows.len() > 30);
    assert!(bench.charged(*bench.windows.iter().next().expect("a window")).await > 0);
    assert_eq!(bench.store().audit_quotas().await.expect("an audit"), []);
}

async fn processes_that_sample_at_once_count_once(on: Backend) {
    let mut bench = Bench::new(on).await;
    let mut stores = vec![Arc::clone(bench.store())];
    if matches!(on, Backend::Postgres) {
        for _ in 0..3 {
            stores.push(reopened(&bench.database, &bench.clock).await);
        }
    }
    for round in 0..10 {
        for tenant in bench.tenants.clone() {
            bench.spend(tenant, Metric::ApiCalls, round).await;
        }
        bench.clock.advance_ms(HOUR_MS);
        let samples = (0..8).map(|n| stores[n % stores.len()].sample_usage());
        for sample in join_all(samples).await {
            sample.expect("a sample");
        }
        bench.sums_hold().await;
    }
}

async fn a_sample_without_news_touches_nothing(on: Backend) {
    let mut bench = Bench::new(on).await;
    assert_eq!(bench.sample().await, Sampled::default());
    let tenant = bench.tenants[0];
    bench.spend(tenant, Metric::ApiCalls, 5).await;
    // A tranche of which nothing was spent is no news.
    bench.open(bench.tenants[1], Metric::ApiCalls).await;
    assert_eq!(bench.sample().await.windows, 1);
    bench.clock.advance_ms(3 * HOUR_MS);
    assert_eq!(bench.sample().await, Sampled::default());
    assert_eq!(bench.buckets().await, 1);
}

async fn what_came_back_leaves_the_newest_hours_first(on: Backend) {
    let mut bench = Bench::new(on).await;
    let tenant = bench.tenants[0];
    for spent in [5, 3, 2] {
        bench.spend(tenant, Metric::AiRequests, spent).await;
        bench.sample().await;
        bench.clock.advance_ms(HOUR_MS);
    }
    let key = bench.key(tenant, Metric::AiRequests);
    assert_eq!(bench.hours(key).await[..4], [5, 3, 2, 0]);
    bench.late(key, 4).await;
    bench.sample().await;
    assert_eq!(bench.hours(key).await[..4], [5, 1, 0, 0]);
    bench.spend(tenant, Metric::AiRequests, 7).await;
    bench.sample().await;
    assert_eq!(bench.hours(key).await[..4], [5, 1, 0, 7]);
}

async fn what_is_known_after_the_end_is_counted_in_the_last_hour(on: Backend) {
    let mut bench = Bench::new(on).await;
    let tenant = bench.tenants[0];
    let at = bench.open(tenant, Metric::AiRequests).await;
    bench.report(at, 2, false).await;
    bench.sample().await;
    let key = bench.key(tenant, Metric::AiRequests);
    bench.clock.advance_ms(DAY_MS + 40 * 60_000);
    bench.report(0, 6, true).await;
    bench.spend(tenant, Metric::AiRequests, 1).await;
    bench.sample().await;
    let hours = bench.hours(key).await;
    assert_eq!((hours[0], hours[23]), (2, 4));
    let today = bench.key(tenant, Metric::AiRequests);
    assert_eq!(bench.hours(today).await[0], 1);
}

async fn a_level_is_carried_from_before_and_through_gaps(on: Backend) {
    let bench = Bench::new(on).await;
    bench.level(Metric::Users, 3).await;
    bench.clock.advance_ms(10 * DAY_MS);
    bench.level(Metric::Users, 9).await;
    bench.clock.advance_ms(HOUR_MS);
    bench.level(Metric::Users, 5).await;
    bench.clock.advance_ms(2 * DAY_MS);
    let days = bench.trend(Metric::Users, BucketLength::Day, 14).await;
    assert_eq!(days, [0, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 5, 5, 5]);
    assert_eq!(bench.trend(Metric::Users, BucketLength::Day, 3).await, [5, 5, 5]);
    let hours = bench.trend(Metric::Users, BucketLength::Hour, 51).await;
    assert_eq!((&hours[..4], hours[50]), (&[3, 9, 5, 5][..], 5));
    // Nobody reported projects.
    assert_eq!(bench.trend(Metric::Projects, BucketLength::Day, 2).await, [0, 0]);
}

async fn old_buckets_go_and_a_levels_last_one_stays(on: Backend) {
    let mut bench = Bench::new(on).await;
    let tenant = bench.tenants[0];
    for level in [1, 2, 3] {
        bench.level(Metric::Users, level).await;
        bench.spend(tenant, Metric::ApiCalls, 1).await;
        bench.sample().await;
        bench.clock.advance_ms(HOUR_MS);
    }
    assert_eq!(bench.buckets().await, 6);
    bench.clock.advance_ms(400 * DAY_MS - 2 * HOUR_MS);
    assert_eq!(bench.sample().await.dropped, 2);
    bench.clock.advance_ms(DAY_MS);
    bench.level(Metric::Users, 8).await;
    assert_eq!(bench.sample().await.dropped, 3);
    assert_eq!(bench.buckets().await, 2);
    assert_eq!(bench.trend(Metric::Users, BucketLength::Day, 3).await, [3, 3, 8]);
}

async fn days_and_hours_say_the_same(on: Backend) {
    let mut bench = Bench::new(on).await;
    let mut random = StdRng::seed_from_u64(11);
    let tenant = bench.tenants[0];
    for _ in 0..60 {
        bench.level(Metric::Storage, random.random_range(0..1 << 40)).await;
        bench.spend(tenant, Metric::ApiCalls, random.random_range(0..8)).await;
        bench.sample().await;
        bench.clock.advance_ms(random.random_range(0..6 * HOUR_MS));
    }
    // To the end of the day, so that the hours fill whole days.
    let left = DAY_MS - bench.now().0 % DAY_MS;
    bench.clock.advance_ms(left - 1);
    for metric in [Metric::Storage, Metric::ApiCalls] {
        let days = bench.trend(metric, BucketLength::Day, 5).await;
        let hours = bench.trend(metric, BucketLength::Hour, 5 * 24).await;
        for (day, hours) in days.iter().zip(hours.chunks(24)) {
            let expected = match metric {
                Metric::Storage => hours[23],
                _ => hours.iter().sum(),
            };
            assert_eq!(*day, expected);
        }
        assert!(days[4] > 0 || metric == Metric::ApiCalls);
    }
    let today = bench.trend(Metric::ApiCalls, BucketLength::Day, 1).await[0];
    assert_eq!(bench.store().calls_on(tenant, bench.now()).await.expect("a figure"), today);
}

#[test]
fn gaps_are_nothing_or_the_level_before() {
    let span = Span { length: BucketLength::Hour, start: UnixMs(0), buckets: 4 };
    let rows = vec![(3_600_000, 7), (3 * 3_600_000, 2)];
    assert_eq!(filled(span, rows.clone(), None), [0, 7, 0, 2]);
    assert_eq!(filled(span, rows, Some(5)), [5, 7, 7, 2]);
}
