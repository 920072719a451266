//! Setting a tenant's pools: all of them at once, checked and written in one transaction.
//!
//! Invariant: what is refused names every broken rule and whose share breaks it, and leaves
//! everything as it was.

use std::{collections::BTreeMap, sync::Arc};

use model::{
    catalog::Catalog,
    clock::UnixMs,
    pool::{self, Fault, Owner, POOLED, Share, SubPool, Terms},
    quota::Metric,
    tenant::{FAMILY_DEPTH_MAX, TenantId},
};
use uuid::Uuid;

use super::{PoolReport, family, reports, slugs, tag, terms, tokens};
use crate::store::{
    Store, StoreError,
    audit::{Act, Actor},
    authority::int,
    change::{Change, detached},
    db::{ControlTx, Installation, sql, sql_each},
    rows::{self, Span},
};

/// A pool to set, in the metric's own unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPool {
    /// Its size.
    pub total: u64,
    /// Shares by the id or slug of a child; `None` lets every child use the pool.
    pub shares: Option<Vec<(String, Share)>>,
}

/// A rule that a wanted pool breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolFault {
    /// Of which pool.
    pub metric: Metric,
    /// Whose share, as the caller named it, or by its slug; `None` for the pool itself.
    pub member: Option<String>,
    /// Which rule.
    pub rule: PoolRule,
}

/// Which rule is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolRule {
    /// The member is no child of the pool's owner.
    NoChild,
    /// The child has another share.
    Twice,
    /// A rule of the figures.
    Figures(Fault),
}

/// Why nothing was set.
#[derive(Debug, thiserror::Error)]
pub enum PoolsError {
    /// There is no such tenant.
    #[error("there is no such tenant")]
    NotFound,
    /// They are not as the caller knows them.
    #[error("the pools have changed")]
    TagMismatch,
    /// Rules are broken.
    #[error("the pools break {} rules", .0.len())]
    Faults(Vec<PoolFault>),
    /// The plan that would say how large a pool may be is not declared.
    #[error("the plan {0:?} is not declared")]
    PlanUnknown(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// Replaces a tenant's pools: a metric that is not in `wanted` has none afterwards. With
    /// `if_tag`, only when [`super::tag`] of what there is says the same.
    ///
    /// # Errors
    /// A rule is broken, there is no such tenant, or the store failed.
    pub async fn put_pools(
        self: &Arc<Self>,
        by: &Actor,
        owner: TenantId,
        wanted: &BTreeMap<Metric, NewPool>,
        catalog: &Catalog,
        if_tag: Option<&str>,
    ) -> Result<BTreeMap<Metric, PoolReport>, PoolsError> {
        let (store, act) = (Arc::clone(self), Act::new(by, "pools.set", "pools"));
        let (wanted, catalog) = (wanted.clone(), catalog.clone());
        let if_tag = if_tag.map(ToOwned::to_owned);
        detached(async move {
            let mut change = Change::of_installation(&store, act).await?;
            change.about(owner);
            let (asked, now) = ((owner, if_tag.as_deref()), store.clock.now());
            let outcome = put(&mut change, asked, &wanted, &catalog, now).await;
            change.end(outcome).await
        })
        .await
    }
}

async fn put(
    whole: &mut Change<Installation>,
    (owner, if_tag): (TenantId, Option<&str>),
    wanted: &BTreeMap<Metric, NewPool>,
    catalog: &Catalog,
    now: UnixMs,
) -> Result<BTreeMap<Metric, PoolReport>, PoolsError> {
    let tx = &mut whole.tx;
    tokens::freeze(tx).await?;
    hold_family(tx, owner).await?;
    if let Some(expected) = if_tag
        && *expected != tag(&reports(tx, owner, now).await?)
    {
        return Err(PoolsError::TagMismatch);
    }
    let children = slugs(tx, owner).await?;
    let mut faults = Vec::new();
    let mut settled = Vec::new();
    for metric in POOLED {
        family::hold(tx, owner, metric).await?;
        let change = Wanted { owner, metric, children: &children };
        let terms = wanted.get(&metric).map(|pool| change.resolve(pool, &mut faults));
        change.check(tx, terms.as_ref(), catalog, &mut faults).await?;
        settled.push((metric, terms));
    }
    if !faults.is_empty() {
        return Err(PoolsError::Faults(faults));
    }
    let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
    let mut published = false;
    for (metric, terms) in settled {
        let was = super::terms(tx, owner, metric).await?;
        write(tx, owner, metric, terms.as_ref()).await?;
        if Metric::CONSUMABLE.contains(&metric) && was != terms {
            tokens::settle(tx, owner, metric, (was.as_ref(), terms.as_ref()), now).await?;
            published = true;
        }
        before.insert(metric, was);
        after.insert(metric, terms);
    }
    whole.describe(Some(&before), Some(&after));
    if published {
        // Edges size what they ask for by the shares, and show them.
        whole.publish_with_children(owner).await?;
    }
    Ok(reports(&mut whole.tx, owner, now).await?)
}

/// Excludes every other change of the family's pools: the root's row is their lock.
async fn hold_family(tx: &mut ControlTx, tenant: TenantId) -> Result<(), PoolsError> {
    let line: Vec<(Uuid,)> = sql("WITH RECURSIVE line (id, parent, depth) AS (
             SELECT id, parent, 0 FROM tenant WHERE id = $1
             UNION ALL
             SELECT tenant.id, tenant.parent, line.depth + 1
             FROM tenant JOIN line ON tenant.id = line.parent WHERE line.depth < $2)
         SELECT id FROM line ORDER BY depth")
    .bind(tenant.0)
    .bind(i64::from(FAMILY_DEPTH_MAX))
    .all(tx)
    .await?;
    let (root,) = line.last().ok_or(PoolsError::NotFound)?;
    sql_each(
        "SELECT slug FROM tenant WHERE id = $1",
        "SELECT slug FROM tenant WHERE id = $1 FOR NO KEY UPDATE",
    )
    .bind(*root)
    .one::<(String,), _>(tx)
    .await?;
    Ok(())
}

/// The pool of one metric that is being set.
struct Wanted<'a> {
    owner: TenantId,
    metric: Metric,
    children: &'a BTreeMap<TenantId, String>,
}

