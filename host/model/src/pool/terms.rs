//! What an owner may promise: the rules that a pool's settings keep.
//!
//! Checked under the owner's lock in the transaction that changes them. Invariant: within
//! one level Σ guaranteed ≤ total ≤ what the owner may have itself, and an owner that is a
//! member of a pool guarantees no more than it is guaranteed.

use serde::Serialize;

use super::Share;
use crate::tenant::TenantId;

/// A pool as its owner wants it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Terms {
    /// Its size.
    pub total: u64,
    /// The shares of its members; `None` lets every child use it, with nothing guaranteed.
    pub shares: Option<Vec<(TenantId, Share)>>,
}

impl Terms {
    /// The share of a child; `None` when it has no part in the pool.
    #[must_use]
    pub fn share_of(&self, child: TenantId) -> Option<Share> {
        match &self.shares {
            None => Some(Share { guaranteed: 0, max: self.total }),
            Some(shares) => {
                shares.iter().find(|(member, _)| *member == child).map(|(_, share)| *share)
            }
        }
    }

    /// What is guaranteed to all members together.
    #[must_use]
    pub fn guaranteed(&self) -> u64 {
        let shares = self.shares.iter().flatten();
        shares.fold(0, |sum: u64, (_, share)| sum.saturating_add(share.guaranteed))
    }
}

/// The owner of a pool, one level up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The most that it may have: its maximum as a member of a pool, else its plan's quota.
    pub cap: u64,
    /// What it is guaranteed, when it is a member of a pool.
    pub guaranteed: Option<u64>,
}

/// A pool that a child has for its own children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubPool {
    /// The child.
    pub owner: TenantId,
    /// Its size.
    pub total: u64,
    /// What it guarantees to all its members together.
    pub guaranteed: u64,
    /// The quota of the child's plan, which caps the pool of a child without a share.
    pub plan: u64,
}

/// A rule that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The pool is larger than what its owner may have.
    AboveOwner {
        /// What it may have.
        cap: u64,
    },
    /// More is guaranteed than the pool has.
    AboveTotal {
        /// What is guaranteed.
        guaranteed: u64,
    },
    /// More is guaranteed than the owner is guaranteed itself.
    AboveGuarantee {
        /// What is guaranteed.
        guaranteed: u64,
        /// What the owner is guaranteed.
        own: u64,
    },
    /// A share guarantees more than it allows.
    Inverted {
        /// Whose.
        child: TenantId,
    },
    /// A share allows more than the pool has.
    MaxAboveTotal {
        /// Whose.
        child: TenantId,
    },
    /// A child's own pool is larger than what the child may have.
    SubPoolTotal {
        /// Whose.
        child: TenantId,
        /// Size of its pool.
        total: u64,
    },
    /// A child guarantees more to its own children than it is guaranteed.
    SubPoolGuarantee {
        /// Whose.
        child: TenantId,
        /// What it guarantees.
        guaranteed: u64,
    },
}

/// Every rule that a pool of these terms would break; `None` takes the pool away.
#[must_use]
pub fn faults(terms: Option<&Terms>, owner: Owner, below: &[SubPool]) -> Vec<Fault> {
    let mut faults = Vec::new();
    if let Some(terms) = terms {
        of_pool(terms, owner, &mut faults);
        of_shares(terms, &mut faults);
    }
    for pool in below {
        of_sub_pool(pool, terms.and_then(|terms| terms.share_of(pool.owner)), &mut faults);
    }
    faults
}

fn of_pool(terms: &Terms, owner: Owner, faults: &mut Vec<Fault>) {
    let guaranteed = terms.guaranteed();
    if terms.total > owner.cap {
        faults.push(Fault::AboveOwner { cap: owner.cap });
    }
    if guaranteed > terms.total {
        faults.push(Fault::AboveTotal { guaranteed });
    } else if let Some(own) = owner.guaranteed.filter(|own| guaranteed > *own) {
        faults.push(Fault::AboveGuarantee { guaranteed, own });
    }
}

fn of_shares(terms: &Terms, faults: &mut Vec<Fault>) {
    for &(child, share) in terms.shares.iter().flatten() {
        if share.guaranteed > share.max {
            faults.push(Fault::Inverted { child });
        }
        if share.max > terms.total {
            faults.push(Fault::MaxAboveTotal { child });
        }
    }
}

fn of_sub_pool(pool: &SubPool, share: Option<Share>, faults: &mut Vec<Fault>) {
    let child = pool.owner;
    if pool.total > share.map_or(pool.plan, |share| share.max) {
        faults.push(Fault::SubPoolTotal { child, total: pool.total });
    }
    if share.is_some_and(|share| pool.guaranteed > share.guaranteed) {
        faults.push(Fault::SubPoolGuarantee { child, guaranteed: pool.guaranteed });
    }
}
