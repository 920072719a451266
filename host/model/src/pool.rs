//! Shared pools: what a parent sets aside for its children, and who may take of it.
//!
//! A pool is of one metric and belongs to one tenant; its members are children of that
//! tenant, each with a guaranteed share and a maximum. A tenant *demands* what it uses
//! itself and what its own pool has *committed*: the sum of max(demand, guaranteed) over
//! the pool's members. A claim needs room under its tenant's maximum; what it draws beyond
//! the guarantee needs room in the pool, and is then a claim of the pool's owner, and so on
//! up to a tenant in no pool, which its plan caps.
//!
//! Invariant: claims alone never bring the use of a pool's members above its total, and a
//! guaranteed share can always be had. Reported facts may exceed a pool; then a claim passes
//! only where it draws nothing more from it.

mod drawn;
mod terms;
#[cfg(test)]
mod tests;

pub use self::{
    drawn::{Drawn, Place, Places, drawn},
    terms::{Fault, Owner, SubPool, Terms, faults},
};

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{quota::Metric, tenant::TenantId};

/// What may be shared: the product guide's two pools, and tokens.
pub const POOLED: [Metric; 4] =
    [Metric::Storage, Metric::Users, Metric::ApiCalls, Metric::AiRequests];

/// What a member may have of a pool, in the metric's own unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Share {
    /// Set aside for it, used or not.
    pub guaranteed: u64,
    /// The most that it may demand.
    pub max: u64,
}

/// A place in a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    /// Whose pool.
    pub owner: TenantId,
    /// With which share.
    pub share: Share,
}

/// One tenant as the rules see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub tenant: TenantId,
    /// The pool that it takes part in.
    pub membership: Option<Membership>,
    /// What it uses itself.
    pub used: u64,
    /// Total of its own pool, if it has one.
    pub pool: Option<u64>,
}

/// What kept a claim from passing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// The plan's quota of the tenant above all pools.
    Plan,
    /// A member's maximum.
    Share,
    /// The total of a pool.
    Pool,
}

impl Bound {
    /// Stable name used in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Share => "share",
            Self::Pool => "pool",
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Counted {
    member: Member,
    committed: u64,
    used_below: u64,
}

impl Counted {
    const fn demand(&self) -> u64 {
        self.member.used.saturating_add(self.committed)
    }
}

/// Tenants that are tied together by pools of one metric, under the one that is in none.
#[derive(Clone, Debug, Default)]
pub struct Family(BTreeMap<TenantId, Counted>);

impl Family {
    /// Counts the members up. An owner comes before the members of its pool.
    #[must_use]
    pub fn new(members: &[Member]) -> Self {
        let count = |member: &Member| {
            (member.tenant, Counted { member: *member, committed: 0, used_below: 0 })
        };
        let mut family = Self(members.iter().map(count).collect());
        for member in members.iter().rev() {
            family.add_to_owner(member);
        }
        family
    }

    fn add_to_owner(&mut self, member: &Member) {
        let Some(Membership { owner, share }) = member.membership else { return };
        let Some(counted) = self.0.get(&member.tenant).copied() else { return };
        if let Some(owner) = self.0.get_mut(&owner) {
            let draws = counted.demand().max(share.guaranteed);
            owner.committed = owner.committed.saturating_add(draws);
            let used = counted.member.used.saturating_add(counted.used_below);
            owner.used_below = owner.used_below.saturating_add(used);
        }
    }

    /// What the tenant uses itself; 0 for one that is not in the family.
    #[must_use]
    pub fn used(&self, tenant: TenantId) -> u64 {
        self.0.get(&tenant).map_or(0, |counted| counted.member.used)
    }

    /// What the members of a tenant's pool use, and those of pools further down.
    #[must_use]
    pub fn used_below(&self, owner: TenantId) -> u64 {
        self.0.get(&owner).map_or(0, |counted| counted.used_below)
    }

    /// What a tenant's pool has committed: guaranteed shares in full, and use beyond them.
    #[must_use]
    pub fn committed(&self, owner: TenantId) -> u64 {
        self.0.get(&owner).map_or(0, |counted| counted.committed)
    }

