//! Random steps of several edges, with crashes, beside claims and reports: after each,
//! nothing is above its limit and every level has the sum of its rows.

use model::pool::Share;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::*;
use crate::store::NewPool;

on_both![used_and_reserved_never_exceed_a_limit_whatever_happens];

/// Seats of the pool of two children.
const POOL: u64 = 10;
/// What each child may have of it.
const SHARE: Share = Share { guaranteed: 2, max: 8 };
/// Users of the team plan, the limit of a tenant outside the pool.
const PLAN: u64 = 10;
const STEPS: u32 = 250;

/// A reservation that an edge believes it has.
struct Open {
    held: Held,
    edge: usize,
    amount: u64,
}

struct Walk {
    bench: Bench,
    random: StdRng,
    /// Two that share a pool, one that has none.
    tenants: [TenantId; 3],
    runs: [u128; 2],
    open: Vec<Open>,
    claims: u64,
}

impl Walk {
    async fn new(on: Backend, seed: u64) -> Self {
        let bench = Bench::new(on).await;
        let store = &bench.stores[0];
        let parent = tenant(store, "parent", None).await;
        let mut tenants = [bench.tenant; 3];
        for (n, child) in tenants.iter_mut().take(2).enumerate() {
            *child = tenant(store, &format!("child-{n}"), Some(parent)).await;
        }
        let shares = ["child-0", "child-1"].map(|slug| (slug.to_owned(), SHARE));
        let pool = NewPool { total: POOL, shares: Some(shares.to_vec()) };
        let wanted = BTreeMap::from([(Metric::Users, pool)]);
        let set = store.put_pools(&Actor::Program, parent, &wanted, &bench.catalog, None).await;
        set.expect("a pool");
        let random = StdRng::seed_from_u64(seed);
        Self { bench, random, tenants, runs: [1, 2], open: Vec::new(), claims: 0 }
    }

    fn any_tenant(&mut self) -> TenantId {
        self.tenants[self.random.random_range(0..3)]
    }

    fn run_of(&self, edge: usize) -> EdgeRun {
        EdgeRun { edge: Uuid::from_u128(edge as u128 + 1), run: Uuid::from_u128(self.runs[edge]) }
    }

    fn store(&mut self) -> Arc<Store> {
        let at = self.random.random_range(0..self.bench.stores.len());
        Arc::clone(&self.bench.stores[at])
    }

    async fn step(&mut self) {
        match self.random.random_range(0..20) {
            0..7 => self.reserve().await,
            7..10 if !self.open.is_empty() => self.extend().await,
            10..14 if !self.open.is_empty() => self.settle().await,
            14 => self.claim(1).await,
            15 => self.claim(-1).await,
            16 => self.crash().await,
            17 => self.report().await,
            18 => {
                for edge in 0..2 {
                    let by = self.run_of(edge);
                    self.bench.renew(by).await;
                }
            }
            _ => self.bench.clock.advance_ms(self.random.random_range(1..TTL_MS)),
        }
    }

    async fn reserve(&mut self) {
        let (tenant, edge) = (self.any_tenant(), self.random.random_range(0..2));
        let most = self.random.random_range(1..8);
        let amount = Amount { most, least: self.random.random_range(1..=most) };
        let by = self.run_of(edge);
        let wanted = Wanted { tenant, metric: Metric::Users, amount };
        let reserving = Reserving { id: Uuid::new_v4(), by, wanted, ttl_ms: TTL_MS };
        match self.store().reserve(&reserving, &self.bench.catalog).await {
            Ok(amount) => self.open.push(Open { held: held(&reserving), edge, amount }),
            refused => drop(exceeded(refused)),
        }
    }

    async fn extend(&mut self) {
        let at = self.random.random_range(0..self.open.len());
        let more = Amount { most: self.random.random_range(1..4), least: 1 };
        let store = self.store();
        match store.extend_reservation(self.open[at].held, more, &self.bench.catalog).await {
            Ok(more) => self.open[at].amount += more,
            Err(ClaimError::Exceeded(_) | ClaimError::NotFound) => {}
            Err(other) => panic!("{other:?}"),
        }
    }

    async fn settle(&mut self) {
        let at = self.random.random_range(0..self.open.len());
        let open = self.open.swap_remove(at);
        let taken = self.random.random_range(0..=open.amount);
        let outcome = match self.random.random_range(0..4) {
            0 => Outcome::Nothing,
            1 => Outcome::Unknown,
            _ => Outcome::Taken(i64::try_from(taken).expect("small")),
        };
        self.store().settle_reservation(open.held, outcome).await.expect("the store answers");
    }

    async fn claim(&mut self, delta: i64) {
        self.claims += 1;
        let claim = Claim { id: self.claims.to_string(), metric: Metric::Users, delta };
        let tenant = self.any_tenant();
        match self.store().claim(&Actor::Program, tenant, &claim, &self.bench.catalog).await {
            Ok(_) | Err(ClaimError::Exceeded(_)) => {}
            Err(other) => panic!("{other:?}"),
        }
    }

    /// An edge is killed, and some time later it starts again, or it does not.
    async fn crash(&mut self) {
        let edge = self.random.random_range(0..2);
        self.open.retain(|open| open.edge != edge);
        self.runs[edge] += 10;
        if self.random.random() {
            let by = self.run_of(edge);
            self.store().leave_earlier_reservations(by).await.expect("an answer");
        }
    }

    /// A backend counts, and finds no more than was known: a larger fact is nobody's fault.
    async fn report(&mut self) {
        let tenant = self.any_tenant();
        let used = self.used(tenant).await;
        let level = self.random.random_range(0..=used);
        let facts = BTreeMap::from([(Metric::Users, level)]);
        self.store().put_levels(&Actor::Program, tenant, &facts).await.expect("levels");
    }

    async fn used(&self, tenant: TenantId) -> u64 {
        let levels = self.bench.store().levels(tenant).await.expect("levels");
        levels.get(&Metric::Users).copied().unwrap_or(0)
    }

    async fn check(&self, step: u32) {
        let mut taken = Vec::new();
        for tenant in self.tenants {
            let used = self.used(tenant).await;
            let store = self.bench.store();
            let rows = store.set_aside(tenant).await.expect("sums");
            let rows = rows.get(&Metric::Users).copied().unwrap_or_default();
            assert_eq!(rows.reserved, column(store, tenant, Metric::Users).await, "step {step}");
            taken.push(used + rows.reserved);
        }
        let ([first, second], alone) = ([taken[0], taken[1]], taken[2]);
        assert!(alone <= PLAN, "step {step}: {taken:?}");
        assert!(first <= SHARE.max && second <= SHARE.max, "step {step}: {taken:?}");
        let committed = first.max(SHARE.guaranteed) + second.max(SHARE.guaranteed);
        assert!(committed <= POOL, "step {step}: {taken:?}");
    }
}

async fn used_and_reserved_never_exceed_a_limit_whatever_happens(on: Backend) {
    let mut walk = Walk::new(on, 7).await;
    let mut refused = 0;
    for step in 0..STEPS {
        let before = walk.open.len();
        walk.step().await;
        refused += usize::from(walk.open.len() == before);
        walk.check(step).await;
    }
    assert!(refused > 10, "the limits were reached");
    // Whoever counts brings everything back.
    walk.bench.clock.advance_ms(TTL_MS);
    for tenant in walk.tenants {
        let facts = BTreeMap::from([(Metric::Users, 0)]);
        walk.store().put_levels(&Actor::Program, tenant, &facts).await.expect("levels");
        assert_eq!(column(walk.bench.store(), tenant, Metric::Users).await, 0);
    }
}