impl Wanted<'_> {
    /// The wanted pool with children for names; what names nobody is a fault.
    fn resolve(&self, wanted: &NewPool, faults: &mut Vec<PoolFault>) -> Terms {
        let Some(named) = &wanted.shares else {
            return Terms { total: wanted.total, shares: None };
        };
        let mut shares: Vec<(TenantId, Share)> = Vec::with_capacity(named.len());
        for (name, share) in named {
            let rule = match self.child(name) {
                None => PoolRule::NoChild,
                Some(child) if shares.iter().any(|(held, _)| *held == child) => PoolRule::Twice,
                Some(child) => {
                    shares.push((child, *share));
                    continue;
                }
            };
            faults.push(PoolFault { metric: self.metric, member: Some(name.clone()), rule });
        }
        Terms { total: wanted.total, shares: Some(shares) }
    }

    fn child(&self, name: &str) -> Option<TenantId> {
        if let Ok(id) = name.parse::<TenantId>() {
            return self.children.contains_key(&id).then_some(id);
        }
        self.children.iter().find(|(_, slug)| *slug == name).map(|(id, _)| *id)
    }

    async fn check(
        &self,
        tx: &mut ControlTx,
        terms: Option<&Terms>,
        catalog: &Catalog,
        faults: &mut Vec<PoolFault>,
    ) -> Result<(), PoolsError> {
        let below = self.sub_pools(tx, catalog).await?;
        if terms.is_none() && below.is_empty() {
            return Ok(());
        }
        let owner = self.owner(tx, catalog).await?;
        let metric = self.metric;
        faults.extend(pool::faults(terms, owner, &below).into_iter().map(|fault| {
            let member = child_of(fault).and_then(|child| self.children.get(&child)).cloned();
            PoolFault { metric, member, rule: PoolRule::Figures(fault) }
        }));
        Ok(())
    }

    /// The owner's own place one level up.
    async fn owner(&self, tx: &mut ControlTx, catalog: &Catalog) -> Result<Owner, PoolsError> {
        let (_, family) = family::around(tx, self.owner, self.metric).await?;
        match family.membership(self.owner) {
            Some(place) => {
                Ok(Owner { cap: place.share.max, guaranteed: Some(place.share.guaranteed) })
            }
            None => {
                let cap = plan_limit(tx, self.owner, self.metric, catalog).await?;
                Ok(Owner { cap, guaranteed: None })
            }
        }
    }

    /// The pools that children of the owner have.
    async fn sub_pools(
        &self,
        tx: &mut ControlTx,
        catalog: &Catalog,
    ) -> Result<Vec<SubPool>, PoolsError> {
        let owners: Vec<(Uuid,)> = sql("SELECT pool.tenant_id FROM tenant
             JOIN pool ON pool.tenant_id = tenant.id AND pool.metric = $2
             WHERE tenant.parent = $1 ORDER BY pool.tenant_id")
        .bind(self.owner.0)
        .bind(self.metric.as_str())
        .all(tx)
        .await?;
        let mut below = Vec::with_capacity(owners.len());
        for owner in owners.into_iter().map(|(owner,)| TenantId(owner)) {
            let Some(terms) = terms(tx, owner, self.metric).await? else { continue };
            let plan = plan_limit(tx, owner, self.metric, catalog).await?;
            below.push(SubPool { owner, total: terms.total, guaranteed: terms.guaranteed(), plan });
        }
        Ok(below)
    }
}

