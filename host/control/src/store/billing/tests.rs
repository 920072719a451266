use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::join_all;
use model::{
    anchor::Anchor,
    billing::{Consolidation, Period, Share, Shares},
    catalog::Catalog,
    clock::{ManualClock, UnixMs},
    plan::Plan,
    tenant::{Status, TenantId},
    window::Window,
};
use serde_json::json;
use uuid::Uuid;

use super::{Bill, BillingError, InvoiceError};
use crate::{
    Store,
    store::{
        Actor, MoveError, NewTenant, StatusChange, TenantPatch,
        db::{Purpose, sql},
    },
    testing::{Backend, Database, NEW_YEAR, on_both},
};

on_both![
    the_guides_family_is_billed_to_the_cent,
    settings_come_into_force_when_they_say_and_stay_on_record,
    settings_in_the_past_or_for_strangers_are_refused,
    nobody_leaves_a_consolidation_that_bills_them,
    a_month_is_billed_by_its_last_instant,
    a_dated_change_of_plan_counts_from_its_month_on,
    without_consolidation_everybody_pays_for_themselves,
    of_two_consolidations_above_one_another_the_topmost_bills,
    an_issued_invoice_stays_as_it_is,
    numbers_are_consecutive_whoever_issues_at_once,
    usage_is_billed_by_the_ledger,
    every_window_is_in_the_invoice_of_the_month_in_which_it_ends,
    what_cannot_be_priced_is_no_invoice,
];

const DAY_MS: u64 = 86_400_000;

struct World {
    store: Arc<Store>,
    clock: Arc<ManualClock>,
    catalog: Arc<Catalog>,
    _database: Database,
}

fn plan(name: &str, price: serde_json::Value) -> (String, Arc<Plan>) {
    let plan = json!({
        "name": name,
        "quotas": {
            "max_users": 1, "max_projects": 1, "max_api_calls_per_month": 1,
            "max_storage_mb": 1, "max_ai_requests_per_day": 1, "max_concurrent_sessions": 1,
        },
        "price": price,
    });
    (name.to_owned(), Arc::new(serde_json::from_value(plan).expect("a plan")))
}

/// Prices that make a parent with three children owe 100.01.
fn catalog() -> Catalog {
    Catalog {
        plan_versions: BTreeMap::new(),
        plans: BTreeMap::from([
            plan("odd", json!({"currency": "USD", "monthly_minor": 5_001})),
            plan("even", json!({"currency": "USD", "monthly_minor": 2_500})),
            plan("free", json!(null)),
            plan("euro", json!({"currency": "EUR", "monthly_minor": 1})),
            plan("metered", json!({"currency": "USD", "per_1000_api_calls_minor": 10})),
        ]),
        ..Catalog::default()
    }
}

impl World {
    /// Sets what is charged in a window.
    async fn spend(&self, tenant: TenantId, window: Window, calls: i64) {
        let mut tx = self.store.db.control(Purpose::Account).await.expect("a transaction");
        let put = sql("INSERT INTO quota_window (tenant_id, metric, start_ms, end_ms,
                 limit_version, limit_tokens, limit_high, granted, credited)
             VALUES ($1, 'api_calls', $2, $3, 1, 100000, 100000, $4, 50)")
        .bind(tenant.0)
        .bind(i64::try_from(window.start.0).expect("in range"))
        .bind(i64::try_from(window.end.0).expect("in range"))
        .bind(calls + 50)
        .execute(&mut tx)
        .await;
        tx.end(put).await.expect("a window");
    }

    async fn new(on: Backend) -> Self {
        let database = on.database();
        let clock = Arc::new(ManualClock::at(NEW_YEAR));
        let store = Store::open(&database.url(), Arc::clone(&clock) as _).await.expect("a store");
        Self { store, clock, catalog: Arc::new(catalog()), _database: database }
    }

    /// An active tenant.
    async fn tenant(&self, slug: &str, plan: &str, parent: Option<TenantId>) -> TenantId {
        let new = NewTenant {
            slug: slug.parse().expect("a slug"),
            organization_name: slug.to_owned(),
            display_name: None,
            admin_email: "a@b.example".to_owned(),
            plan: plan.to_owned(),
            data_residency: Some("eu".to_owned()),
            home_region: None,
            parent,
            quota_anchor: None,
        };
        let id = self.store.create_tenant(&Actor::Program, new).await.expect("a tenant").id;
        self.set_status(id, Status::Active).await;
        id
    }

