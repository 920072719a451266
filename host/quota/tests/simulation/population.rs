//! Whose requests a schedule is about: a tenant of its own, one of whose quotas every edge
//! keeps some aside, or a family that draws from pools.
//!
//! Everything is drawn from the schedule's seed. Invariant: the terms of pools are always
//! such as the control plane would accept; what they promise is written down here as plain
//! sums that may not be exceeded, apart from the rules that the authority works with.

use std::{num::NonZeroU32, sync::Arc};

use model::{
    anchor::Anchor,
    loss::OnLoss,
    plan::Plan,
    pool::{Drawn, Family, Member, Membership, Share},
    quota::Metric,
    snapshot::TenantEntry,
    tenant::TenantId,
};
use rand::{Rng as _, rngs::StdRng};
use uuid::Uuid;

use super::tenants::entry;

/// What kind of tenants there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One, with limits of its own.
    Lone,
    /// The same, whose edges keep tokens aside.
    Keeping,
    /// An owner of pools, its children, and perhaps theirs.
    Family,
}

/// A tenant's place, one of each for every metric.
#[derive(Clone, Debug)]
struct Node {
    tenant: TenantId,
    owner: Option<TenantId>,
    shares: [Share; 2],
    pools: [Option<u64>; 2],
}

/// What a change of a population was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The plan of the tenant above all pools has another limit.
    Limit,
    /// Pools have other totals, or their members other shares.
    Terms,
    /// A tenant came into a pool, or left one.
    Member(TenantId),
}

/// The terms of all pools; owners come before the members of theirs.
#[derive(Clone, Debug)]
pub(super) struct Terms(Vec<Node>);

/// A sum that may not be exceeded: what these tenants have together of a metric.
#[derive(Clone, Debug)]
pub(super) struct Bound {
    pub(super) metric: Metric,
    pub(super) over: Vec<TenantId>,
    pub(super) most: u64,
}

pub(super) struct Population {
    kind: Kind,
    /// Of the lone tenant, or of the owner above all pools.
    limits: [u64; 2],
    kept: Option<NonZeroU32>,
    terms: Terms,
    /// Who comes and goes; nobody, where the sums of all members are to be checked.
    mover: Option<TenantId>,
}

fn place(metric: Metric) -> usize {
    usize::from(metric == Metric::AiRequests)
}

/// A number from a range that may be empty but for its end.
fn upto(random: &mut StdRng, least: u64, most: u64) -> u64 {
    random.random_range(least.min(most)..=most)
}

impl Terms {
    fn lone() -> Self {
        Self(vec![Node::new(0, None)])
    }

    /// A family of a shape: an owner, its children, and children of the first child.
    fn family(random: &mut StdRng, limits: [u64; 2]) -> Self {
        let children = random.random_range(2..=3);
        let grandchildren = if random.random_range(0..3) == 0 { 2 } else { 0 };
        let mut nodes = vec![Node::new(0, None)];
        let owner = nodes[0].tenant;
        nodes.extend((1..=children).map(|number| Node::new(number, Some(owner))));
        let owner = nodes[1].tenant;
        nodes.extend((1..=grandchildren).map(|number| Node::new(10 + number, Some(owner))));
        let mut terms = Self(nodes);
        terms.draw(random, limits);
        terms
    }

    /// Other totals and shares, of the same members.
    fn draw(&mut self, random: &mut StdRng, limits: [u64; 2]) {
        for (index, limit) in limits.into_iter().enumerate() {
            let total = upto(random, limit / 2, limit);
            self.pool(random, index, 0, (total, total));
            if self.0.iter().any(|node| node.owner == Some(self.0[1].tenant)) {
                let share = self.0[1].shares[index];
                let total = upto(random, share.max / 2, share.max);
                self.pool(random, index, 1, (total, share.guaranteed.min(total)));
            }
        }
    }

    /// A pool of so many tokens, of which at most so many are guaranteed.
    fn pool(&mut self, random: &mut StdRng, index: usize, owner: usize, of: (u64, u64)) {
        let (total, mut guaranteed) = of;
        self.0[owner].pools[index] = Some(total);
        let owner = self.0[owner].tenant;
        for node in self.0.iter_mut().filter(|node| node.owner == Some(owner)) {
            let least = if random.random_range(0..2) == 0 { 0 } else { guaranteed / 3 };
            guaranteed -= least;
            let all = random.random_range(0..2) == 0;
            let max = if all { total } else { upto(random, least.max(total / 3), total) };
            node.shares[index] = Share { guaranteed: least, max };
        }
    }

