use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures_util::future::join_all;
use model::{
    anchor::Anchor,
    catalog::Catalog,
    clock::{ManualClock, UnixMs},
    ledger::{
        Authority, BootId, EpochRef, Fence, Holder, HolderId, LeaseReport, OpenRequest, Opening,
        WindowKey,
    },
    plan::Plan,
    pool::Share,
    quota::{BYTES_PER_MB, Metric},
    tenant::TenantId,
    window::Window,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    store::{
        Actor, AlertSettings, ChangeError, EventKind, EventRecord, NewPool, NewTenant, Store,
        StoreError, TenantPatch,
        alerts::SECRET_GRACE_MS,
        db::{Purpose, sql},
        outbox,
    },
    testing::{Backend, Database, on_both, report_of},
};

/// 2024-01-15T10:30:00Z.
const NOW: UnixMs = UnixMs(1_705_314_600_000);
const DAY_MS: u64 = 86_400_000;
/// Longer than a new limit takes to be believed.
const SETTLED_MS: u64 = 10_000;

/// A database with one tenant of the plan `small`, whose quotas are all 1,000.
pub(crate) struct Bench {
    pub(crate) database: Database,
    pub(crate) store: Arc<Store>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) catalog: Catalog,
    pub(crate) tenant: TenantId,
}

impl Bench {
    pub(crate) async fn new(on: Backend) -> Self {
        let database = on.database();
        let clock = Arc::new(ManualClock::at(NOW));
        let store = open(&database, &clock).await;
        let tenant = tenant(&store, "acme").await;
        let plans = [("small", 1_000), ("large", 2_000)];
        let plans = plans.map(|(name, quota)| (name.to_owned(), Arc::new(plan(name, quota))));
        let catalog = Catalog { plans: BTreeMap::from(plans), ..Catalog::default() };
        Self { database, store, clock, catalog, tenant }
    }

    /// Another process on the same database.
    pub(crate) async fn another(&self) -> Arc<Store> {
        open(&self.database, &self.clock).await
    }

    pub(crate) async fn put(&self, settings: Value) {
        let settings: AlertSettings = serde_json::from_value(settings).expect("settings");
        self.store.put_alerts(&Actor::Program, self.tenant, settings, None).await.expect("a put");
    }

    /// Sets what is charged in the window of now.
    pub(crate) async fn spend(&self, metric: Metric, charged: i64) {
        let window = Window::of(metric, self.now(), Anchor::default()).expect("a window");
        self.spend_in(window, metric, charged).await;
    }

    /// Sets what is charged in a window.
    async fn spend_in(&self, window: Window, metric: Metric, charged: i64) {
        let mut tx = self.store.db.control(Purpose::Write).await.expect("a transaction");
        let spent = sql("INSERT INTO quota_window (tenant_id, metric, start_ms, end_ms,
                 limit_version, limit_tokens, limit_high, granted)
             VALUES ($1, $2, $3, $4, 1, 9999, 9999, $5)
             ON CONFLICT (tenant_id, metric, start_ms) DO UPDATE SET granted = excluded.granted")
        .bind(self.tenant.0)
        .bind(metric.as_str())
        .bind(i64::try_from(window.start.0).expect("an instant"))
        .bind(i64::try_from(window.end.0).expect("an instant"))
        .bind(charged)
        .execute(&mut tx)
        .await;
        tx.end(spent).await.expect("a window");
    }

    /// Sets a level; storage in MB.
    pub(crate) async fn level(&self, metric: Metric, value: u64) {
        let unit = if metric == Metric::Storage { BYTES_PER_MB } else { 1 };
        let levels = BTreeMap::from([(metric, value * unit)]);
        self.store.put_levels(&Actor::Program, self.tenant, &levels).await.expect("levels");
    }

    pub(crate) async fn evaluate(&self) -> u64 {
        self.store.evaluate_alerts(&self.catalog).await.expect("an evaluation").events
    }

    /// Everything that was told, oldest first.
    pub(crate) async fn events(&self) -> Vec<EventRecord> {
        let page = self.store.events(self.tenant, None, 1_000).await.expect("events");
        page.events.into_iter().rev().collect()
    }

    async fn kinds(&self) -> Vec<String> {
        self.events().await.into_iter().map(|event| event.kind).collect()
    }

    pub(crate) fn now(&self) -> UnixMs {
        model::clock::Clock::now(&*self.clock)
    }
}

