//! Shared pools: what a tenant sets aside for its children, set, reported and enforced.
//!
//! The rules are `model::pool`'s; here they are applied to rows, under the lock of the
//! family's root, so that no two changes of one family's pools cross. Claims lock the pools
//! only; of tokens the quota authority decides, and `tokens` keeps its accounts in order. Use that exists when a pool is made, a claim under way included, counts as a fact.
//! Invariant: stored shares keep every rule of `model::pool::faults` at every level.

pub(in crate::store) mod family;
mod places;
mod put;
#[cfg(test)]
mod tests;
pub(in crate::store) mod tokens;

use std::collections::BTreeMap;

use model::{
    anchor::Anchor,
    catalog::Catalog,
    clock::UnixMs,
    pool::{Family, POOLED, Share, Terms},
    quota::Metric,
    tenant::{Tenant, TenantId},
    window::Window,
};
use uuid::Uuid;

use self::family::Use;
pub(in crate::store) use self::places::places;
pub use self::put::{NewPool, PoolFault, PoolRule, PoolsError};
use super::{
    Store, StoreError,
    authority::uint,
    db::{ControlTx, Purpose, Tx, sql},
    hierarchy,
    rows::{self, Span},
};

/// A pool as it stands, in the metric's own unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolReport {
    /// Its size.
    pub total: u64,
    /// What its members use, those of pools further down included, and of tokens what former
    /// members took in this window.
    pub used: u64,
    /// Guaranteed shares in full, and use beyond them; facts may bring it above the total.
    pub committed: u64,
    /// The members in the order of their slugs; `None` when every child is one.
    pub shares: Option<Vec<ShareReport>>,
}

/// A member's part of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareReport {
    /// Whose.
    pub slug: String,
    /// What it may have.
    pub share: Share,
    /// What it uses, with those who draw from its own pool.
    pub used: u64,
}

/// What a pool puts in the place of a plan's quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolCap {
    /// The tenant whose pool it is.
    pub owner: TenantId,
    /// The share of it.
    pub share: Share,
    /// The least of what the pools above allow, and the quota above them.
    pub limit: u64,
}

/// Names pools as they are set, whatever is used of them: the same tag, the same pools.
#[must_use]
pub fn tag(pools: &BTreeMap<Metric, PoolReport>) -> String {
    let set: Vec<_> = pools
        .iter()
        .map(|(metric, pool)| {
            let share = |report: &ShareReport| {
                (report.slug.clone(), report.share.guaranteed, report.share.max)
            };
            let shares: Option<Vec<_>> =
                pool.shares.as_ref().map(|shares| shares.iter().map(share).collect());
            (metric.as_str(), pool.total, shares)
        })
        .collect();
    model::audit::digest(serde_json::json!(set).to_string().as_bytes())
}

impl Store {
    /// The pools of a tenant, by metric.
    ///
    /// # Errors
    /// The store failed.
    pub async fn pools(&self, owner: TenantId) -> Result<BTreeMap<Metric, PoolReport>, StoreError> {
        let mut tx = self.db.control(Purpose::Read).await?;
        let reports = reports(&mut tx, owner, self.clock.now()).await;
        tx.end(reports).await
    }

    /// When the months of a tenant's quotas begin: as those of the tenant above the pools of
    /// API calls that it draws from, as published.
    #[must_use]
    pub fn quota_anchor(&self, tenant: &Tenant) -> Anchor {
        let directory = self.published.directory().borrow();
        let mut anchor = tenant.quota_anchor;
        let mut line = hierarchy::records(&directory, Some(tenant.id)).peekable();
        while let (Some(held), Some(parent)) = (line.next(), line.peek()) {
            let share = held.pools.of(Metric::ApiCalls).share;
            let total = parent.pools.of(Metric::ApiCalls).total;
            if share.is_none() || total.is_none() {
                break;
            }
            anchor = parent.tenant.quota_anchor;
        }
        anchor
    }

    /// Where a pool replaces the quota of a tenant's plan, by metric. A quota that is not
    /// known, because the plan is not declared, bounds nothing here.
    ///
    /// # Errors
    /// The store failed.
    pub async fn pool_caps(
        &self,
        tenant: TenantId,
        catalog: &Catalog,
    ) -> Result<BTreeMap<Metric, PoolCap>, StoreError> {
        let mut tx = self.db.control(Purpose::Read).await?;
        let caps = caps(&mut tx, tenant, catalog).await;
        tx.end(caps).await
    }
}

/// Within a transaction: see [`Store::pool_caps`].
async fn caps(
    tx: &mut ControlTx,
    tenant: TenantId,
    catalog: &Catalog,
) -> Result<BTreeMap<Metric, PoolCap>, StoreError> {
    let mut caps = BTreeMap::new();
    for metric in POOLED {
        let bounds = Bounds::around(tx, tenant, metric, catalog).await?;
        if let Some(cap) = bounds.and_then(|bounds| bounds.cap(tenant)) {
            caps.insert(metric, cap);
        }
    }
    Ok(caps)
}

