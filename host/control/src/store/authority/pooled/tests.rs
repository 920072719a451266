//! Pools of tokens on both databases. A holder of its own opens and seals, so that every
//! tranche is known, and what was spent of it.

mod members;
mod random;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use futures_util::future::join_all;
use model::{
    anchor::Anchor,
    catalog::Catalog,
    ledger::{
        Above, Authority, EpochRef, Fence, HolderId, KeepRequest, LeaseReport, OpenRequest,
        Opening, Report, WindowKey,
    },
    pool::Share,
    quota::Metric,
    tenant::TenantId,
    window::Window,
};

use super::super::{
    edges::{Edge, World, redis},
    tests::NOON,
};
use crate::{
    store::{Actor, NewPool, NewTenant, Store},
    testing::{Backend, guide, on_both, report_of},
};

on_both![
    three_children_that_race_are_granted_the_pool_and_not_a_token_more,
    nobody_in_a_pool_keeps_tokens_aside,
    a_guarantee_can_be_had_when_others_have_used_all_the_rest,
    a_maximum_holds_and_so_does_every_pool_above,
    the_owner_draws_from_what_its_plan_has_beside_its_pool,
    what_was_used_before_a_move_stays_with_the_pool_it_came_from,
    leaving_and_coming_back_brings_no_token_twice,
    parked_tokens_are_recalled_for_a_member_that_finds_none,
    who_does_not_know_the_pools_as_they_are_gets_nothing,
    new_terms_close_what_is_open,
];

/// What the plan of a top has; never what is in the way here.
const PLAN: u64 = 1_000_000;

/// A family on one or several stores.
struct Bench {
    world: World,
    stores: Vec<Arc<Store>>,
    edge: Edge,
    catalog: Catalog,
    ids: Vec<TenantId>,
    /// Epochs that are open, with their tranche.
    open: BTreeMap<EpochRef, u64>,
    latest: HashMap<TenantId, u64>,
    leases: u32,
}

impl Bench {
    /// Tenants by their parents' places: each comes after its parent.
    async fn new(on: Backend, parents: &[Option<usize>]) -> Self {
        let world = World::new(on).await;
        let edge = world.edge("one").await;
        let mut bench = Self {
            stores: vec![Arc::clone(&world.store)],
            world,
            edge,
            catalog: guide(),
            ids: Vec::new(),
            open: BTreeMap::new(),
            latest: HashMap::new(),
            leases: 0,
        };
        for (n, parent) in parents.iter().enumerate() {
            let new = NewTenant {
                slug: format!("t{n}").parse().expect("a slug"),
                organization_name: format!("t{n}"),
                display_name: None,
                admin_email: "a@b.example".to_owned(),
                plan: "enterprise".to_owned(),
                data_residency: Some("eu".to_owned()),
                home_region: None,
                parent: parent.map(|parent| bench.ids[parent]),
                quota_anchor: None,
            };
            let made = bench.stores[0].create_tenant(&Actor::Program, new).await.expect("a tenant");
            bench.ids.push(made.id);
        }
        bench
    }

    async fn pool(&self, owner: usize, total: u64, shares: Option<&[(usize, u64, u64)]>) -> bool {
        let share = |&(n, guaranteed, max): &(usize, u64, u64)| {
            (format!("t{n}"), Share { guaranteed, max })
        };
        let shares = shares.map(|shares| shares.iter().map(share).collect());
        let wanted = BTreeMap::from([(Metric::ApiCalls, NewPool { total, shares })]);
        self.put(owner, &wanted).await
    }

    async fn put(&self, owner: usize, wanted: &BTreeMap<Metric, NewPool>) -> bool {
        let store = &self.stores[0];
        store.put_pools(&Actor::Program, self.ids[owner], wanted, &self.catalog, None).await.is_ok()
    }

    async fn move_to(&self, n: usize, parent: Option<usize>) {
        let parent = parent.map(|parent| self.ids[parent]);
        let store = &self.stores[0];
        store.move_tenant(&Actor::Program, self.ids[n], parent, None).await.expect("moved");
    }