    async fn set_status(&self, id: TenantId, status: Status) {
        let status = Some(StatusChange::To(status, None));
        let patch = TenantPatch { status, ..TenantPatch::default() };
        self.store.patch_tenant(&Actor::Program, id, patch, None).await.expect("a patch");
    }

    async fn set_plan(&self, id: TenantId, plan: &str) {
        let patch = TenantPatch { plan: Some(plan.to_owned()), ..TenantPatch::default() };
        self.store.patch_tenant(&Actor::Program, id, patch, None).await.expect("a patch");
    }

    /// A parent with three children, whose bills sum to 100.01.
    async fn family(&self) -> [TenantId; 4] {
        let parent = self.tenant("parent", "odd", None).await;
        let one = self.tenant("child-1", "even", Some(parent)).await;
        let two = self.tenant("child-2", "even", Some(parent)).await;
        [parent, one, two, self.tenant("child-3", "free", Some(parent)).await]
    }

    async fn consolidate(&self, parent: TenantId, shares: &[(TenantId, u32)]) {
        self.store
            .set_billing(&Actor::Program, parent, by(shares), None, None)
            .await
            .expect("settings");
    }

    async fn bill(&self, tenant: TenantId, month: &str) -> Bill {
        let bill = self.store.bill(tenant, period(month), &self.catalog).await;
        bill.expect("a bill")
    }

    async fn refusal(&self, tenant: TenantId, month: &str) -> InvoiceError {
        let bill = self.store.bill(tenant, period(month), &self.catalog).await;
        bill.expect_err("a refusal")
    }

    async fn issue(&self, tenant: TenantId, month: &str) -> Result<(Bill, bool), InvoiceError> {
        let catalog = Arc::clone(&self.catalog);
        self.store.issue_invoice(&Actor::Program, tenant, period(month), catalog).await
    }
}

fn period(month: &str) -> Period {
    month.parse().expect("a month")
}

fn by(shares: &[(TenantId, u32)]) -> Consolidation {
    let share = |(tenant, points): &(TenantId, u32)| Share {
        tenant: *tenant,
        basis_points: (*points).try_into().expect("in range"),
    };
    Consolidation {
        shares: Some(Shares::new(shares.iter().map(share).collect()).expect("a whole")),
        consolidated_invoicing: true,
        shared_quotas: false,
    }
}

fn lines(bill: &Bill) -> Vec<(TenantId, u64)> {
    bill.invoice.lines.iter().map(|line| (line.tenant, line.amount_minor)).collect()
}

async fn the_guides_family_is_billed_to_the_cent(on: Backend) {
    let world = World::new(on).await;
    let [parent, one, two, three] = world.family().await;
    world.consolidate(parent, &[(one, 4_000), (two, 3_500), (three, 2_500)]).await;
    let bill = world.bill(parent, "2024-01").await;
    assert_eq!((bill.invoice.total_minor, bill.issued), (10_001, None));
    assert_eq!(lines(&bill), [(one, 4_001), (two, 3_500), (three, 2_500)]);
    assert_eq!(bill.invoice.charges.len(), 4);
    assert_eq!(bill.invoice.charges[0].tenant, parent);
    assert_eq!(world.bill(two, "2024-01").await, bill, "a child's bill is the parent's");
}

