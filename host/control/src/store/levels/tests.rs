mod upgrade;

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::join_all;
use model::{
    catalog::Catalog,
    clock::ManualClock,
    pool::Bound,
    quota::{BYTES_PER_MB, Metric},
    reservation::Exceeded,
    tenant::TenantId,
};
use uuid::Uuid;

use crate::{
    store::{Actor, ChangeError, Claim, ClaimError, ClaimTaken, NewTenant, Store},
    testing::{Backend, NEW_YEAR, guide, on_both},
};

on_both![
    facts_are_absolute_refused_by_no_quota_and_there_after_a_crash,
    of_fifty_claims_at_once_for_the_last_user_one_passes,
    a_claim_that_is_sent_again_is_answered_alike_and_counted_once,
    of_fifty_copies_of_a_claim_at_once_one_is_counted,
    an_id_means_one_claim_for_a_day,
    what_is_given_back_leaves_nothing_at_worst,
    storage_is_claimed_in_bytes_under_a_quota_in_mb,
    levels_of_nobody_are_not_found,
];

const DAY_MS: u64 = 86_400_000;

struct Bench {
    stores: Vec<Arc<Store>>,
    clock: Arc<ManualClock>,
    tenant: TenantId,
    catalog: Catalog,
    _database: crate::testing::Database,
}

impl Bench {
    /// A tenant on the team plan (10 users, 10,240 MB), in a store that several processes
    /// have open where they may.
    async fn new(on: Backend) -> Self {
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
        let tenant = tenant(&stores[0], "one").await;
        Self { stores, clock, tenant, catalog: guide(), _database: database }
    }

    async fn put(&self, metric: Metric, level: u64) {
        let facts = BTreeMap::from([(metric, level)]);
        self.stores[0].put_levels(&Actor::Program, self.tenant, &facts).await.expect("levels");
    }

    /// By one of the processes.
    async fn claim(&self, n: usize, claim: &Claim) -> Result<ClaimTaken, ClaimError> {
        let store = &self.stores[n % self.stores.len()];
        store.claim(&Actor::Program, self.tenant, claim, &self.catalog).await
    }

