//! Room under a limit: what a tenant may have more of, its row and the pools above it held.
//!
//! Asked by claims and by reservations, within the transaction that then takes the room.
//! Invariant: what is set aside counts like what is used, here and in every pool.

use model::{
    catalog::Catalog,
    clock::UnixMs,
    pool::{Bound, Family},
    quota::Metric,
    reservation::{Amount, Exceeded},
    tenant::{Tenant, TenantId},
};

use super::{
    Level,
    claim::{ClaimError, LEVEL_MAX},
    hold,
};
use crate::store::{
    db::ControlTx,
    pools::family,
    rows::{self, Span},
};

/// A tenant whose level is held.
pub(in crate::store) struct Judged {
    claimant: Tenant,
    metric: Metric,
    level: Level,
    /// Whether a pool lies above the claimant, or is its own.
    in_pools: bool,
}

/// What stands above it.
struct Limits {
    /// With the quota of the tenant above all pools.
    family: Option<Family>,
    plan: u64,
}

impl Judged {
    /// Locks the pools above the tenant, then its level.
    pub(in crate::store) async fn hold(
        tx: &mut ControlTx,
        tenant: TenantId,
        metric: Metric,
        now: UnixMs,
    ) -> Result<Self, ClaimError> {
        let claimant = find(tx, tenant).await?;
        let in_pools = family::hold(tx, tenant, metric).await?;
        let level = hold(tx, tenant, metric, now).await?;
        Ok(Self { claimant, metric, level, in_pools })
    }

    /// The level, without what is set aside.
    pub(in crate::store) const fn used(&self) -> u64 {
        self.level.used
    }

    /// How much of the amount there is room for.
    pub(in crate::store) async fn room(
        &self,
        tx: &mut ControlTx,
        amount: Amount,
        catalog: &Catalog,
    ) -> Result<u64, ClaimError> {
        let limits = self.limits(tx, catalog).await?;
        if self.fits(&limits, amount.most).is_ok() {
            return Ok(amount.most);
        }
        self.fits(&limits, amount.least).map_err(|by| self.exceeded(&limits, by))?;
        // Less than `least` is never refused where more fits, so halving finds the most.
        let (mut room, mut beyond) = (amount.least, amount.most);
        while beyond.saturating_sub(room) > 1 {
            let middle = room.midpoint(beyond);
            match self.fits(&limits, middle) {
                Ok(()) => room = middle,
                Err(_) => beyond = middle,
            }
        }
        Ok(room)
    }

    async fn limits(&self, tx: &mut ControlTx, catalog: &Catalog) -> Result<Limits, ClaimError> {
        if !self.in_pools {
            return Ok(Limits { family: None, plan: self.plan(&self.claimant, catalog)? });
        }
        let (top, family) = family::around(tx, self.claimant.id, self.metric).await?;
        let plan = self.plan(&find(tx, top).await?, catalog)?;
        Ok(Limits { family: Some(family), plan })
    }

    /// The quota of a tenant's plan, in the unit of the level.
    fn plan(&self, tenant: &Tenant, catalog: &Catalog) -> Result<u64, ClaimError> {
        let quotas = catalog.quotas_of(tenant);
        let quotas = quotas.ok_or_else(|| ClaimError::PlanUnknown(tenant.plan.clone()))?;
        Ok(quotas.level_limit(self.metric).min(LEVEL_MAX))
    }

    fn fits(&self, limits: &Limits, amount: u64) -> Result<(), Bound> {
        match &limits.family {
            Some(family) => family.claim(self.claimant.id, amount, limits.plan),
            None if self.level.taken().saturating_add(amount) <= limits.plan => Ok(()),
            None => Err(Bound::Plan),
        }
    }

    fn exceeded(&self, limits: &Limits, by: Bound) -> ClaimError {
        let plan = limits.plan;
        let limit = limits.family.as_ref();
        let limit = limit.map_or(plan, |family| family.limit(self.claimant.id, plan));
        let Level { used, reserved } = self.level;
        ClaimError::Exceeded(Exceeded { metric: self.metric, used, reserved, limit, by })
    }
}

async fn find(tx: &mut ControlTx, tenant: TenantId) -> Result<Tenant, ClaimError> {
    let found = rows::tenants(tx, Span::one(tenant)).await?;
    found.into_iter().next().ok_or(ClaimError::NotFound)
}