    fn node(&self, tenant: TenantId) -> Option<&Node> {
        self.0.iter().find(|node| node.tenant == tenant)
    }

    /// Whether pools tie the tenant to others.
    pub(super) fn tie(&self, tenant: TenantId) -> bool {
        let tied = |node: &Node| node.owner.is_some() || node.pools.iter().any(Option::is_some);
        self.node(tenant).is_some_and(tied)
    }

    /// Whose pool a tenant is a member of.
    pub(super) fn owner_of(&self, tenant: TenantId) -> Option<TenantId> {
        self.node(tenant).and_then(|node| node.owner)
    }

    /// The owners of the pools that a tenant draws from, from below.
    pub(super) fn owners_above(&self, tenant: TenantId) -> Vec<TenantId> {
        std::iter::successors(self.owner_of(tenant), |owner| self.owner_of(*owner)).collect()
    }

    /// The tenant above all pools that a tenant draws from; itself, where there are none.
    pub(super) fn top_of(&self, tenant: TenantId) -> TenantId {
        self.owners_above(tenant).last().copied().unwrap_or(tenant)
    }

    /// Has a tenant leave its pool, or come into one, with nothing guaranteed there.
    fn wander(&mut self, random: &mut StdRng, tenant: TenantId) {
        let owners: Vec<(TenantId, [Option<u64>; 2])> = self
            .0
            .iter()
            .filter(|node| node.tenant != tenant && node.pools.iter().all(Option::is_some))
            .map(|node| (node.tenant, node.pools))
            .collect();
        let to = random.random_range(0..=owners.len());
        let into = owners.get(to).map(|(owner, _)| *owner);
        let elsewhere = |node: &&mut Node| node.tenant == tenant && node.owner != into;
        let Some(node) = self.0.iter_mut().find(elsewhere) else { return };
        node.owner = into;
        if let Some((_, totals)) = owners.get(to) {
            node.shares = totals.map(|total| {
                let total = total.unwrap_or(0);
                Share { guaranteed: 0, max: upto(random, total / 3, total) }
            });
        }
    }

    pub(super) fn tenants(&self) -> impl Iterator<Item = TenantId> {
        self.0.iter().map(|node| node.tenant)
    }

    /// The pools that a tenant draws from: their owners and totals.
    pub(super) fn pools_above(&self, tenant: TenantId, metric: Metric) -> Vec<(TenantId, u64)> {
        let owns = |node: &&Node| self.below(node.tenant).contains(&tenant);
        let pool = |node: &Node| Some((node.tenant, node.pools[place(metric)]?));
        self.0.iter().filter(owns).filter_map(pool).collect()
    }

    /// Everybody by the rules of pools, with what each tenant uses, and what former members
    /// took of its pool.
    pub(super) fn family_of(
        &self,
        metric: Metric,
        used: impl Fn(TenantId) -> (u64, u64),
    ) -> Family {
        let member = |node: &Node| {
            let (used, carried) = used(node.tenant);
            let share = node.shares[place(metric)];
            Member {
                tenant: node.tenant,
                membership: node.owner.map(|owner| Membership { owner, share }),
                used: used + carried,
                pool: node.pools[place(metric)].map(|total| total.saturating_sub(carried)),
            }
        };
        Family::new(&self.0.iter().map(member).collect::<Vec<_>>())
    }

    /// Everybody below a tenant.
    fn below(&self, tenant: TenantId) -> Vec<TenantId> {
        let mut line = vec![tenant];
        for node in &self.0 {
            if node.owner.is_some_and(|owner| line.contains(&owner)) {
                line.push(node.tenant);
            }
        }
        line.remove(0);
        line
    }

    /// What tenants have together, but one who comes and goes: it may have had its own elsewhere.
    fn bounds(&self, limits: [u64; 2], mover: Option<TenantId>) -> Vec<Bound> {
        let mut bounds = Vec::new();
        for metric in Metric::CONSUMABLE {
            for node in self.0.iter().filter(|node| Some(node.tenant) != mover) {
                let mut below = self.below(node.tenant);
                below.retain(|tenant| Some(*tenant) != mover);
                let mut all = vec![node.tenant];
                all.extend(&below);
                let share = node.shares[place(metric)];
                let most = if node.owner.is_some() { share.max } else { limits[place(metric)] };
                bounds.push(Bound { metric, over: all, most });
                let pool = node.pools[place(metric)];
                bounds.extend(pool.map(|most| Bound { metric, over: below, most }));
            }
        }
        bounds
    }
}