async fn open(database: &Database, clock: &Arc<ManualClock>) -> Arc<Store> {
    database.open_at(Arc::clone(clock)).await
}

pub(crate) async fn tenant(store: &Arc<Store>, slug: &str) -> TenantId {
    store.create_tenant(&Actor::Program, new(slug)).await.expect("a tenant").id
}

pub(super) fn new(slug: &str) -> NewTenant {
    NewTenant {
        slug: slug.parse().expect("a slug"),
        organization_name: "Acme Corporation".to_owned(),
        display_name: Some("Acme Corp".to_owned()),
        admin_email: format!("admin@{slug}.example"),
        plan: "small".to_owned(),
        data_residency: Some("eu".to_owned()),
        home_region: None,
        parent: None,
        quota_anchor: None,
    }
}

fn plan(name: &str, quota: u64) -> Plan {
    let quotas: BTreeMap<_, _> =
        Metric::ALL.into_iter().map(|metric| (metric.quota_name(), quota)).collect();
    serde_json::from_value(json!({"name": name, "quotas": quotas})).expect("a plan")
}

pub(super) fn watching(metrics: &[&str]) -> Value {
    let rules: BTreeMap<_, _> = metrics.iter().map(|metric| (*metric, json!({}))).collect();
    json!({"quota_alerts": rules})
}

on_both![
    each_threshold_makes_one_event_however_often_it_is_looked_at,
    an_event_tells_its_figures_and_whom,
    a_new_window_and_another_limit_arm_again,
    a_level_arms_again_when_it_falls_clearly_below,
    what_nobody_watches_makes_no_event,
    consumption_is_what_the_authority_has_charged,
    consumption_is_that_of_the_month_from_the_tenants_own_day_on,
    many_tenants_are_looked_at_in_pages,
    a_tenant_that_cannot_be_read_keeps_no_other_waiting,
    a_pool_above_replaces_the_limit_of_the_plan,
    settings_are_put_as_a_whole_under_a_version,
    the_first_webhook_makes_a_secret_and_a_rotation_keeps_the_one_before_for_a_day,
    an_event_is_there_only_if_what_it_tells_of_is,
    old_events_are_forgotten_and_not_told_again,
];

async fn each_threshold_makes_one_event_however_often_it_is_looked_at(on: Backend) {
    let bench = Bench::new(on).await;
    bench.put(watching(&["api_calls", "ai_requests"])).await;
    for (charged, events) in [(0, 0), (799, 0), (800, 1), (801, 0), (949, 0), (950, 1), (999, 0)] {
        bench.spend(Metric::ApiCalls, charged).await;
        bench.clock.advance_ms(1_000);
        assert_eq!(bench.evaluate().await, events, "at {charged}");
        assert_eq!(bench.evaluate().await, 0, "again at {charged}");
    }
    assert_eq!(bench.kinds().await, ["quota.warning", "quota.critical"]);
    // Another metric, at once beyond both.
    bench.spend(Metric::AiRequests, 1_000).await;
    assert_eq!(bench.evaluate().await, 2);
}

async fn an_event_tells_its_figures_and_whom(on: Backend) {
    let bench = Bench::new(on).await;
    bench
        .put(json!({
            "quota_alerts": {"api_calls": {
                "warning_threshold": 80.25,
                "notification_channels": ["email", "webhook"],
                "recipients": ["ops@acme.example"],
            }},
            "defaults": {"webhook_url": "https://acme.example/hook"},
        }))
        .await;
    bench.spend(Metric::ApiCalls, 803).await;
    assert_eq!(bench.evaluate().await, 1);
    let [event] = &bench.events().await[..] else { panic!("one event") };
    assert_eq!(
        Value::from(event.payload.clone()),
        json!({
            "tenant_id": bench.tenant,
            "metric": "api_calls",
            "used": 803,
            "limit": 1000,
            "percent": 80.3,
            "threshold": 80.25,
            "window": {"start": "2024-01-01T00:00:00Z", "end": "2024-02-01T00:00:00Z"},
            "occurred_at": "2024-01-15T10:30:00Z",
        })
    );
    let told: Vec<_> = event
        .deliveries
        .iter()
        .map(|delivery| (delivery.channel.as_str(), delivery.target.as_str()))
        .collect();
    assert_eq!(told, [("email", "ops@acme.example"), ("webhook", "https://acme.example/hook")]);
    assert_eq!(event.id.get_version_num(), 7);
}

