use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::join_all;
use model::{
    catalog::Catalog,
    clock::ManualClock,
    pool::{Bound, Fault, Share},
    quota::Metric,
    tenant::TenantId,
};
use uuid::Uuid;

use crate::{
    store::{
        Actor, Claim, ClaimError, NewPool, NewTenant, PoolCap, PoolFault, PoolReport, PoolRule,
        PoolsError, ShareReport, Store,
    },
    testing::{Backend, Database, NEW_YEAR, guide, on_both},
};

on_both![
    the_guides_pools_are_reported_as_they_are_used,
    three_children_that_race_for_the_last_gb_never_exceed_the_pool,
    a_guaranteed_share_can_be_had_while_others_race_for_the_rest,
    an_allocation_replaces_the_plans_quota_and_going_brings_it_back,
    a_pool_without_shares_is_every_childs,
    a_claim_climbs_through_every_pool_above,
    facts_may_exceed_and_then_only_guarantees_are_left,
    every_broken_rule_is_named_and_nothing_is_set,
    pools_of_two_levels_keep_the_rules_whichever_is_changed,
    a_child_that_moves_away_leaves_the_pool_and_its_room_to_others,
];

const GB: u64 = 1 << 30;

struct Bench {
    stores: Vec<Arc<Store>>,
    root: TenantId,
    children: [TenantId; 3],
    catalog: Catalog,
    claims: std::sync::atomic::AtomicU64,
    _database: Database,
}

impl Bench {
    /// An enterprise (1,024 GB) with three children on the team plan (10 GB, 10 users).
    async fn new(on: Backend) -> Self {
        let database = on.database();
        let processes = match on {
            Backend::Sqlite => 1,
            Backend::Postgres => 3,
        };
        let mut stores = Vec::new();
        for _ in 0..processes {
            let clock = Arc::new(ManualClock::at(NEW_YEAR));
            stores.push(Store::open(&database.url(), clock).await.expect("a store"));
        }
        let root = tenant(&stores[0], "global", "enterprise", None).await;
        let mut children = [root; 3];
        for (n, child) in children.iter_mut().enumerate() {
            let slug = format!("child-{}", n + 1);
            *child = tenant(&stores[0], &slug, "team", Some(root)).await;
        }
        let claims = 0.into();
        Self { stores, root, children, catalog: guide(), claims, _database: database }
    }

    async fn set(
        &self,
        owner: TenantId,
        metric: Metric,
        pool: NewPool,
    ) -> Result<BTreeMap<Metric, PoolReport>, PoolsError> {
        let wanted = BTreeMap::from([(metric, pool)]);
        self.stores[0].put_pools(&Actor::Program, owner, &wanted, &self.catalog, None).await
    }

    async fn faults(&self, owner: TenantId, pool: NewPool) -> Vec<(Option<String>, PoolRule)> {
        match self.set(owner, Metric::Storage, pool).await {
            Err(PoolsError::Faults(faults)) => {
                assert!(faults.iter().all(|fault| fault.metric == Metric::Storage));
                faults.into_iter().map(|PoolFault { member, rule, .. }| (member, rule)).collect()
            }
            other => panic!("expected faults, got {other:?}"),
        }
    }

    async fn put(&self, tenant: TenantId, metric: Metric, level: u64) {
        let facts = BTreeMap::from([(metric, level)]);
        self.stores[0].put_levels(&Actor::Program, tenant, &facts).await.expect("levels");
    }

    /// Claims by one of the processes; what kept it from passing.
    async fn claim(&self, tenant: TenantId, metric: Metric, amount: u64) -> Result<u64, Bound> {
        let number = self.claims.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let delta = i64::try_from(amount).expect("an amount");
        let claim = Claim { id: format!("c{number}"), metric, delta };
        let store = &self.stores[number as usize % self.stores.len()];
        match store.claim(&Actor::Program, tenant, &claim, &self.catalog).await {
            Ok(taken) => Ok(taken.level),
            Err(ClaimError::Exceeded(why)) => Err(why.by),
            Err(other) => panic!("expected an answer, got {other:?}"),
        }
    }