/// What bounds everybody who draws from the same pools.
pub(in crate::store) struct Bounds {
    family: Family,
    /// The quota of the tenant above all of them.
    plan: u64,
}

impl Bounds {
    /// Those of a tenant; `None` when it draws from no pool.
    pub(in crate::store) async fn around(
        tx: &mut ControlTx,
        tenant: TenantId,
        metric: Metric,
        catalog: &Catalog,
    ) -> Result<Option<Self>, StoreError> {
        let (top, family) = family::around(tx, tenant, metric).await?;
        if family.membership(tenant).is_none() {
            return Ok(None);
        }
        let top = rows::tenants(tx, Span::one(top)).await?;
        let quotas = top.first().and_then(|top| catalog.quotas_of(top));
        let plan = quotas.map_or(u64::MAX, |quotas| quotas.level_limit(metric));
        Ok(Some(Self { family, plan }))
    }

    /// What they leave one of them.
    pub(in crate::store) fn cap(&self, tenant: TenantId) -> Option<PoolCap> {
        let membership = self.family.membership(tenant)?;
        let limit = self.family.limit(tenant, self.plan);
        Some(PoolCap { owner: membership.owner, share: membership.share, limit })
    }
}

async fn reports(
    tx: &mut ControlTx,
    owner: TenantId,
    now: UnixMs,
) -> Result<BTreeMap<Metric, PoolReport>, StoreError> {
    let mut reports = BTreeMap::new();
    for metric in POOLED {
        if let Some(terms) = terms(tx, owner, metric).await? {
            let window = tokens::window(tx, owner, metric, now).await?;
            reports.insert(metric, report(tx, owner, metric, terms, window).await?);
        }
    }
    Ok(reports)
}

async fn report(
    tx: &mut ControlTx,
    owner: TenantId,
    metric: Metric,
    terms: Terms,
    window: Option<Window>,
) -> Result<PoolReport, StoreError> {
    let used = window.map_or(Use::Levels, Use::Charged);
    let family = family::below(tx, owner, metric, used).await?;
    let carried = match window {
        Some(window) => tokens::carried(tx, owner, metric, window).await?,
        None => 0,
    };
    let mut shares = None;
    if terms.shares.is_some() {
        let slugs = slugs(tx, owner).await?;
        let reported = family.members_of(owner).filter_map(|(child, share)| {
            let slug = slugs.get(&child)?.clone();
            let used = family.used(child).saturating_add(family.used_below(child));
            Some(ShareReport { slug, share, used })
        });
        let mut reported: Vec<_> = reported.collect();
        reported.sort_by(|a, b| a.slug.cmp(&b.slug));
        shares = Some(reported);
    }
    Ok(PoolReport {
        total: terms.total,
        used: family.used_below(owner).saturating_add(carried),
        committed: family.committed(owner).saturating_add(carried),
        shares,
    })
}

/// A tenant's pool as set, with the shares of those who are its children now.
async fn terms<S>(
    tx: &mut Tx<S>,
    owner: TenantId,
    metric: Metric,
) -> Result<Option<Terms>, StoreError> {
    let pool: Option<(i64, i64)> =
        sql("SELECT total, open FROM pool WHERE tenant_id = $1 AND metric = $2")
            .bind(owner.0)
            .bind(metric.as_str())
            .optional(tx)
            .await?;
    let Some((total, open)) = pool else { return Ok(None) };
    let rows: Vec<(Uuid, i64, i64)> = sql("SELECT share.child, share.guaranteed, share.maximum
         FROM pool_share share
         JOIN tenant ON tenant.id = share.child AND tenant.parent = share.tenant_id
         WHERE share.tenant_id = $1 AND share.metric = $2 ORDER BY share.child")
    .bind(owner.0)
    .bind(metric.as_str())
    .all(tx)
    .await?;
    let share = |(child, guaranteed, maximum)| {
        (TenantId(child), Share { guaranteed: uint(guaranteed), max: uint(maximum) })
    };
    let shares = (open == 0).then(|| rows.into_iter().map(share).collect());
    Ok(Some(Terms { total: uint(total), shares }))
}

/// The slugs of a tenant's children.
async fn slugs<S>(
    tx: &mut Tx<S>,
    parent: TenantId,
) -> Result<BTreeMap<TenantId, String>, StoreError> {
    let rows: Vec<(Uuid, String)> =
        sql("SELECT id, slug FROM tenant WHERE parent = $1").bind(parent.0).all(tx).await?;
    Ok(rows.into_iter().map(|(id, slug)| (TenantId(id), slug)).collect())
}
