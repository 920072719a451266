mod steps;

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::join_all;
use model::{
    catalog::Catalog,
    clock::ManualClock,
    pool::Bound,
    quota::{BYTES_PER_MB, Metric},
    reservation::{Amount, Exceeded, Outcome, Wanted},
    tenant::TenantId,
};
use uuid::Uuid;

use crate::{
    store::{
        Actor, Claim, ClaimError, EdgeRun, Held, NewTenant, Reserving, SetAside, SettleError,
        Store, db::Purpose, db::sql,
    },
    testing::{Backend, Database, NEW_YEAR, guide, on_both},
};

on_both![
    what_is_reserved_counts_until_it_is_settled,
    two_uploads_that_fit_only_singly_leave_room_for_one,
    of_fifty_reservations_at_once_for_the_last_user_one_passes,
    a_step_takes_what_is_left_and_no_less_than_is_needed,
    a_reservation_grows_while_there_is_room,
    claims_and_reservations_share_one_limit,
    a_settlement_that_comes_twice_counts_once,
    what_a_lost_edge_reserved_stays_counted_and_is_not_known,
    an_edge_that_starts_again_vouches_for_nothing_of_before,
    a_renewal_keeps_what_lives_and_revives_nothing,
    a_report_ends_what_is_not_known_and_nothing_that_is_under_way,
    the_operator_says_what_became_of_one_and_it_is_audited,
    nobody_reserves_for_a_tenant_that_is_not_there,
];

const TTL_MS: u64 = 30_000;
/// Of the team plan.
const QUOTA: u64 = 10_240 * BYTES_PER_MB;

pub(super) struct Bench {
    stores: Vec<Arc<Store>>,
    clock: Arc<ManualClock>,
    tenant: TenantId,
    catalog: Catalog,
    _database: Database,
}

impl Bench {
    /// A tenant on the team plan (10 users, 10,240 MB), in a store that several processes
    /// have open where they may.
    pub(super) async fn new(on: Backend) -> Self {
        let database = on.database();
        let clock = Arc::new(ManualClock::at(NEW_YEAR));
        let processes = match on {
            Backend::Sqlite => 1,
            Backend::Postgres => 3,
        };
        let mut stores = Vec::new();
        for _ in 0..processes {
            let store = Store::open(&database.url(), Arc::clone(&clock) as _).await;
            stores.push(store.expect("a store"));
        }
        let tenant = tenant(&stores[0], "one", None).await;
        Self { stores, clock, tenant, catalog: guide(), _database: database }
    }

    fn store(&self) -> &Store {
        &self.stores[0]
    }

    async fn put(&self, metric: Metric, level: u64) {
        let facts = BTreeMap::from([(metric, level)]);
        self.store().put_levels(&Actor::Program, self.tenant, &facts).await.expect("levels");
    }

    fn reserving(&self, metric: Metric, amount: Amount) -> Reserving {
        let wanted = Wanted { tenant: self.tenant, metric, amount };
        Reserving { id: Uuid::new_v4(), by: edge(1), wanted, ttl_ms: TTL_MS }
    }

    async fn take(&self, reserving: &Reserving) -> Result<u64, ClaimError> {
        self.store().reserve(reserving, &self.catalog).await
    }

    /// Reserves bytes that there is room for.
    async fn reserved(&self, bytes: u64) -> Held {
        let reserving = self.reserving(Metric::Storage, Amount::exactly(bytes));
        assert_eq!(self.take(&reserving).await.expect("room"), bytes);
        held(&reserving)
    }

    async fn settle(&self, held: Held, outcome: Outcome) -> bool {
        self.store().settle_reservation(held, outcome).await.expect("the store answers")
    }

    async fn renew(&self, by: EdgeRun) -> Vec<Uuid> {
        self.store().renew_reservations(by, TTL_MS).await.expect("the store answers")
    }

    async fn used(&self, metric: Metric) -> u64 {
        let levels = self.store().levels(self.tenant).await.expect("levels");
        levels.get(&metric).copied().unwrap_or(0)
    }

    async fn set_aside(&self, metric: Metric) -> (u64, u64) {
        let sums = self.store().set_aside(self.tenant).await.expect("sums");
        let sum = sums.get(&metric).copied().unwrap_or_default();
        let column = column(self.store(), self.tenant, metric).await;
        assert_eq!(sum.reserved, column, "the level has the sum of its rows");
        let SetAside { reserved, unresolved } = sum;
        (reserved, unresolved)
    }
}