    async fn report(&self, owner: TenantId, metric: Metric) -> PoolReport {
        self.stores[0].pools(owner).await.expect("pools").remove(&metric).expect("a pool")
    }

    async fn cap(&self, tenant: TenantId, metric: Metric) -> Option<PoolCap> {
        let caps = self.stores[0].pool_caps(tenant, &self.catalog).await.expect("caps");
        caps.get(&metric).copied()
    }
}

async fn tenant(store: &Arc<Store>, slug: &str, plan: &str, parent: Option<TenantId>) -> TenantId {
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
    store.create_tenant(&Actor::Program, new).await.expect("a tenant").id
}

fn share(guaranteed: u64, max: u64) -> Share {
    Share { guaranteed: guaranteed * GB, max: max * GB }
}

fn pool(total: u64, shares: &[(&str, u64, u64)]) -> NewPool {
    let share =
        |&(name, guaranteed, max): &(&str, u64, u64)| (name.to_owned(), share(guaranteed, max));
    NewPool { total: total * GB, shares: Some(shares.iter().map(share).collect()) }
}

async fn the_guides_pools_are_reported_as_they_are_used(on: Backend) {
    let bench = Bench::new(on).await;
    let by_id = bench.children[1].to_string();
    let storage = pool(1_000, &[("child-1", 400, 400), (&by_id, 300, 300), ("child-3", 300, 300)]);
    let users = NewPool { total: 500, shares: None };
    let wanted = BTreeMap::from([(Metric::Storage, storage), (Metric::Users, users)]);
    let set =
        bench.stores[0].put_pools(&Actor::Program, bench.root, &wanted, &bench.catalog, None).await;
    assert_eq!(set.expect("pools")[&Metric::Storage].used, 0);
    for (child, gb, users) in [(0, 350, 100), (1, 150, 87), (2, 200, 100)]
        .map(|(n, gb, users)| (bench.children[n], gb, users))
    {
        bench.put(child, Metric::Storage, gb * GB).await;
        bench.put(child, Metric::Users, users).await;
    }
    let member = |slug: &str, gb, used| ShareReport {
        slug: slug.to_owned(),
        share: share(gb, gb),
        used: used * GB,
    };
    let storage = PoolReport {
        total: 1_000 * GB,
        used: 700 * GB,
        committed: 1_000 * GB,
        shares: Some(vec![
            member("child-1", 400, 350),
            member("child-2", 300, 150),
            member("child-3", 300, 200),
        ]),
    };
    assert_eq!(bench.report(bench.root, Metric::Storage).await, storage);
    let users = PoolReport { total: 500, used: 287, committed: 287, shares: None };
    assert_eq!(bench.report(bench.root, Metric::Users).await, users);
    assert!(bench.stores[0].pools(bench.children[0]).await.expect("pools").is_empty());
}

async fn three_children_that_race_for_the_last_gb_never_exceed_the_pool(on: Backend) {
    let bench = Bench::new(on).await;
    let shares = [("child-1", 0, 10), ("child-2", 0, 10), ("child-3", 0, 10)];
    bench.set(bench.root, Metric::Storage, pool(10, &shares)).await.expect("a pool");
    assert_eq!(bench.claim(bench.children[0], Metric::Storage, 9 * GB).await, Ok(9 * GB));
    let claims = (0..30).map(|n| bench.claim(bench.children[n % 3], Metric::Storage, GB / 4));
    let outcomes = join_all(claims).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 4);
    let refused: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.err()).collect();
    assert!(refused.iter().all(|by| matches!(by, Bound::Pool | Bound::Share)), "{refused:?}");
    let report = bench.report(bench.root, Metric::Storage).await;
    assert_eq!((report.used, report.committed), (10 * GB, 10 * GB));
}