async fn a_new_window_and_another_limit_arm_again(on: Backend) {
    let bench = Bench::new(on).await;
    bench.put(watching(&["ai_requests"])).await;
    bench.spend(Metric::AiRequests, 900).await;
    assert_eq!(bench.evaluate().await, 1);
    bench.clock.advance_ms(DAY_MS);
    assert_eq!(bench.evaluate().await, 0, "a new day, nothing spent");
    bench.spend(Metric::AiRequests, 900).await;
    assert_eq!(bench.evaluate().await, 1);
    bench.clock.advance_ms(SETTLED_MS);
    let patch = TenantPatch { plan: Some("large".to_owned()), ..TenantPatch::default() };
    bench.store.patch_tenant(&Actor::Program, bench.tenant, patch, None).await.expect("a patch");
    assert_eq!(bench.evaluate().await, 0, "900 of 2,000");
    bench.spend(Metric::AiRequests, 1_600).await;
    assert_eq!(bench.evaluate().await, 1);
    let limits: Vec<_> = bench
        .events()
        .await
        .iter()
        .filter_map(|event| event.payload.get("limit").cloned())
        .collect();
    assert_eq!(limits, [1_000, 1_000, 2_000]);
}

async fn a_level_arms_again_when_it_falls_clearly_below(on: Backend) {
    let bench = Bench::new(on).await;
    bench.put(watching(&["storage"])).await;
    let mut told = Vec::new();
    for level in [800, 799, 800, 750, 800, 749, 799, 800] {
        bench.level(Metric::Storage, level).await;
        told.push(bench.evaluate().await);
    }
    assert_eq!(told, [1, 0, 0, 0, 0, 0, 0, 1]);
    bench.clock.advance_ms(40 * DAY_MS);
    assert_eq!(bench.evaluate().await, 0, "a level has no window");
    let events = bench.events().await;
    assert!(events.iter().all(|event| event.payload["window"].is_null()), "{events:?}");
}

async fn what_nobody_watches_makes_no_event(on: Backend) {
    let bench = Bench::new(on).await;
    bench.spend(Metric::ApiCalls, 1_000).await;
    bench.level(Metric::Users, 1_000).await;
    assert_eq!(bench.evaluate().await, 0, "nothing was ever put");
    bench.put(watching(&["users"])).await;
    assert_eq!(bench.evaluate().await, 2);
    bench.put(json!({"quota_alerts": {}, "defaults": {"warning_threshold": 1}})).await;
    bench.clock.advance_ms(DAY_MS);
    assert_eq!(bench.store.evaluate_alerts(&bench.catalog).await.expect("one").tenants, 0);
    // Watched once more, it is where it was: above, and told.
    bench.put(watching(&["users"])).await;
    assert_eq!(bench.evaluate().await, 0);
    let unknown = Catalog::default();
    bench.put(watching(&["api_calls"])).await;
    let done = bench.store.evaluate_alerts(&unknown).await.expect("an evaluation");
    assert_eq!((done.tenants, done.events), (1, 0), "a plan that is not declared has no limits");
}

async fn consumption_is_that_of_the_month_from_the_tenants_own_day_on(on: Backend) {
    let bench = Bench::new(on).await;
    bench.put(watching(&["api_calls"])).await;
    let patch = TenantPatch { quota_anchor_day: Some(20), ..TenantPatch::default() };
    let by = Actor::Program;
    bench.store.patch_tenant(&by, bench.tenant, patch, None).await.expect("a change");
    bench.spend(Metric::ApiCalls, 800).await;
    assert_eq!(bench.evaluate().await, 1, "the calendar month that was there");
    let anchor = Anchor::default().moved(20, bench.now()).expect("an anchor");
    for windows in 1..4 {
        let present = anchor.month(bench.now()).expect("a month");
        bench.clock.advance_ms(present.end.ms_since(bench.now()));
        assert_eq!(bench.evaluate().await, 0, "nothing is used after {windows}");
        bench.spend_in(anchor.month(bench.now()).expect("a month"), Metric::ApiCalls, 800).await;
        assert_eq!(bench.evaluate().await, 1, "window {windows}");
    }
}