/// What the row of a level says is set aside.
async fn column(store: &Store, tenant: TenantId, metric: Metric) -> u64 {
    let mut tx = store.db.tenant(tenant, Purpose::Read).await.expect("a transaction");
    let row: Option<(i64,)> =
        sql("SELECT reserved FROM usage_level WHERE tenant_id = $1 AND metric = $2")
            .bind(tenant.0)
            .bind(metric.as_str())
            .optional(&mut tx)
            .await
            .expect("a row");
    let row = tx.end(Ok::<_, crate::StoreError>(row)).await.expect("an end");
    u64::try_from(row.map_or(0, |(reserved,)| reserved)).expect("never negative")
}

const fn edge(run: u128) -> EdgeRun {
    EdgeRun { edge: Uuid::from_u128(77), run: Uuid::from_u128(run) }
}

const fn held(reserving: &Reserving) -> Held {
    let Wanted { tenant, metric, .. } = reserving.wanted;
    Held { tenant, metric, id: reserving.id }
}

async fn tenant(store: &Arc<Store>, slug: &str, parent: Option<TenantId>) -> TenantId {
    let new = NewTenant {
        slug: slug.parse().expect("a slug"),
        organization_name: slug.to_owned(),
        display_name: None,
        admin_email: "a@b.example".to_owned(),
        plan: "team".to_owned(),
        data_residency: parent.is_none().then(|| "eu".to_owned()),
        home_region: None,
        quota_anchor: None,
        parent,
    };
    store.create_tenant(&Actor::Program, new).await.expect("a tenant").id
}