/// Whose share a fault is about.
const fn child_of(fault: Fault) -> Option<TenantId> {
    match fault {
        Fault::AboveOwner { .. } | Fault::AboveTotal { .. } | Fault::AboveGuarantee { .. } => None,
        Fault::Inverted { child }
        | Fault::MaxAboveTotal { child }
        | Fault::SubPoolTotal { child, .. }
        | Fault::SubPoolGuarantee { child, .. } => Some(child),
    }
}

async fn plan_limit(
    tx: &mut ControlTx,
    tenant: TenantId,
    metric: Metric,
    catalog: &Catalog,
) -> Result<u64, PoolsError> {
    let tenants = rows::tenants(tx, Span::one(tenant)).await?;
    let tenant = tenants.first().ok_or(PoolsError::NotFound)?;
    let quotas = catalog.quotas_of(tenant);
    let quotas = quotas.ok_or_else(|| PoolsError::PlanUnknown(tenant.plan.clone()))?;
    Ok(quotas.level_limit(metric))
}

async fn write(
    tx: &mut ControlTx,
    owner: TenantId,
    metric: Metric,
    terms: Option<&Terms>,
) -> Result<(), StoreError> {
    let of = |statement| sql(statement).bind(owner.0).bind(metric.as_str());
    of("DELETE FROM pool_share WHERE tenant_id = $1 AND metric = $2").execute(tx).await?;
    let Some(terms) = terms else {
        of("DELETE FROM pool WHERE tenant_id = $1 AND metric = $2").execute(tx).await?;
        return Ok(());
    };
    of("INSERT INTO pool (tenant_id, metric, total, open) VALUES ($1, $2, $3, $4)
        ON CONFLICT (tenant_id, metric)
        DO UPDATE SET total = excluded.total, open = excluded.open")
    .bind(int(terms.total))
    .bind(i64::from(terms.shares.is_none()))
    .execute(tx)
    .await?;
    for (child, share) in terms.shares.iter().flatten() {
        of("INSERT INTO pool_share (tenant_id, metric, child, guaranteed, maximum)
            VALUES ($1, $2, $3, $4, $5)")
        .bind(child.0)
        .bind(int(share.guaranteed))
        .bind(int(share.max))
        .execute(tx)
        .await?;
    }
    Ok(())
}