async fn settings_come_into_force_when_they_say_and_stay_on_record(on: Backend) {
    let world = World::new(on).await;
    let [parent, one, two, _] = world.family().await;
    let (now, later) = (by(&[(one, 10_000)]), by(&[(two, 10_000)]));
    world
        .store
        .set_billing(&Actor::Program, parent, now.clone(), None, None)
        .await
        .expect("settings");
    let february = NEW_YEAR.plus_ms(45 * DAY_MS);
    let set =
        world.store.set_billing(&Actor::Program, parent, later.clone(), Some(february), None).await;
    let set = set.expect("settings");
    assert_eq!(set.current.expect("some").consolidation, now);
    assert_eq!(set.upcoming[0].consolidation, later);
    assert_eq!(lines(&world.bill(parent, "2024-01").await), [(one, 10_001)]);
    world.clock.advance_ms(31 * DAY_MS);
    // By what is known today, the month ends under the new settings.
    assert_eq!(lines(&world.bill(parent, "2024-02").await), [(two, 10_001)]);
    world.clock.advance_ms(14 * DAY_MS);
    let found = world.store.billing(parent).await.expect("settings");
    assert_eq!(found.current.expect("some").effective_from, february);
    assert_eq!(found.past[0].consolidation, now);
    assert_eq!(lines(&world.bill(parent, "2024-01").await), [(one, 10_001)]);
}

async fn settings_in_the_past_or_for_strangers_are_refused(on: Backend) {
    let world = World::new(on).await;
    let [parent, one, ..] = world.family().await;
    let stranger = world.tenant("stranger", "odd", None).await;
    let past = Some(UnixMs(NEW_YEAR.0 - 1));
    let refused =
        world.store.set_billing(&Actor::Program, parent, by(&[(one, 10_000)]), past, None).await;
    assert!(matches!(refused, Err(BillingError::Past { now }) if now == NEW_YEAR));
    let strange = by(&[(one, 5_000), (stranger, 5_000)]);
    let refused = world.store.set_billing(&Actor::Program, parent, strange, None, None).await;
    assert!(matches!(refused, Err(BillingError::Outside(who)) if who == [stranger]));
    let upwards =
        world.store.set_billing(&Actor::Program, one, by(&[(parent, 10_000)]), None, None).await;
    assert!(matches!(upwards, Err(BillingError::Outside(_))));
    let nobody = TenantId(Uuid::from_u128(7));
    let refused =
        world.store.set_billing(&Actor::Program, nobody, by(&[(nobody, 10_000)]), None, None).await;
    assert!(matches!(refused, Err(BillingError::NotFound)));
    assert_eq!(world.store.billing(parent).await.expect("settings").current, None);
    world.consolidate(parent, &[(parent, 10_000)]).await;
}

async fn nobody_leaves_a_consolidation_that_bills_them(on: Backend) {
    let world = World::new(on).await;
    let [parent, one, two, three] = world.family().await;
    let below = world.tenant("below", "free", Some(one)).await;
    world.consolidate(parent, &[(below, 10_000)]).await;
    let refused =
        world.store.move_tenant(&Actor::Program, one, None, None).await.expect_err("a refusal");
    assert!(
        matches!(refused, MoveError::Billed { by, bears } if by == parent && bears == below),
        "{refused}"
    );
    world
        .store
        .move_tenant(&Actor::Program, below, Some(two), None)
        .await
        .expect("still in the family");
    world.store.move_tenant(&Actor::Program, three, None, None).await.expect("has no share");
    // Out of it from tomorrow on: so it may leave only then.
    let tomorrow = NEW_YEAR.plus_ms(DAY_MS);
    let without = by(&[(parent, 10_000)]);
    world
        .store
        .set_billing(&Actor::Program, parent, without, Some(tomorrow), None)
        .await
        .expect("settings");
    assert!(world.store.move_tenant(&Actor::Program, below, None, None).await.is_err());
    world.clock.advance_ms(DAY_MS);
    world.store.move_tenant(&Actor::Program, below, None, None).await.expect("no share any more");
}

async fn a_month_is_billed_by_its_last_instant(on: Backend) {
    let world = World::new(on).await;
    let [parent, one, two, three] = world.family().await;
    world.consolidate(parent, &[(parent, 10_000)]).await;
    world.clock.advance_ms(31 * DAY_MS);
    let january = world.bill(parent, "2024-01").await;
    world.set_plan(one, "odd").await;
    world.set_status(two, Status::Suspended).await;
    world.store.move_tenant(&Actor::Program, three, None, None).await.expect("a move");
    world.set_plan(three, "odd").await;
    let newcomer = world.tenant("newcomer", "even", Some(one)).await;
    assert_eq!(world.bill(parent, "2024-01").await, january);
    let february = world.bill(parent, "2024-02").await;
    let charged: BTreeMap<_, _> =
        february.invoice.charges.iter().map(|c| (c.tenant, c.total_minor())).collect();
    let expected = [(parent, 5_001), (one, 5_001), (two, 0), (newcomer, 2_500)];
    assert_eq!(charged, BTreeMap::from(expected));
    assert_eq!(february.invoice.total_minor, 12_502);
    assert_eq!(world.bill(three, "2024-01").await.invoice.payer, parent);
    assert_eq!(world.bill(three, "2024-02").await.invoice.payer, three);
}