async fn a_guaranteed_share_can_be_had_while_others_race_for_the_rest(on: Backend) {
    let bench = Bench::new(on).await;
    let shares = [("child-1", 4, 4), ("child-2", 0, 10), ("child-3", 0, 10)];
    bench.set(bench.root, Metric::Storage, pool(10, &shares)).await.expect("a pool");
    let claims = (0..36).map(|n| bench.claim(bench.children[n % 3], Metric::Storage, GB / 2));
    let outcomes = join_all(claims).await;
    let passed = |child: usize| {
        outcomes.iter().skip(child).step_by(3).filter(|outcome| outcome.is_ok()).count()
    };
    assert_eq!(passed(0), 8, "4 GB are its own");
    assert_eq!(passed(1) + passed(2), 12, "6 GB are anybody's");
    assert_eq!(bench.report(bench.root, Metric::Storage).await.used, 10 * GB);
}

async fn an_allocation_replaces_the_plans_quota_and_going_brings_it_back(on: Backend) {
    let bench = Bench::new(on).await;
    let [first, second, _] = bench.children;
    bench.put(first, Metric::Storage, 10 * GB).await;
    assert_eq!(bench.claim(first, Metric::Storage, 1).await, Err(Bound::Plan));
    let shares = [("child-1", 12, 14), ("child-2", 1, 2)];
    bench.set(bench.root, Metric::Storage, pool(20, &shares)).await.expect("a pool");
    assert_eq!(bench.claim(first, Metric::Storage, 4 * GB).await, Ok(14 * GB));
    assert_eq!(bench.claim(first, Metric::Storage, 1).await, Err(Bound::Share));
    assert_eq!(bench.claim(second, Metric::Storage, 2 * GB + 1).await, Err(Bound::Share));
    let cap = PoolCap { owner: bench.root, share: share(12, 14), limit: 14 * GB };
    assert_eq!(bench.cap(first, Metric::Storage).await, Some(cap));
    // The third has no share, so its plan says what it may have; users are not pooled.
    assert_eq!(bench.cap(bench.children[2], Metric::Storage).await, None);
    assert_eq!(bench.cap(first, Metric::Users).await, None);
    let none = BTreeMap::new();
    let left =
        bench.stores[0].put_pools(&Actor::Program, bench.root, &none, &bench.catalog, None).await;
    assert!(left.expect("no pools").is_empty());
    assert_eq!(bench.cap(first, Metric::Storage).await, None);
    assert_eq!(bench.claim(second, Metric::Storage, 10 * GB).await, Ok(10 * GB));
    assert_eq!(bench.claim(first, Metric::Storage, 1).await, Err(Bound::Plan));
}

async fn a_pool_without_shares_is_every_childs(on: Backend) {
    let bench = Bench::new(on).await;
    let open = NewPool { total: 30, shares: None };
    bench.set(bench.root, Metric::Users, open).await.expect("a pool");
    assert_eq!(bench.claim(bench.children[0], Metric::Users, 25).await, Ok(25));
    let later = tenant(&bench.stores[0], "child-4", "team", Some(bench.root)).await;
    assert_eq!(bench.claim(later, Metric::Users, 6).await, Err(Bound::Pool));
    assert_eq!(bench.claim(later, Metric::Users, 5).await, Ok(5));
    // Giving back makes room for anybody.
    assert_eq!(bench.claim(bench.children[1], Metric::Users, 1).await, Err(Bound::Pool));
    bench.put(later, Metric::Users, 4).await;
    assert_eq!(bench.claim(bench.children[1], Metric::Users, 1).await, Ok(1));
}