    fn key(&self, n: usize) -> WindowKey {
        let window = Window::of(Metric::ApiCalls, NOON, Anchor::default()).expect("a window");
        WindowKey { tenant: self.ids[n], metric: Metric::ApiCalls, window }
    }

    /// What the published directory says is above a tenant.
    fn above(&self, n: usize) -> Option<Above> {
        let directory = self.stores[0].directory().borrow().clone();
        let record = |id: TenantId| directory.record(id).cloned().expect("a record");
        let held = record(self.ids[n]);
        let mut ancestors = Vec::new();
        let mut next = held.tenant.parent;
        while let Some(parent) = next {
            ancestors.push(record(parent));
            next = record(parent).tenant.parent;
        }
        let drawn = model::pool::drawn(Metric::ApiCalls, &held, &ancestors, |_| PLAN)?;
        Some(Above { tenant: drawn.top, limit: drawn.above })
    }

    fn request(&self, n: usize, holder: HolderId) -> OpenRequest {
        let (key, fence, above) = (self.key(n), Fence::Holder(holder), self.above(n));
        let latest = self.latest.get(&key.tenant).copied().unwrap_or(0);
        OpenRequest { key, fence, latest, limit: PLAN, above, rate_per_s: 0 }
    }

    async fn answer(&mut self, n: usize) -> Opening {
        let request = self.request(n, self.edge.id);
        let opening = self.stores[0].open(self.edge.id, vec![request]).await;
        let opening = opening.expect("an answer").remove(0);
        if let Opening::Opened(permit) = &opening {
            self.latest.insert(self.ids[n], permit.epoch());
            let of = EpochRef { key: self.key(n), epoch: permit.epoch() };
            self.open.insert(of, permit.tranche());
        }
        opening
    }

    /// Tokens of the next tranche; 0 when there is none.
    async fn draw(&mut self, n: usize) -> u64 {
        match self.answer(n).await {
            Opening::Opened(permit) => permit.tranche(),
            Opening::Exhausted | Opening::Parked => 0,
            Opening::Lost { latest } => panic!("nobody else opens, but {latest} is open"),
            Opening::Elsewhere { window } => panic!("all have one window, but {window:?} is there"),
        }
    }

    /// Draws until there is nothing, or at most so much.
    async fn draw_all(&mut self, n: usize, at_most: u64) -> u64 {
        let mut drawn = 0;
        while drawn < at_most {
            match self.draw(n).await {
                0 => break,
                tokens => drawn += tokens,
            }
        }
        drawn
    }

    /// Ends the oldest open epoch of a tenant of which so much was spent; what came back.
    async fn seal(&mut self, n: usize, spent: u64) -> Option<(EpochRef, u64, u64)> {
        let key = self.key(n);
        let (of, tranche) = self.open.iter().find(|(of, _)| of.key == key)?;
        let (of, tranche) = (*of, *tranche);
        self.open.remove(&of);
        self.leases += 1;
        let spent = spent.min(tranche);
        let (lease, refunded, sealed) = (self.leases, 0, true);
        let lease = LeaseReport { of, tranche, lease, spent, refunded, sealed };
        let report = report_of(self.edge.id, 0, vec![lease]);
        self.edge.send(report).await;
        Some((of, tranche, spent))
    }
}

const THREE: [Option<usize>; 4] = [None, Some(0), Some(0), Some(0)];