fn exceeded(refused: Result<u64, ClaimError>) -> Exceeded {
    match refused {
        Err(ClaimError::Exceeded(why)) => why,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

async fn what_is_reserved_counts_until_it_is_settled(on: Backend) {
    let bench = Bench::new(on).await;
    let first = bench.reserved(700).await;
    let second = bench.reserved(300).await;
    let third = bench.reserved(5).await;
    assert_eq!(bench.set_aside(Metric::Storage).await, (1_005, 0));
    assert_eq!(bench.used(Metric::Storage).await, 0);
    assert!(bench.settle(first, Outcome::Taken(650)).await);
    assert_eq!(bench.set_aside(Metric::Storage).await, (305, 0));
    assert_eq!(bench.used(Metric::Storage).await, 650);
    assert!(bench.settle(second, Outcome::Nothing).await);
    assert!(bench.settle(third, Outcome::Taken(-50)).await, "what is stored may have shrunk");
    assert_eq!(bench.set_aside(Metric::Storage).await, (0, 0));
    assert_eq!(bench.used(Metric::Storage).await, 600);
}

async fn two_uploads_that_fit_only_singly_leave_room_for_one(on: Backend) {
    let bench = Bench::new(on).await;
    bench.put(Metric::Storage, QUOTA - 1_000).await;
    let uploads = [600, 601].map(|bytes| bench.reserving(Metric::Storage, Amount::exactly(bytes)));
    let outcomes = join_all(uploads.iter().map(|upload| bench.take(upload))).await;
    let passed: Vec<_> = outcomes.iter().flatten().copied().collect();
    assert_eq!(passed.len(), 1, "{outcomes:?}");
    let refused = outcomes.into_iter().find(Result::is_err).expect("one is refused");
    let why = exceeded(refused);
    let (used, limit) = (QUOTA - 1_000, QUOTA);
    let metric = Metric::Storage;
    assert_eq!(why, Exceeded { metric, used, reserved: passed[0], limit, by: Bound::Plan });
}

async fn of_fifty_reservations_at_once_for_the_last_user_one_passes(on: Backend) {
    let bench = Bench::new(on).await;
    bench.put(Metric::Users, 9).await;
    let all: Vec<_> = (0..50).map(|_| bench.reserving(Metric::Users, Amount::exactly(1))).collect();
    let taken = join_all(all.iter().enumerate().map(|(n, one)| {
        let store = &bench.stores[n % bench.stores.len()];
        store.reserve(one, &bench.catalog)
    }))
    .await;
    assert_eq!(taken.iter().flatten().count(), 1);
    assert_eq!(bench.set_aside(Metric::Users).await, (1, 0));
}

async fn a_step_takes_what_is_left_and_no_less_than_is_needed(on: Backend) {
    let bench = Bench::new(on).await;
    bench.put(Metric::Storage, QUOTA - 1_000).await;
    let step = |least| bench.reserving(Metric::Storage, Amount { most: 4_096, least });
    let why = exceeded(bench.take(&step(1_001)).await);
    assert_eq!((why.used, why.reserved), (QUOTA - 1_000, 0));
    assert_eq!(bench.take(&step(1)).await.expect("room"), 1_000);
    exceeded(bench.take(&step(1)).await);
    assert_eq!(bench.set_aside(Metric::Storage).await, (1_000, 0));
}

async fn a_reservation_grows_while_there_is_room(on: Backend) {
    let bench = Bench::new(on).await;
    bench.put(Metric::Storage, QUOTA - 1_000).await;
    let upload = bench.reserved(400).await;
    let extend = |more| bench.store().extend_reservation(upload, more, &bench.catalog);
    assert_eq!(extend(Amount { most: 500, least: 1 }).await.expect("room"), 500);
    assert_eq!(extend(Amount { most: 500, least: 1 }).await.expect("room"), 100);
    let why = exceeded(extend(Amount { most: 500, least: 1 }).await);
    assert_eq!((why.used, why.reserved, why.limit), (QUOTA - 1_000, 1_000, QUOTA));
    assert!(bench.settle(upload, Outcome::Taken(950)).await);
    assert_eq!(bench.used(Metric::Storage).await, QUOTA - 50);
    assert_eq!(bench.set_aside(Metric::Storage).await, (0, 0));
    let gone = bench.store().extend_reservation(upload, Amount::exactly(1), &bench.catalog).await;
    assert!(matches!(gone, Err(ClaimError::NotFound)), "{gone:?}");
}

async fn claims_and_reservations_share_one_limit(on: Backend) {
    let bench = Bench::new(on).await;
    let held = bench.reserved(QUOTA - 10).await;
    let claim = |id: &str, delta| Claim { id: id.to_owned(), metric: Metric::Storage, delta };
    let take = async |claim| {
        bench.store().claim(&Actor::Program, bench.tenant, &claim, &bench.catalog).await
    };
    let refused = take(claim("a", 11)).await.expect_err("no room");
    assert!(matches!(refused, ClaimError::Exceeded(why) if why.reserved == QUOTA - 10));
    assert_eq!(take(claim("b", 10)).await.expect("room").level, 10);
    exceeded(bench.take(&bench.reserving(Metric::Storage, Amount::exactly(1))).await);
    bench.settle(held, Outcome::Nothing).await;
    assert_eq!(take(claim("a", 11)).await.expect("room").level, 21);
}

async fn a_settlement_that_comes_twice_counts_once(on: Backend) {
    let bench = Bench::new(on).await;
    let upload = bench.reserved(100).await;
    let copies = (0..8).map(|_| bench.settle(upload, Outcome::Taken(100)));
    let ended = join_all(copies).await;
    assert_eq!(ended.iter().filter(|ended| **ended).count(), 1);
    assert!(!bench.settle(upload, Outcome::Nothing).await);
    assert_eq!(bench.used(Metric::Storage).await, 100);
    assert_eq!(bench.set_aside(Metric::Storage).await, (0, 0));
}

async fn what_a_lost_edge_reserved_stays_counted_and_is_not_known(on: Backend) {
    let bench = Bench::new(on).await;
    let upload = bench.reserved(QUOTA).await;
    bench.clock.advance_ms(TTL_MS - 1);
    assert_eq!(bench.set_aside(Metric::Storage).await, (QUOTA, 0));
    bench.clock.advance_ms(1 + 400 * 86_400_000);
    assert_eq!(bench.set_aside(Metric::Storage).await, (QUOTA, QUOTA));
    exceeded(bench.take(&bench.reserving(Metric::Storage, Amount::exactly(1))).await);
    // Its edge was only very slow: it is the one who knows.
    assert!(bench.settle(upload, Outcome::Taken(7)).await);
    assert_eq!(bench.used(Metric::Storage).await, 7);
    let upload = bench.reserved(50).await;
    assert!(bench.settle(upload, Outcome::Unknown).await);
    assert_eq!(bench.set_aside(Metric::Storage).await, (50, 50), "at once");
}

async fn an_edge_that_starts_again_vouches_for_nothing_of_before(on: Backend) {
    let bench = Bench::new(on).await;
    bench.reserved(100).await;
    let mut other = bench.reserving(Metric::Storage, Amount::exactly(10));
    other.by = EdgeRun { edge: Uuid::from_u128(78), run: Uuid::from_u128(5) };
    bench.take(&other).await.expect("room");
    let left = bench.store().leave_earlier_reservations(edge(2)).await.expect("an answer");
    assert_eq!(left, 1);
    assert_eq!(bench.set_aside(Metric::Storage).await, (110, 100), "another edge's lives");
    let again = bench.store().leave_earlier_reservations(edge(2)).await.expect("an answer");
    assert_eq!(again, 0);
}

async fn a_renewal_keeps_what_lives_and_revives_nothing(on: Backend) {
    let bench = Bench::new(on).await;
    let upload = bench.reserved(100).await;
    bench.clock.advance_ms(TTL_MS - 1);
    assert_eq!(bench.renew(edge(1)).await, [upload.id]);
    assert!(bench.renew(edge(2)).await.is_empty(), "another run's");
    bench.clock.advance_ms(TTL_MS - 1);
    assert_eq!(bench.set_aside(Metric::Storage).await, (100, 0));
    bench.clock.advance_ms(1);
    assert!(bench.renew(edge(1)).await.is_empty(), "too late");
    assert_eq!(bench.set_aside(Metric::Storage).await, (100, 100));
    let late = bench.store().extend_reservation(upload, Amount::exactly(1), &bench.catalog).await;
    assert!(matches!(late, Err(ClaimError::NotFound)), "{late:?}");
}

async fn a_report_ends_what_is_not_known_and_nothing_that_is_under_way(on: Backend) {
    let bench = Bench::new(on).await;
    let lost = bench.reserved(100).await;
    bench.settle(lost, Outcome::Unknown).await;
    let living = bench.reserved(30).await;
    let user = bench.reserving(Metric::Users, Amount::exactly(1));
    bench.take(&user).await.expect("room");
    bench.settle(held(&user), Outcome::Unknown).await;
    bench.put(Metric::Storage, 5_000).await;
    assert_eq!(bench.set_aside(Metric::Storage).await, (30, 0));
    assert_eq!(bench.set_aside(Metric::Users).await, (1, 1), "a report of something else");
    assert!(!bench.settle(lost, Outcome::Taken(100)).await, "the report has it");
    assert!(bench.settle(living, Outcome::Taken(30)).await);
    assert_eq!(bench.used(Metric::Storage).await, 5_030);
}

async fn the_operator_says_what_became_of_one_and_it_is_audited(on: Backend) {
    let bench = Bench::new(on).await;
    let upload = bench.reserved(100).await;
    let resolve =
        |id, delta| bench.store().resolve_reservation(&Actor::Operator, bench.tenant, id, delta);
    let refused = resolve(upload.id, 0).await.expect_err("it lives");
    assert!(matches!(refused, SettleError::UnderWay), "{refused:?}");
    bench.clock.advance_ms(TTL_MS);
    let listed = bench.store().reservations(bench.tenant, None, 500).await.expect("a list");
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].id, listed[0].amount, listed[0].unresolved), (upload.id, 100, true));
    resolve(upload.id, 60).await.expect("resolved");
    assert_eq!(bench.used(Metric::Storage).await, 60);
    assert_eq!(bench.set_aside(Metric::Storage).await, (0, 0));
    let refused = resolve(upload.id, 60).await.expect_err("it is gone");
    assert!(matches!(refused, SettleError::NotFound), "{refused:?}");
}

async fn nobody_reserves_for_a_tenant_that_is_not_there(on: Backend) {
    let bench = Bench::new(on).await;
    let mut reserving = bench.reserving(Metric::Storage, Amount::exactly(1));
    reserving.wanted.tenant = TenantId(Uuid::nil());
    let refused = bench.take(&reserving).await;
    assert!(matches!(refused, Err(ClaimError::NotFound)), "{refused:?}");
    let unknown = Catalog::default();
    let reserving = bench.reserving(Metric::Storage, Amount::exactly(1));
    let refused = bench.store().reserve(&reserving, &unknown).await;
    assert!(matches!(refused, Err(ClaimError::PlanUnknown(plan)) if plan == "team"));
}