async fn a_claim_climbs_through_every_pool_above(on: Backend) {
    let bench = Bench::new(on).await;
    let [middle, sibling, _] = bench.children;
    let leaf = tenant(&bench.stores[0], "leaf", "team", Some(middle)).await;
    let shares = [("child-1", 4, 8), ("child-2", 0, 10)];
    bench.set(bench.root, Metric::Storage, pool(10, &shares)).await.expect("a pool");
    bench.set(middle, Metric::Storage, pool(7, &[("leaf", 3, 7)])).await.expect("a pool");
    // 3 GB of the leaf's own, 1 GB of the middle's own, then the shared rest of the root.
    assert_eq!(bench.claim(leaf, Metric::Storage, 3 * GB).await, Ok(3 * GB));
    assert_eq!(bench.claim(sibling, Metric::Storage, 6 * GB).await, Ok(6 * GB));
    assert_eq!(bench.claim(leaf, Metric::Storage, GB).await, Ok(4 * GB));
    assert_eq!(bench.claim(leaf, Metric::Storage, 1).await, Err(Bound::Pool));
    bench.put(sibling, Metric::Storage, 2 * GB).await;
    assert_eq!(bench.claim(leaf, Metric::Storage, 4 * GB).await, Err(Bound::Share));
    assert_eq!(bench.claim(leaf, Metric::Storage, 3 * GB).await, Ok(7 * GB));
    // The middle's own use is part of what it draws from the root's pool.
    assert_eq!(bench.claim(middle, Metric::Storage, 2 * GB).await, Err(Bound::Share));
    assert_eq!(bench.claim(middle, Metric::Storage, GB).await, Ok(GB));
    let report = bench.report(bench.root, Metric::Storage).await;
    assert_eq!((report.used, report.committed), (10 * GB, 10 * GB));
    assert_eq!(bench.cap(leaf, Metric::Storage).await.expect("a cap").limit, 7 * GB);
}

async fn facts_may_exceed_and_then_only_guarantees_are_left(on: Backend) {
    let bench = Bench::new(on).await;
    let [first, second, third] = bench.children;
    let shares = [("child-1", 2, 10), ("child-2", 3, 10), ("child-3", 0, 10)];
    bench.set(bench.root, Metric::Storage, pool(10, &shares)).await.expect("a pool");
    bench.put(first, Metric::Storage, 12 * GB).await;
    let report = bench.report(bench.root, Metric::Storage).await;
    assert_eq!((report.used, report.committed), (12 * GB, 15 * GB));
    assert_eq!(bench.claim(third, Metric::Storage, 1).await, Err(Bound::Pool));
    assert_eq!(bench.claim(first, Metric::Storage, 1).await, Err(Bound::Share));
    assert_eq!(bench.claim(second, Metric::Storage, 3 * GB).await, Ok(3 * GB));
    assert_eq!(bench.claim(second, Metric::Storage, 1).await, Err(Bound::Pool));
}

async fn every_broken_rule_is_named_and_nothing_is_set(on: Backend) {
    let bench = Bench::new(on).await;
    bench.set(bench.root, Metric::Storage, pool(5, &[("child-1", 1, 2)])).await.expect("a pool");
    let stranger = tenant(&bench.stores[0], "stranger", "team", None).await.to_string();
    let first = bench.children[0].to_string();
    let faults = bench
        .faults(
            bench.root,
            pool(
                2_000,
                &[
                    ("child-1", 1_900, 2_001),
                    (&first, 1, 1),
                    ("child-2", 101, 100),
                    ("child-9", 0, 1),
                    (&stranger, 0, 1),
                    ("global", 0, 1),
                ],
            ),
        )
        .await;
    let about = |name: &str, rule| (Some(name.to_owned()), rule);
    let (first_child, second_child) = (bench.children[0], bench.children[1]);
    assert_eq!(
        faults,
        [
            about(&first, PoolRule::Twice),
            about("child-9", PoolRule::NoChild),
            about(&stranger, PoolRule::NoChild),
            about("global", PoolRule::NoChild),
            (None, PoolRule::Figures(Fault::AboveOwner { cap: 1_024 * GB })),
            (None, PoolRule::Figures(Fault::AboveTotal { guaranteed: 2_001 * GB })),
            about("child-1", PoolRule::Figures(Fault::MaxAboveTotal { child: first_child })),
            about("child-2", PoolRule::Figures(Fault::Inverted { child: second_child })),
        ]
    );
    assert_eq!(bench.report(bench.root, Metric::Storage).await.total, 5 * GB);
    let nobody = TenantId(Uuid::nil());
    let refused = bench.set(nobody, Metric::Storage, pool(1, &[])).await;
    assert!(matches!(refused, Err(PoolsError::NotFound)), "{refused:?}");
}