async fn consumption_is_what_the_authority_has_charged(on: Backend) {
    let bench = Bench::new(on).await;
    bench.put(watching(&["api_calls"])).await;
    let holder = HolderId::random();
    let boot = BootId(Uuid::new_v4());
    let store = &bench.store;
    store.register(Holder { id: holder, edge: "local".into(), boot }).await.expect("registered");
    let window = Window::of(Metric::ApiCalls, NOW, Anchor::default()).expect("a window");
    let key = WindowKey { tenant: bench.tenant, metric: Metric::ApiCalls, window };
    let (mut latest, mut number, mut told) = (0, 0, 0);
    loop {
        let fence = Fence::Holder(holder);
        let request =
            OpenRequest { key, fence, latest, limit: 1_000, above: None, rate_per_s: 100 };
        let opening = store.open(holder, vec![request]).await.expect("an answer").remove(0);
        let Opening::Opened(permit) = opening else { break };
        latest += 1;
        let tranche = permit.tranche();
        // Handed out, not spent: nothing is charged for it.
        let before = store.accounts(vec![key]).await.expect("one")[0].expect("a window").charged;
        told += bench.evaluate().await;
        number += 1;
        let of = EpochRef { key, epoch: latest };
        let (spent, refunded, sealed) = (tranche, 0, true);
        let lease = LeaseReport { of, tranche, lease: 1, spent, refunded, sealed };
        let report = report_of(holder, number, vec![lease]);
        store.report(report).await.expect("an answer");
        let charged = store.accounts(vec![key]).await.expect("one")[0].expect("a window").charged;
        assert_eq!(charged, before + tranche);
        told += bench.evaluate().await;
        let expected = u64::from(charged >= 800) + u64::from(charged >= 950);
        assert_eq!(told, expected, "at {charged}");
    }
    assert_eq!(told, 2, "the whole quota was spent");
}

async fn many_tenants_are_looked_at_in_pages(on: Backend) {
    let bench = Bench::new(on).await;
    bench.put(watching(&["users"])).await;
    for slug in ["two", "three", "four", "five"] {
        let other = tenant(&bench.store, slug).await;
        let settings = serde_json::from_value(watching(&["users"])).expect("settings");
        bench.store.put_alerts(&Actor::Program, other, settings, None).await.expect("a put");
        bench.clock.advance_ms(1);
    }
    bench.level(Metric::Users, 1_000).await;
    for (page, events) in [(2, 2), (1, 0), (5, 0), (6, 0)] {
        let done = bench.store.evaluate_in_pages(&bench.catalog, page).await.expect("pages");
        assert_eq!((done.tenants, done.events), (5, events), "pages of {page}");
    }
}