impl Node {
    fn new(number: u128, owner: Option<TenantId>) -> Self {
        let tenant = TenantId(Uuid::from_u128(7 + number));
        let shares = [Share { guaranteed: 0, max: 0 }; 2];
        Self { tenant, owner, shares, pools: [None; 2] }
    }
}

impl Population {
    pub(super) fn new(kind: Kind, limits: [u64; 2], random: &mut StdRng) -> Self {
        let terms = match kind {
            Kind::Family => Terms::family(random, limits),
            Kind::Lone | Kind::Keeping => Terms::lone(),
        };
        let keeps = match kind {
            Kind::Keeping => true,
            // Those outside all pools keep some.
            Kind::Family => random.random_range(0..2) == 0,
            Kind::Lone => false,
        };
        let kept = keeps.then(|| NonZeroU32::new(random.random_range(1..=12))).flatten();
        let moves = kind == Kind::Family && random.random_range(0..2) == 0;
        // The last of the children: none is below it.
        let mover = terms.0.iter().rfind(|node| node.owner == Some(terms.0[0].tenant));
        let mover = mover.map(|node| node.tenant).filter(|_| moves);
        Self { kind, limits, kept, terms, mover }
    }

    /// An owner, whose children share a pool with nothing guaranteed, and who has no more.
    pub(super) fn open_pool(children: u128, total: u64) -> Self {
        let mut nodes = vec![Node::new(0, None)];
        let owner = nodes[0].tenant;
        nodes.extend((1..=children).map(|number| Node::new(number, Some(owner))));
        for node in &mut nodes[1..] {
            node.shares = [Share { guaranteed: 0, max: total }; 2];
        }
        nodes[0].pools = [Some(total); 2];
        let limits = [total; 2];
        Self { kind: Kind::Family, limits, kept: None, terms: Terms(nodes), mover: None }
    }

    pub(super) fn terms(&self) -> &Terms {
        &self.terms
    }

    pub(super) const fn limits(&self) -> [u64; 2] {
        self.limits
    }

    pub(super) fn bounds(&self) -> Vec<Bound> {
        self.terms.bounds(self.limits, self.mover)
    }

    /// What a tenant could still have if each had used so much, and former members so much of
    /// its pool.
    pub(super) fn room(&self, metric: Metric, used: impl Fn(TenantId) -> (u64, u64)) -> u64 {
        let family = self.terms.family_of(metric, used);
        let limit = self.limits[place(metric)];
        self.terms.tenants().map(|tenant| family.room(tenant, limit)).max().unwrap_or(0)
    }

    /// Another limit, other terms of pools or other members. What is not a limit is known to the
    /// authority at once.
    pub(super) fn change(&mut self, metric: Metric, limit: u64, random: &mut StdRng) -> Change {
        match (self.kind, random.random_range(0..3), self.mover) {
            (Kind::Family, 0, _) => {
                self.terms.draw(random, self.limits);
                Change::Terms
            }
            (Kind::Family, 1, Some(mover)) => {
                self.terms.wander(random, mover);
                Change::Member(mover)
            }
            _ => {
                self.limits[place(metric)] = limit;
                Change::Limit
            }
        }
    }

    /// The tenants as a snapshot has them.
    pub(super) fn entries(&self) -> Arc<[TenantEntry]> {
        self.terms.0.iter().map(|node| self.entry(node)).collect()
    }

    fn entry(&self, node: &Node) -> TenantEntry {
        let [api, ai] = self.limits;
        let mut entry = entry(node.tenant, api, ai);
        if let Some(kept) = self.kept {
            let mut plan = Plan::clone(&entry.plan);
            plan.on_authority_loss.api_calls = OnLoss::Overdraft(kept);
            plan.on_authority_loss.ai_requests = OnLoss::Overdraft(kept);
            entry.plan = plan.into();
        }
        if node.owner.is_none() {
            return entry;
        }
        entry.in_pools(Metric::CONSUMABLE.map(|metric| Some(self.drawn(node.tenant, metric))))
    }

    fn drawn(&self, tenant: TenantId, metric: Metric) -> Drawn {
        let above = self.limits[place(metric)];
        let limit = self.terms.family_of(metric, |_| (0, 0)).limit(tenant, above);
        Drawn { top: self.terms.top_of(tenant), limit, above, anchor: Anchor::default() }
    }
}