    /// The members of a tenant's pool, in the order of their ids.
    pub fn members_of(&self, owner: TenantId) -> impl Iterator<Item = (TenantId, Share)> {
        self.0.values().filter_map(move |counted| {
            let membership = counted.member.membership.filter(|held| held.owner == owner)?;
            Some((counted.member.tenant, membership.share))
        })
    }

    /// The place of a tenant in its parent's pool.
    #[must_use]
    pub fn membership(&self, tenant: TenantId) -> Option<Membership> {
        self.0.get(&tenant)?.member.membership
    }

    /// The most that a tenant can ever have: the least of the maxima and totals above it,
    /// and of `plan`, the quota of the tenant above all pools.
    #[must_use]
    pub fn limit(&self, tenant: TenantId, plan: u64) -> u64 {
        let mut limit = plan;
        let mut next = self.membership(tenant);
        while let Some(Membership { owner, share }) = next {
            let total = self.0.get(&owner).and_then(|owner| owner.member.pool).unwrap_or(0);
            limit = limit.min(share.max).min(total);
            next = self.membership(owner);
        }
        limit
    }

    /// The most that `tenant` may use more. Other than a [claim](Self::claim) it never brings
    /// what a pool's members use above its total, not even within a guarantee: terms that
    /// change, and members that leave with what they used, can make a guarantee larger than
    /// what is left. `plan` is the quota of the tenant above all pools.
    #[must_use]
    pub fn room(&self, tenant: TenantId, plan: u64) -> u64 {
        let Some(counted) = self.0.get(&tenant) else { return 0 };
        let demand = counted.demand();
        let Some(Membership { owner, share }) = counted.member.membership else {
            let used = counted.member.used.saturating_add(counted.used_below);
            return plan.saturating_sub(demand.max(used));
        };
        let Some(above) = self.0.get(&owner) else { return 0 };
        let total = above.member.pool.unwrap_or(0);
        let shared = total.saturating_sub(above.committed).min(self.room(owner, plan));
        let set_aside = share.guaranteed.saturating_sub(demand);
        let unused = self.unused(owner, plan);
        share.max.saturating_sub(demand).min(set_aside.saturating_add(shared)).min(unused)
    }

    /// What nobody has used of a pool and of those above it.
    fn unused(&self, owner: TenantId, plan: u64) -> u64 {
        let Some(counted) = self.0.get(&owner) else { return 0 };
        let left = counted.member.pool.unwrap_or(0).saturating_sub(counted.used_below);
        let above = match counted.member.membership {
            Some(held) => self.unused(held.owner, plan),
            None => plan.saturating_sub(counted.member.used.saturating_add(counted.used_below)),
        };
        left.min(above)
    }

    /// Whether a member demands less than its share allows.
    #[must_use]
    pub fn leaves_share(&self, tenant: TenantId) -> bool {
        let counted = self.0.get(&tenant);
        let share = self.membership(tenant).map(|held| held.share);
        counted.zip(share).is_none_or(|(counted, share)| counted.demand() < share.max)
    }

    /// How many members of a tenant's pool use something.
    #[must_use]
    pub fn active_in(&self, owner: TenantId) -> usize {
        let draws = |counted: &&Counted| {
            counted.member.membership.is_some_and(|held| held.owner == owner)
                && (counted.member.used > 0 || counted.used_below > 0)
        };
        self.0.values().filter(draws).count()
    }

    /// Whether `tenant` may use `amount` more; `plan` is the quota of the tenant above all
    /// pools.
    ///
    /// # Errors
    /// The first bound on the way up that leaves no room.
    pub fn claim(&self, tenant: TenantId, amount: u64, plan: u64) -> Result<(), Bound> {
        let mut more = amount;
        let mut next = self.0.get(&tenant);
        while let Some(counted) = next
            && more > 0
        {
            let demand = counted.demand();
            let demands = demand.saturating_add(more);
            let Some(Membership { owner, share }) = counted.member.membership else {
                return if demands <= plan { Ok(()) } else { Err(Bound::Plan) };
            };
            if demands > share.max {
                return Err(Bound::Share);
            }
            more = demands.max(share.guaranteed) - demand.max(share.guaranteed);
            next = self.0.get(&owner);
            let (committed, total) =
                next.map_or((0, 0), |owner| (owner.committed, owner.member.pool.unwrap_or(0)));
            if more > 0 && committed.saturating_add(more) > total {
                return Err(Bound::Pool);
            }
        }
        Ok(())
    }
}