async fn a_tenant_that_cannot_be_read_keeps_no_other_waiting(on: Backend) {
    let bench = Bench::new(on).await;
    let broken = tenant(&bench.store, "broken").await;
    for (id, document) in [(broken, "{"), (bench.tenant, r#"{"quota_alerts":{"users":{}}}"#)] {
        let mut tx = bench.store.db.tenant(id, Purpose::Write).await.expect("one");
        let put =
            sql("INSERT INTO alert_settings (tenant_id, document, watches, version, updated_at)
             VALUES ($1, $2, 1, 1, 0)")
            .bind(id.0)
            .bind(document)
            .execute(&mut tx)
            .await;
        tx.end(put).await.expect("settings");
    }
    bench.level(Metric::Users, 800).await;
    for page in [1, 2] {
        let done = bench.store.evaluate_in_pages(&bench.catalog, page).await.expect("pages");
        assert_eq!((done.tenants, done.events), (2, 2 - u64::from(page)));
    }
}

async fn a_pool_above_replaces_the_limit_of_the_plan(on: Backend) {
    let bench = Bench::new(on).await;
    let child = NewTenant { parent: Some(bench.tenant), ..new("child") };
    let child = bench.store.create_tenant(&Actor::Program, child).await.expect("a child").id;
    let share = Share { guaranteed: 0, max: 100 * BYTES_PER_MB };
    let shares = Some(vec![("child".to_owned(), share)]);
    let pool = NewPool { total: 500 * BYTES_PER_MB, shares };
    let pools = BTreeMap::from([(Metric::Storage, pool)]);
    let put = bench.store.put_pools(&Actor::Program, bench.tenant, &pools, &bench.catalog, None);
    put.await.expect("a pool");
    let settings = serde_json::from_value(watching(&["storage"])).expect("settings");
    bench.store.put_alerts(&Actor::Program, child, settings, None).await.expect("a put");
    let bytes = |bytes| BTreeMap::from([(Metric::Storage, bytes)]);
    for (level, events) in [(80 * BYTES_PER_MB - 1, 0), (80 * BYTES_PER_MB, 1)] {
        let levels = bytes(level);
        bench.store.put_levels(&Actor::Program, child, &levels).await.expect("levels");
        assert_eq!(bench.evaluate().await, events, "at {level}");
    }
    let page = bench.store.events(child, None, 1).await.expect("events");
    let payload = &page.events[0].payload;
    assert_eq!((&payload["used"], &payload["limit"]), (&json!(80), &json!(100)), "in MB");
}

async fn settings_are_put_as_a_whole_under_a_version(on: Backend) {
    let bench = Bench::new(on).await;
    let alerts = |tenant| bench.store.alerts(tenant);
    assert_eq!(alerts(bench.tenant).await.expect("none yet").version, 0);
    bench.put(watching(&["users", "storage"])).await;
    bench.put(watching(&["projects"])).await;
    let stored = alerts(bench.tenant).await.expect("settings");
    assert_eq!(stored.version, 2);
    assert_eq!(stored.settings.quota_alerts.keys().collect::<Vec<_>>(), [&Metric::Projects]);
    assert_eq!((stored.secrets.len(), stored.gone.len()), (0, 0));
    let settings = || stored.settings.clone();
    let stale = bench.store.put_alerts(&Actor::Program, bench.tenant, settings(), Some(1)).await;
    assert!(matches!(stale, Err(ChangeError::VersionMismatch { current: 2 })), "{stale:?}");
    assert_eq!(alerts(bench.tenant).await.expect("settings"), stored);
    bench
        .store
        .put_alerts(&Actor::Program, bench.tenant, settings(), Some(2))
        .await
        .expect("a put");
    let nobody = TenantId(Uuid::nil());
    assert!(matches!(alerts(nobody).await, Err(ChangeError::NotFound)));
    let refused = bench.store.put_alerts(&Actor::Program, nobody, settings(), None).await;
    assert!(matches!(refused, Err(ChangeError::NotFound)));
}

async fn the_first_webhook_makes_a_secret_and_a_rotation_keeps_the_one_before_for_a_day(
    on: Backend,
) {
    let bench = Bench::new(on).await;
    let settings: AlertSettings = serde_json::from_value(json!({
        "quota_alerts": {"users": {"webhook_url": "https://a.example/"}}
    }))
    .expect("settings");
    let put = |settings| bench.store.put_alerts(&Actor::Program, bench.tenant, settings, None);
    let first = put(settings.clone()).await.expect("a put").secret.expect("a secret");
    assert!(first.expose().starts_with("whsec_") && first.expose().len() == 6 + 44);
    assert_eq!(put(settings).await.expect("a put").secret, None, "it is shown once");
    let rotate = || bench.store.rotate_webhook_secret(&Actor::Program, bench.tenant);
    let second = rotate().await.expect("a secret");
    assert_eq!(second.previous_expires_at, Some(NOW.plus_ms(SECRET_GRACE_MS)));
    let live = async || {
        let mut tx = bench.store.db.control(Purpose::Read).await.expect("a transaction");
        let live =
            super::live_secrets(&mut tx, &bench.store.sealer, bench.tenant, bench.now()).await;
        tx.end(live).await.expect("secrets")
    };
    assert_eq!(live().await, [second.text.clone(), first.clone()]);
    bench.clock.advance_ms(SECRET_GRACE_MS - 1);
    assert_eq!(live().await.len(), 2);
    let third = rotate().await.expect("a secret");
    assert_eq!(live().await, [third.text.clone(), second.text], "two at most");
    bench.clock.advance_ms(SECRET_GRACE_MS);
    assert_eq!(live().await, [third.text]);
    let listed = bench.store.alerts(bench.tenant).await.expect("alerts").secrets;
    assert_eq!(listed.iter().map(|secret| secret.expires_at).collect::<Vec<_>>(), [None]);
}

async fn an_event_is_there_only_if_what_it_tells_of_is(on: Backend) {
    let bench = Bench::new(on).await;
    bench.put(json!({"quota_alerts": {}, "defaults": {"notification_channels": ["email"]}})).await;
    for commits in [false, true] {
        let mut tx = bench.store.db.tenant(bench.tenant, Purpose::Write).await.expect("one");
        let payload = serde_json::Map::from_iter([("plan".to_owned(), json!("large"))]);
        let id = outbox::insert(&mut tx, bench.tenant, EventKind::PlanChanged, payload, NOW).await;
        let id = id.expect("an insert").expect("an event");
        let ended: Result<(), _> =
            tx.end(if commits { Ok(()) } else { Err(StoreError::Failed) }).await;
        assert_eq!(ended.is_ok(), commits);
        let events = bench.events().await;
        assert_eq!(events.len(), usize::from(commits));
        if let [event] = &events[..] {
            assert_eq!((event.id, event.kind.as_str()), (id, "tenant.plan_changed"));
            assert_eq!(event.payload["plan"], "large");
            assert_eq!(event.deliveries[0].target, "admin@acme.example");
        }
    }
    // Another tenant's transaction neither sees it nor may add to it.
    let other = tenant(&bench.store, "other").await;
    assert_eq!(bench.store.events(other, None, 10).await.expect("events").events, []);
}

async fn old_events_are_forgotten_and_not_told_again(on: Backend) {
    let bench = Bench::new(on).await;
    bench.put(watching(&["storage", "ai_requests"])).await;
    bench.level(Metric::Storage, 800).await;
    assert_eq!(bench.evaluate().await, 1);
    bench.clock.advance_ms(91 * DAY_MS);
    bench.spend(Metric::AiRequests, 800).await;
    assert_eq!(bench.evaluate().await, 1);
    let [kept] = &bench.events().await[..] else { panic!("one event") };
    assert_eq!(kept.payload["metric"], "ai_requests");
    assert_eq!(bench.evaluate().await, 0, "storage is still above, and was told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_look_at_once_tell_once() {
    let bench = Bench::new(Backend::Postgres).await;
    bench.put(watching(&["api_calls", "storage", "users"])).await;
    let stores = join_all((0..3).map(|_| bench.another())).await;
    for round in 0..10_u64 {
        let level = if round % 2 == 0 { 960 } else { 10 };
        bench.level(Metric::Storage, level).await;
        bench.level(Metric::Users, level).await;
        bench.spend(Metric::ApiCalls, 1_000).await;
        let looks = stores.iter().cycle().take(9);
        let looks = looks.map(|store| store.evaluate_alerts(&bench.catalog));
        for look in join_all(looks).await {
            look.expect("an evaluation");
        }
        // A tenant that another process had just then is looked at again a second later.
        bench.evaluate().await;
    }
    let events = bench.events().await;
    let of = |metric: &str| events.iter().filter(|event| event.payload["metric"] == metric).count();
    assert_eq!((of("api_calls"), of("storage"), of("users")), (2, 10, 10));
    let ids: BTreeSet<_> = events.iter().map(|event| event.id).collect();
    assert_eq!(ids.len(), events.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_whose_rows_are_held_keeps_no_other_waiting() {
    let bench = Bench::new(Backend::Postgres).await;
    let mut tenants = [bench.tenant, tenant(&bench.store, "two").await];
    tenants.sort();
    for one in tenants {
        let settings = serde_json::from_value(watching(&["users"])).expect("settings");
        bench.store.put_alerts(&Actor::Program, one, settings, None).await.expect("a put");
        let levels = BTreeMap::from([(Metric::Users, 800)]);
        bench.store.put_levels(&Actor::Program, one, &levels).await.expect("levels");
    }
    let told = async |one| bench.store.events(one, None, 10).await.expect("events").events.len();
    let [held, next] = tenants;
    let mut holder = bench.store.db.control(Purpose::Write).await.expect("a transaction");
    sql("INSERT INTO alert_state (tenant_id, metric, window_start, limit_value, limit_version,
             limit_since, warning_fired, warning_round, critical_fired, critical_round)
         VALUES ($1, 'users', 0, 1, 1, 0, 0, 0, 0, 0)")
    .bind(held.0)
    .execute(&mut holder)
    .await
    .expect("a row");
    let done = bench.store.evaluate_alerts(&bench.catalog).await;
    assert!(matches!(done, Err(StoreError::Database(_))), "{done:?}");
    assert_eq!((told(held).await, told(next).await), (0, 1));
    let undone: Result<(), _> = holder.end(Err(StoreError::Failed)).await;
    undone.expect_err("undone");
    assert_eq!(bench.evaluate().await, 1);
    assert_eq!((told(held).await, told(next).await), (1, 1));
}