async fn a_dated_change_of_plan_counts_from_its_month_on(on: Backend) {
    let world = World::new(on).await;
    let tenant = world.tenant("acme", "even", None).await;
    let (by, store) = (Actor::Program, &world.store);
    let at = NEW_YEAR.plus_ms(40 * DAY_MS);
    store.schedule_plan_change(&by, tenant, "odd".to_owned(), at).await.expect("a change");
    world.clock.advance_ms(40 * DAY_MS);
    store.settle(&by, tenant, Arc::clone(&world.catalog)).await.expect("settled");
    assert_eq!(world.bill(tenant, "2024-01").await.invoice.total_minor, 2_500);
    assert_eq!(world.bill(tenant, "2024-02").await.invoice.total_minor, 5_001);
}

async fn without_consolidation_everybody_pays_for_themselves(on: Backend) {
    let world = World::new(on).await;
    let [parent, one, two, _] = world.family().await;
    let apart = Consolidation { consolidated_invoicing: false, ..by(&[(one, 10_000)]) };
    world.store.set_billing(&Actor::Program, parent, apart, None, None).await.expect("settings");
    for (tenant, minor) in [(parent, 5_001), (one, 2_500), (two, 2_500)] {
        let bill = world.bill(tenant, "2024-01").await;
        assert_eq!((bill.invoice.payer, bill.invoice.total_minor), (tenant, minor));
        assert_eq!(lines(&bill), [(tenant, minor)]);
    }
    let trial = NewTenant {
        slug: "trial".parse().expect("a slug"),
        organization_name: "Trial".to_owned(),
        display_name: None,
        admin_email: "a@b.example".to_owned(),
        plan: "odd".to_owned(),
        data_residency: Some("eu".to_owned()),
        home_region: None,
        parent: None,
        quota_anchor: None,
    };
    let trial = world.store.create_tenant(&Actor::Program, trial).await.expect("a tenant").id;
    assert_eq!(world.bill(trial, "2024-01").await.invoice.total_minor, 0, "a trial is free");
}

async fn of_two_consolidations_above_one_another_the_topmost_bills(on: Backend) {
    let world = World::new(on).await;
    let [parent, one, ..] = world.family().await;
    let below = world.tenant("below", "even", Some(one)).await;
    world.consolidate(one, &[(below, 10_000)]).await;
    assert_eq!(world.bill(below, "2024-01").await.invoice.payer, one);
    assert_eq!(lines(&world.bill(one, "2024-01").await), [(below, 5_000)]);
    world.consolidate(parent, &[(one, 10_000)]).await;
    let bill = world.bill(below, "2024-01").await;
    assert_eq!((bill.invoice.payer, bill.invoice.total_minor), (parent, 12_501));
}

async fn an_issued_invoice_stays_as_it_is(on: Backend) {
    let mut world = World::new(on).await;
    let [parent, one, two, _] = world.family().await;
    world.consolidate(parent, &[(one, 6_000), (two, 4_000)]).await;
    let open = world.issue(parent, "2024-01").await.expect_err("an open month");
    assert!(matches!(open, InvoiceError::Open { end } if end == NEW_YEAR.plus_ms(31 * DAY_MS)));
    world.clock.advance_ms(31 * DAY_MS);
    let child = world.issue(one, "2024-01").await.expect_err("the parent pays");
    assert!(matches!(child, InvoiceError::BilledTo(payer) if payer == parent));
    let (issued, now) = world.issue(parent, "2024-01").await.expect("an invoice");
    let number = issued.issued.expect("issued");
    assert!(now && number.number == 1 && number.at == NEW_YEAR.plus_ms(31 * DAY_MS));
    assert_eq!(lines(&issued), [(one, 6_001), (two, 4_000)]);
    world.clock.advance_ms(DAY_MS);
    let mut dearer = catalog();
    dearer.plans.extend([plan("odd", json!({"currency": "EUR", "monthly_minor": 999_999}))]);
    dearer.plans.remove("even");
    world.catalog = Arc::new(dearer);
    assert_eq!(world.bill(parent, "2024-01").await, issued);
    assert_eq!(world.issue(parent, "2024-01").await.expect("found"), (issued, false));
    for change in ["UPDATE invoice SET document = '{}'", "DELETE FROM invoice"] {
        let mut tx = world.store.db.control(Purpose::Change).await.expect("a transaction");
        sql(change).execute(&mut tx).await.expect_err(change);
    }
}

