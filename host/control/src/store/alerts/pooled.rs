//! Where a pool replaces the limit of a plan, for a span of tenants at once.
//!
//! One statement finds who draws from which pool; then each pool's family is read once,
//! however many of its members watch it. Invariant: where nobody watches a metric that can
//! be shared, and where no parent shares it, nothing more is read.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use model::{catalog::Catalog, pool::POOLED, quota::Metric, tenant::TenantId};
use uuid::Uuid;

use super::{
    super::{
        StoreError,
        db::{ControlTx, sql},
        pools::Bounds,
        rows::Span,
    },
    AlertSettings,
    usage::metric,
};

/// Who watches what.
type Watched = BTreeSet<(TenantId, Metric)>;

/// The limits that pools set.
#[derive(Default)]
pub(super) struct Pooled {
    /// The owner of the pool that a tenant draws from.
    owners: BTreeMap<(TenantId, Metric), TenantId>,
    /// By owner; `None` where the pool went in between.
    bounds: BTreeMap<(TenantId, Metric), Option<Bounds>>,
}

impl Pooled {
    /// Of the tenants of `span`, as far as their `settings` watch it.
    pub(super) async fn of<'s>(
        tx: &mut ControlTx,
        span: Span,
        settings: impl Iterator<Item = (TenantId, &'s AlertSettings)>,
        catalog: &Catalog,
    ) -> Result<Self, StoreError> {
        let watched = watched(settings);
        let mut pooled = Self::default();
        if watched.is_empty() {
            return Ok(pooled);
        }
        for (tenant, owner, metric) in members(tx, span).await? {
            if !watched.contains(&(tenant, metric)) {
                continue;
            }
            pooled.owners.insert((tenant, metric), owner);
            if let Entry::Vacant(bounds) = pooled.bounds.entry((owner, metric)) {
                bounds.insert(Bounds::around(tx, tenant, metric, catalog).await?);
            }
        }
        Ok(pooled)
    }

    /// What the pools above allow a tenant; `None` where its plan decides.
    pub(super) fn limit(&self, tenant: TenantId, metric: Metric) -> Option<u64> {
        let owner = self.owners.get(&(tenant, metric))?;
        let bounds = self.bounds.get(&(*owner, metric))?.as_ref()?;
        Some(bounds.cap(tenant)?.limit)
    }
}

fn watched<'s>(settings: impl Iterator<Item = (TenantId, &'s AlertSettings)>) -> Watched {
    let of = |(tenant, settings): (TenantId, &AlertSettings)| {
        POOLED.map(|metric| settings.quota_alerts.contains_key(&metric).then_some((tenant, metric)))
    };
    settings.flat_map(of).flatten().collect()
}

/// Everybody in a span who watches something and is a member of its parent's pool.
async fn members(
    tx: &mut ControlTx,
    span: Span,
) -> Result<Vec<(TenantId, TenantId, Metric)>, StoreError> {
    let rows: Vec<(Uuid, Uuid, String)> = sql("SELECT s.tenant_id, pool.tenant_id, pool.metric
         FROM alert_settings s
         JOIN tenant ON tenant.id = s.tenant_id
         JOIN pool ON pool.tenant_id = tenant.parent
         LEFT JOIN pool_share share ON share.tenant_id = pool.tenant_id
          AND share.metric = pool.metric AND share.child = s.tenant_id
         WHERE s.tenant_id BETWEEN $1 AND $2 AND s.watches = 1
           AND (pool.open = 1 OR share.child IS NOT NULL)")
    .bind(span.first)
    .bind(span.last)
    .all(tx)
    .await?;
    let member = |(tenant, owner, name): (Uuid, Uuid, String)| {
        Ok((TenantId(tenant), TenantId(owner), metric(&name)?))
    };
    rows.into_iter().map(member).collect()
}

#[cfg(test)]
mod tests;