async fn pools_of_two_levels_keep_the_rules_whichever_is_changed(on: Backend) {
    let bench = Bench::new(on).await;
    let middle = bench.children[0];
    tenant(&bench.stores[0], "leaf", "team", Some(middle)).await;
    // A child without a share has its plan's 10 GB to give.
    let above = PoolRule::Figures(Fault::AboveOwner { cap: 10 * GB });
    assert_eq!(bench.faults(middle, pool(11, &[])).await, [(None, above)]);
    bench.set(bench.root, Metric::Storage, pool(50, &[("child-1", 20, 40)])).await.expect("a pool");
    let guarantee = PoolRule::Figures(Fault::AboveGuarantee { guaranteed: 21 * GB, own: 20 * GB });
    assert_eq!(bench.faults(middle, pool(40, &[("leaf", 21, 21)])).await, [(None, guarantee)]);
    bench.set(middle, Metric::Storage, pool(40, &[("leaf", 20, 21)])).await.expect("a pool");
    let child = middle;
    let about = |fault| (Some("child-1".to_owned()), PoolRule::Figures(fault));
    let total = about(Fault::SubPoolTotal { child, total: 40 * GB });
    let guarantee = about(Fault::SubPoolGuarantee { child, guaranteed: 20 * GB });
    let smaller = pool(50, &[("child-1", 19, 39)]);
    assert_eq!(bench.faults(bench.root, smaller).await, [total.clone(), guarantee]);
    // Without a share, the child's plan would have to hold its pool.
    assert_eq!(bench.faults(bench.root, pool(50, &[])).await, [total]);
    let none = BTreeMap::new();
    let refused =
        bench.stores[0].put_pools(&Actor::Program, bench.root, &none, &bench.catalog, None).await;
    assert!(matches!(refused, Err(PoolsError::Faults(faults)) if faults.len() == 1));
    bench.stores[0]
        .put_pools(&Actor::Program, middle, &none, &bench.catalog, None)
        .await
        .expect("no pool");
    bench.stores[0]
        .put_pools(&Actor::Program, bench.root, &none, &bench.catalog, None)
        .await
        .expect("no pool");
}

async fn a_child_that_moves_away_leaves_the_pool_and_its_room_to_others(on: Backend) {
    let bench = Bench::new(on).await;
    let [first, second, _] = bench.children;
    let shares = [("child-1", 6, 12), ("child-2", 0, 12)];
    bench.set(bench.root, Metric::Storage, pool(12, &shares)).await.expect("a pool");
    assert_eq!(bench.claim(first, Metric::Storage, 9 * GB).await, Ok(9 * GB));
    assert_eq!(bench.claim(second, Metric::Storage, 4 * GB).await, Err(Bound::Pool));
    let moved = bench.stores[0].move_tenant(&Actor::Program, first, None, None).await;
    assert_eq!(moved.expect("a move").parent, None);
    assert_eq!(bench.claim(second, Metric::Storage, 12 * GB).await, Ok(12 * GB));
    let report = bench.report(bench.root, Metric::Storage).await;
    assert_eq!((report.used, report.committed), (12 * GB, 12 * GB));
    assert_eq!(report.shares.expect("shares").len(), 1);
    // The plan is its cap again: 10 GB, of which it uses 9.
    assert_eq!(bench.cap(first, Metric::Storage).await, None);
    assert_eq!(bench.claim(first, Metric::Storage, 2 * GB).await, Err(Bound::Plan));
    assert_eq!(bench.claim(first, Metric::Storage, GB).await, Ok(10 * GB));
}