async fn numbers_are_consecutive_whoever_issues_at_once(on: Backend) {
    let world = World::new(on).await;
    let ids = world.family().await;
    world.clock.advance_ms(31 * DAY_MS);
    let issues = (0..12).map(|at| world.issue(ids[at % 4], "2024-01"));
    let issued: Vec<_> = join_all(issues).await.into_iter().map(|i| i.expect("one")).collect();
    let mut numbers: Vec<_> =
        issued.iter().filter_map(|(bill, now)| now.then_some(bill.issued?.number)).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3, 4]);
    for id in ids {
        let of: Vec<_> = issued.iter().filter(|(bill, _)| bill.invoice.payer == id).collect();
        assert_eq!(of.len(), 3);
        assert!(of.iter().all(|(bill, _)| *bill == of[0].0));
    }
}

async fn every_window_is_in_the_invoice_of_the_month_in_which_it_ends(on: Backend) {
    let world = World::new(on).await;
    let tenant = world.tenant("metered", "metered", None).await;
    let mut anchor = Anchor::on(15).expect("an anchor");
    // A change in January: a short window from 2024-02-15 to 2024-02-28.
    anchor = anchor.moved(28, NEW_YEAR.plus_ms(20 * DAY_MS)).expect("an anchor");
    let mut window = anchor.month(NEW_YEAR).expect("a window");
    for calls in [1_000, 2_000, 4_000, 8_000, 16_000] {
        world.spend(tenant, window, calls).await;
        window = anchor.month(window.end).expect("a window");
    }
    world.clock.advance_ms(150 * DAY_MS);
    for (month, calls) in [
        ("2024-01", 1_000),
        ("2024-02", 2_000 + 4_000),
        ("2024-03", 8_000),
        ("2024-04", 16_000),
        ("2024-05", 0),
    ] {
        let charge = &world.bill(tenant, month).await.invoice.charges[0];
        assert_eq!(charge.api_calls, calls, "{month}");
    }
}

async fn usage_is_billed_by_the_ledger(on: Backend) {
    let world = World::new(on).await;
    let tenant = world.tenant("metered", "metered", None).await;
    assert_eq!(world.bill(tenant, "2024-01").await.invoice.total_minor, 0);
    world.spend(tenant, period("2024-01").window(), 85_050).await;
    let charge = &world.bill(tenant, "2024-01").await.invoice.charges[0];
    assert_eq!((charge.api_calls, charge.usage_minor, charge.plan_minor), (85_050, 851, 0));
}

async fn what_cannot_be_priced_is_no_invoice(on: Backend) {
    let mut world = World::new(on).await;
    let [parent, one, ..] = world.family().await;
    assert!(matches!(world.refusal(parent, "2023-12").await, InvoiceError::NotThere));
    assert!(matches!(world.refusal(parent, "2024-02").await, InvoiceError::NotBegun));
    world.consolidate(parent, &[(parent, 10_000)]).await;
    world.set_plan(one, "euro").await;
    assert!(matches!(world.refusal(parent, "2024-01").await, InvoiceError::Currencies(_)));
    world.set_plan(one, "even").await;
    let mut fewer = catalog();
    fewer.plans.remove("even");
    world.catalog = Arc::new(fewer);
    let refused = world.refusal(parent, "2024-01").await;
    assert!(matches!(refused, InvoiceError::Unpriced { plan, .. } if plan == "even"));
}