async fn three_children_that_race_are_granted_the_pool_and_not_a_token_more(on: Backend) {
    let mut bench = Bench::new(on, &THREE).await;
    if matches!(on, Backend::Postgres) {
        for _ in 0..2 {
            let clock = Arc::clone(&bench.world.clock) as _;
            let url = bench.world.database.url();
            bench.stores.push(Store::open(&url, clock).await.expect("a store"));
        }
    }
    assert!(bench.pool(0, 100, None).await);
    let race = (1..4).map(|n| {
        let store = Arc::clone(&bench.stores[n % bench.stores.len()]);
        let (holder, request) = (bench.edge.id, bench.request(n, bench.edge.id));
        async move {
            let (mut latest, mut drawn) = (0, 0);
            loop {
                let request = OpenRequest { latest, ..request };
                match store.open(holder, vec![request]).await.expect("an answer").remove(0) {
                    Opening::Opened(permit) => {
                        latest = permit.epoch();
                        drawn += permit.tranche();
                    }
                    _ => return drawn,
                }
            }
        }
    });
    let drawn: Vec<u64> = join_all(race).await;
    assert_eq!(drawn.iter().sum::<u64>(), 100, "{drawn:?}");
    let report = bench.stores[0].pools(bench.ids[0]).await.expect("pools");
    assert_eq!(report[&Metric::ApiCalls].total, 100);
    bench.world.audit().await;
}

async fn nobody_in_a_pool_keeps_tokens_aside(on: Backend) {
    let bench = Bench::new(on, &THREE).await;
    assert!(bench.pool(0, 100, None).await);
    for n in 0..4 {
        let OpenRequest { key, limit, .. } = bench.request(n, bench.edge.id);
        let request = KeepRequest { key, latest: 0, limit, tokens: 5 };
        let refused = bench.stores[0].keep(bench.edge.id, vec![request]).await.expect("an answer");
        assert!(matches!(refused[..], [Opening::Exhausted]), "{n}: {refused:?}");
    }
    bench.world.audit().await;
}

async fn a_guarantee_can_be_had_when_others_have_used_all_the_rest(on: Backend) {
    let mut bench = Bench::new(on, &THREE).await;
    assert!(bench.pool(0, 100, Some(&[(1, 30, 30), (2, 0, 100), (3, 0, 100)])).await);
    assert_eq!(bench.draw_all(2, PLAN).await, 70);
    assert_eq!(bench.draw_all(3, PLAN).await, 0);
    assert_eq!(bench.draw_all(1, PLAN).await, 30);
    bench.world.audit().await;
}

async fn a_maximum_holds_and_so_does_every_pool_above(on: Backend) {
    let mut bench = Bench::new(on, &[None, Some(0), Some(1), Some(1), Some(0)]).await;
    assert!(bench.pool(0, 100, Some(&[(1, 10, 60), (4, 0, 100)])).await);
    assert!(bench.pool(1, 50, Some(&[(2, 10, 20), (3, 0, 50)])).await);
    assert_eq!(bench.draw_all(2, PLAN).await, 20, "its maximum");
    assert_eq!(bench.draw_all(3, PLAN).await, 30, "the pool of its parent");
    assert_eq!(bench.draw_all(1, PLAN).await, 10, "the parent's own maximum, less its pool");
    assert_eq!(bench.draw_all(4, PLAN).await, 40, "the pool above all");
    bench.world.audit().await;
}

async fn the_owner_draws_from_what_its_plan_has_beside_its_pool(on: Backend) {
    let mut bench = Bench::new(on, &THREE).await;
    assert!(bench.pool(0, PLAN - 50, Some(&[(1, PLAN - 60, PLAN - 50)])).await);
    // Set aside for the child: the pool is the owner's no more than what is used of it.
    let before = bench.draw_all(0, PLAN).await;
    assert_eq!(before, 60);
    bench.world.audit().await;
}

async fn what_was_used_before_a_move_stays_with_the_pool_it_came_from(on: Backend) {
    let mut bench = Bench::new(on, &[None, Some(0), Some(0), None, Some(3)]).await;
    assert!(bench.pool(0, 100, None).await);
    assert!(bench.pool(3, 40, None).await);
    let used = bench.draw_all(1, 60).await;
    bench.move_to(1, Some(3)).await;
    let into = bench.draw_all(1, PLAN).await;
    assert_eq!(into, 40, "new to the second pool");
    assert_eq!(bench.draw_all(4, PLAN).await, 0);
    assert_eq!(bench.draw_all(2, PLAN).await, 100 - used, "what it used stays with the first");
    let report = bench.stores[0].pools(bench.ids[0]).await.expect("pools");
    assert_eq!(report[&Metric::ApiCalls].used, used, "of the others' nothing is spent yet");
    bench.world.audit().await;
}

