//! Pools of tokens as the data plane knows them: where a tenant stands, and what its pools
//! allow.
//!
//! Published with the tenants; worked out when a snapshot is built, never per request. The
//! authority has the terms themselves and decides; these figures are shown, and size what an
//! edge asks for. Invariant: a share counts only where the parent has a pool.

use std::sync::Arc;

use super::Share;
use crate::{anchor::Anchor, directory::TenantRecord, quota::Metric, tenant::TenantId};

/// Where a tenant stands in the pools of one metric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Its share of its parent's pool.
    pub share: Option<Share>,
    /// Size of its own pool.
    pub total: Option<u64>,
}

/// Its places, one for each of [`Metric::CONSUMABLE`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Places([Place; Metric::CONSUMABLE.len()]);

impl Places {
    /// The place of a metric; nowhere for one that is not consumed.
    #[must_use]
    pub fn of(&self, metric: Metric) -> Place {
        let mut known = Metric::CONSUMABLE.iter().zip(&self.0);
        known.find(|(known, _)| **known == metric).map_or(Place::default(), |(_, place)| *place)
    }

    /// Puts the tenant into a place; does nothing for a metric that is not consumed.
    pub fn set(&mut self, metric: Metric, place: Place) {
        let mut known = Metric::CONSUMABLE.iter().zip(&mut self.0);
        if let Some((_, held)) = known.find(|(known, _)| **known == metric) {
            *held = place;
        }
    }
}

/// What the pools above a tenant put in the place of its own quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drawn {
    /// The tenant above all of them.
    pub top: TenantId,
    /// The least of the maxima and totals on the way up, and of `above`.
    pub limit: u64,
    /// The quota of the top.
    pub above: u64,
    /// When months begin: as the top's.
    pub anchor: Anchor,
}

/// What a tenant draws from; `None` for one that is a member of no pool. `ancestors` are in
/// their order, nearest first; `quota` says what the plan of the top allots it.
#[must_use]
pub fn drawn(
    metric: Metric,
    record: &TenantRecord,
    ancestors: &[Arc<TenantRecord>],
    quota: impl FnOnce(&TenantRecord) -> u64,
) -> Option<Drawn> {
    let mut limit = u64::MAX;
    let (mut held, mut top) = (record, None);
    for parent in ancestors {
        let (share, total) = (held.pools.of(metric).share, parent.pools.of(metric).total);
        let (Some(share), Some(total)) = (share, total) else { break };
        limit = limit.min(share.max).min(total);
        held = parent;
        top = Some(&**parent);
    }
    let top = top?;
    let above = quota(top);
    let tenant = &top.tenant;
    Some(Drawn { top: tenant.id, limit: limit.min(above), above, anchor: tenant.quota_anchor })
}