    async fn level(&self, metric: Metric) -> u64 {
        let levels = self.stores[0].levels(self.tenant).await.expect("levels");
        levels.get(&metric).copied().unwrap_or(0)
    }
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

fn claim(id: &str, metric: Metric, delta: i64) -> Claim {
    Claim { id: id.to_owned(), metric, delta }
}

async fn facts_are_absolute_refused_by_no_quota_and_there_after_a_crash(on: Backend) {
    let database = on.database();
    let store = database.open().await;
    let tenant = tenant(&store, "one").await;
    let facts = BTreeMap::from([(Metric::Users, 5_000), (Metric::Storage, 1 << 50)]);
    assert_eq!(store.put_levels(&Actor::Program, tenant, &facts).await.expect("levels"), facts);
    let fewer = BTreeMap::from([(Metric::Users, 3), (Metric::Projects, 0)]);
    let all =
        BTreeMap::from([(Metric::Users, 3), (Metric::Projects, 0), (Metric::Storage, 1 << 50)]);
    assert_eq!(store.put_levels(&Actor::Program, tenant, &fewer).await.expect("levels"), all);
    store
        .claim(&Actor::Program, tenant, &claim("a", Metric::Users, 2), &guide())
        .await
        .expect("room");
    // Nothing is closed in order: what was answered is in the database.
    drop(store);
    let store = loop {
        let clock = Arc::new(ManualClock::at(NEW_YEAR));
        if let Ok(store) = Store::open(&database.url(), clock).await {
            break store;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(store.levels(tenant).await.expect("levels")[&Metric::Users], 5);
    let asked = [tenant, TenantId(uuid::Uuid::max())];
    let users = store.levels_of(Metric::Users, &asked).await.expect("levels");
    assert_eq!(users, BTreeMap::from([(tenant, 5)]));
}

async fn of_fifty_claims_at_once_for_the_last_user_one_passes(on: Backend) {
    let bench = Bench::new(on).await;
    bench.put(Metric::Users, 9).await;
    let claims: Vec<_> = (0..50).map(|n| claim(&format!("c{n}"), Metric::Users, 1)).collect();
    let outcomes =
        join_all(claims.iter().enumerate().map(|(n, claim)| bench.claim(n, claim))).await;
    let passed: Vec<_> = outcomes.iter().flatten().collect();
    assert_eq!(passed, [&ClaimTaken { level: 10, repeated: false }]);
    let exceeded =
        Exceeded { metric: Metric::Users, used: 10, reserved: 0, limit: 10, by: Bound::Plan };
    for refused in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        assert!(matches!(refused, ClaimError::Exceeded(why) if *why == exceeded), "{refused:?}");
    }
    assert_eq!(bench.level(Metric::Users).await, 10);
}

async fn a_claim_that_is_sent_again_is_answered_alike_and_counted_once(on: Backend) {
    let bench = Bench::new(on).await;
    let first = claim("a", Metric::Users, 2);
    let taken = |level, repeated| ClaimTaken { level, repeated };
    assert_eq!(bench.claim(0, &first).await.expect("room"), taken(2, false));
    assert_eq!(bench.claim(1, &claim("b", Metric::Users, 5)).await.expect("room"), taken(7, false));
    assert_eq!(bench.claim(2, &first).await.expect("an answer"), taken(2, true));
    // Giving back is repeated alike.
    let back = claim("c", Metric::Users, -4);
    assert_eq!(bench.claim(0, &back).await.expect("an answer"), taken(3, false));
    assert_eq!(bench.claim(1, &back).await.expect("an answer"), taken(3, true));
    assert_eq!(bench.level(Metric::Users).await, 3);
    // A refusal counted nothing, so the claim may pass once there is room.
    let large = claim("d", Metric::Users, 8);
    bench.claim(0, &large).await.expect_err("no room");
    bench.put(Metric::Users, 2).await;
    assert_eq!(bench.claim(0, &large).await.expect("room"), taken(10, false));
}

async fn of_fifty_copies_of_a_claim_at_once_one_is_counted(on: Backend) {
    let bench = Bench::new(on).await;
    let one = claim("a", Metric::Projects, 1);
    let answers = join_all((0..50).map(|n| bench.claim(n, &one))).await;
    let answers: Vec<_> = answers.into_iter().map(|answer| answer.expect("an answer")).collect();
    assert!(answers.iter().all(|answer| answer.level == 1));
    assert_eq!(answers.iter().filter(|answer| !answer.repeated).count(), 1);
    assert_eq!(bench.level(Metric::Projects).await, 1);
}

async fn an_id_means_one_claim_for_a_day(on: Backend) {
    let bench = Bench::new(on).await;
    bench.claim(0, &claim("a", Metric::Users, 1)).await.expect("room");
    for other in [claim("a", Metric::Users, 2), claim("a", Metric::Projects, 1)] {
        let refused = bench.claim(0, &other).await.expect_err("another claim");
        assert!(matches!(refused, ClaimError::IdReused), "{refused:?}");
    }
    assert_eq!(bench.level(Metric::Projects).await, 0);
    bench.clock.advance_ms(DAY_MS - 1);
    assert!(bench.claim(0, &claim("a", Metric::Users, 1)).await.expect("an answer").repeated);
    bench.clock.advance_ms(1);
    let again = bench.claim(0, &claim("a", Metric::Users, 2)).await.expect("room");
    assert_eq!(again, ClaimTaken { level: 3, repeated: false });
}

async fn what_is_given_back_leaves_nothing_at_worst(on: Backend) {
    let bench = Bench::new(on).await;
    bench.put(Metric::Users, 3).await;
    let back = bench.claim(0, &claim("a", Metric::Users, -5)).await.expect("an answer");
    assert_eq!(back.level, 0);
    let all = bench.claim(0, &claim("b", Metric::Users, i64::MIN)).await.expect("an answer");
    assert_eq!(all.level, 0);
    // Above the limit, giving back passes and taking does not.
    bench.put(Metric::Users, 20).await;
    assert_eq!(bench.claim(0, &claim("c", Metric::Users, -1)).await.expect("room").level, 19);
    bench.claim(0, &claim("d", Metric::Users, 1)).await.expect_err("no room");
}

async fn storage_is_claimed_in_bytes_under_a_quota_in_mb(on: Backend) {
    let bench = Bench::new(on).await;
    let quota = 10_240 * BYTES_PER_MB;
    bench.put(Metric::Storage, quota - 1).await;
    let two = claim("a", Metric::Storage, 2);
    let refused = bench.claim(0, &two).await.expect_err("no room");
    let why = Exceeded {
        metric: Metric::Storage,
        used: quota - 1,
        reserved: 0,
        limit: quota,
        by: Bound::Plan,
    };
    assert!(matches!(refused, ClaimError::Exceeded(exceeded) if exceeded == why), "{refused:?}");
    let one = claim("b", Metric::Storage, 1);
    assert_eq!(bench.claim(0, &one).await.expect("room").level, quota);
    let most = claim("c", Metric::Storage, i64::MAX);
    bench.claim(0, &most).await.expect_err("no room");
}

async fn levels_of_nobody_are_not_found(on: Backend) {
    let bench = Bench::new(on).await;
    let nobody = TenantId(Uuid::nil());
    let facts = BTreeMap::from([(Metric::Users, 1)]);
    let refused =
        bench.stores[0].put_levels(&Actor::Program, nobody, &facts).await.expect_err("nobody");
    assert!(matches!(refused, ChangeError::NotFound));
    let claim = claim("a", Metric::Users, 1);
    let refused = bench.stores[0].claim(&Actor::Program, nobody, &claim, &bench.catalog).await;
    assert!(matches!(refused, Err(ClaimError::NotFound)));
    let unknown = Catalog::default();
    let refused = bench.stores[0].claim(&Actor::Program, bench.tenant, &claim, &unknown).await;
    assert!(matches!(refused, Err(ClaimError::PlanUnknown(plan)) if plan == "team"));
}