async fn leaving_and_coming_back_brings_no_token_twice(on: Backend) {
    let mut bench = Bench::new(on, &THREE).await;
    let with = [(1, 50, 50), (2, 0, 100)];
    assert!(bench.pool(0, 100, Some(&with)).await);
    let mut drawn = bench.draw_all(1, PLAN).await;
    assert_eq!(drawn, 50);
    for _ in 0..3 {
        assert!(bench.pool(0, 100, Some(&with[1..])).await);
        assert!(bench.pool(0, 100, Some(&with)).await);
        drawn += bench.draw_all(1, PLAN).await;
    }
    drawn += bench.draw_all(2, PLAN).await;
    assert_eq!(drawn, 100);
    bench.world.audit().await;
}

async fn parked_tokens_are_recalled_for_a_member_that_finds_none(on: Backend) {
    let mut bench = Bench::new(on, &THREE).await;
    assert!(bench.pool(0, 16, None).await);
    let taken = bench.draw_all(1, PLAN).await;
    assert_eq!(taken, 16);
    assert!(matches!(bench.answer(2).await, Opening::Parked));
    let closing = bench.edge.send(empty()).await;
    assert!(closing.own_recalls.iter().all(|of| of.key == bench.key(1)));
    assert_eq!(closing.own_recalls.len(), bench.open.len());
    let watched = Report { watched: vec![bench.key(2)], ..empty() };
    let standing = bench.edge.send(watched.clone()).await.standings[0].expect("a window");
    assert_eq!(standing.available, 0, "nothing came back yet");
    bench.seal(1, 3).await.expect("an epoch");
    let standing = bench.edge.send(watched).await.standings[0].expect("a window");
    assert!(standing.available > 0, "something did");
    assert!(bench.draw(2).await > 0);
    while bench.seal(1, u64::MAX).await.is_some() {}
    while bench.draw(2).await > 0 {}
    assert!(matches!(bench.answer(1).await, Opening::Parked), "the other has it now");
    while bench.seal(2, u64::MAX).await.is_some() {}
    assert!(matches!(bench.answer(1).await, Opening::Exhausted), "all is spent");
    bench.world.audit().await;
}

async fn who_does_not_know_the_pools_as_they_are_gets_nothing(on: Backend) {
    let bench = Bench::new(on, &THREE).await;
    let plain = bench.request(1, bench.edge.id);
    assert!(bench.pool(0, 100, None).await);
    let refused = bench.stores[0].open(bench.edge.id, vec![plain]).await.expect("an answer");
    assert!(matches!(refused[..], [Opening::Exhausted]));
    let drawing = bench.request(1, bench.edge.id);
    assert!(drawing.above.is_some());
    assert!(bench.put(0, &BTreeMap::new()).await);
    let refused = bench.stores[0].open(bench.edge.id, vec![drawing]).await.expect("an answer");
    assert!(matches!(refused[..], [Opening::Exhausted]));
}

async fn new_terms_close_what_is_open(on: Backend) {
    let bench = Bench::new(on, &THREE).await;
    assert!(bench.pool(0, 100, None).await);
    let key = bench.key(1);
    let request = OpenRequest { fence: redis(1), ..bench.request(1, bench.edge.id) };
    let opened = bench.stores[0].open(bench.edge.id, vec![request]).await.expect("an answer");
    assert!(matches!(opened[..], [Opening::Opened(_)]));
    assert!(bench.pool(0, 90, None).await);
    let confirmed = bench.stores[0].confirm(bench.edge.id, vec![key]).await.expect("an answer");
    let standing = confirmed.expect("it lives")[0].expect("a window");
    assert_eq!(standing.bounds.floor, standing.bounds.latest);
    bench.world.audit().await;
}

fn empty() -> Report {
    report_of(HolderId::random(), 0, vec![])
}
