//! Levels that a tenant's backends report: users, projects, and storage in bytes.
//!
//! A backend states a fact ([`Store::put_levels`]), which no quota refuses, or claims room
//! before it takes it (`claim.rs`), which one may; the edge sets room aside for what it
//! forwards (`reservations.rs`). A fact is also what ends reservations of which nobody knew
//! what became. Invariant: whoever changes a level holds
//! its row, and the hour's bucket of the history is written with it, so that counts and
//! history survive together.

mod claim;
mod room;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use model::{clock::UnixMs, quota::Metric, tenant::TenantId};

pub use self::claim::{Claim, ClaimError, ClaimTaken};
pub(super) use self::{
    claim::{KEPT_MS as CLAIM_KEPT_MS, LEVEL_MAX},
    room::Judged,
};
use super::{
    ChangeError, Store, StoreError,
    audit::{self, Act, Actor},
    authority::{int, uint},
    db::{ControlTx, Purpose, TenantTx, Tx, locking, sql},
    reservations,
    rows::stored,
    trends,
};

/// A level as it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Level {
    /// What is used.
    pub(super) used: u64,
    /// What is set aside for requests under way, or whose outcome is not known.
    pub(super) reserved: u64,
}

impl Level {
    /// What counts against the limit.
    const fn taken(&self) -> u64 {
        self.used.saturating_add(self.reserved)
    }
}

impl Store {
    /// A tenant's levels, but the sessions, which no backend reports; a metric that nobody
    /// reported is absent and means 0.
    ///
    /// # Errors
    /// The store failed.
    pub async fn levels(&self, tenant: TenantId) -> Result<BTreeMap<Metric, u64>, StoreError> {
        let mut tx = self.db.tenant(tenant, Purpose::Read).await?;
        let levels = read(&mut tx).await;
        tx.end(levels).await
    }

    /// One level of some tenants, by tenant; those that nobody reported are absent.
    ///
    /// # Errors
    /// The store failed.
    pub async fn levels_of(
        &self,
        metric: Metric,
        tenants: &[TenantId],
    ) -> Result<BTreeMap<TenantId, u64>, StoreError> {
        if tenants.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut tx = self.db.control(Purpose::Read).await?;
        let levels = of_tenants(&mut tx, metric, tenants).await;
        tx.end(levels).await
    }

    /// The levels of a tenant and all those below it, added up.
    ///
    /// # Errors
    /// The store failed.
    pub async fn levels_below(&self, root: TenantId) -> Result<BTreeMap<Metric, u64>, StoreError> {
        let mut tx = self.db.control(Purpose::Read).await?;
        let sums = sums(&mut tx, root).await;
        tx.end(sums).await
    }

    /// Sets levels to what a backend counted, and answers all of them.
    ///
    /// # Errors
    /// There is no such tenant, or the store failed.
    pub async fn put_levels(
        &self,
        by: &Actor,
        tenant: TenantId,
        facts: &BTreeMap<Metric, u64>,
    ) -> Result<BTreeMap<Metric, u64>, ChangeError> {
        let act = Act::new(by, "usage.report", "levels");
        let mut tx = self.db.tenant(tenant, Purpose::Write).await?;
        let outcome = put(&mut tx, act, facts, self.clock.now()).await;
        tx.end(outcome).await
    }
}

async fn sums(tx: &mut ControlTx, root: TenantId) -> Result<BTreeMap<Metric, u64>, StoreError> {
    let rows: Vec<(String, i64)> = sql("SELECT l.metric, CAST(SUM(l.value) AS BIGINT)
         FROM tenant_closure c JOIN usage_level l ON l.tenant_id = c.tenant_id
         WHERE c.ancestor = $1 GROUP BY l.metric")
    .bind(root.0)
    .all(tx)
    .await?;
    let sum = |(name, sum): (String, i64)| Some((Metric::from_name(&name)?, uint(sum)));
    Ok(rows.into_iter().filter_map(sum).collect())
}

async fn of_tenants(
    tx: &mut ControlTx,
    metric: Metric,
    tenants: &[TenantId],
) -> Result<BTreeMap<TenantId, u64>, StoreError> {
    let mut levels = BTreeMap::new();
    for tenant in tenants {
        let level: Option<(i64,)> =
            sql("SELECT value FROM usage_level WHERE tenant_id = $1 AND metric = $2")
                .bind(tenant.0)
                .bind(metric.as_str())
                .optional(tx)
                .await?;
        levels.extend(level.map(|(level,)| (*tenant, uint(level))));
    }
    Ok(levels)
}

/// In the order of the metrics, so that two reports never wait for each other.
async fn put(
    tx: &mut TenantTx,
    mut act: Act,
    facts: &BTreeMap<Metric, u64>,
    now: UnixMs,
) -> Result<BTreeMap<Metric, u64>, ChangeError> {
    let tenant = tx.tenant();
    let known: Option<(String,)> =
        sql("SELECT slug FROM tenant WHERE id = $1").bind(tenant.0).optional(tx).await?;
    if known.is_none() {
        return Err(ChangeError::NotFound);
    }
    let before = read(tx).await?;
    for (&metric, &level) in facts {
        set(tx, tenant, metric, level, now).await?;
        reservations::end_unknown(tx, metric, now).await?;
    }
    let after = read(tx).await?;
    act.describe(Some(&before), Some(&after));
    audit::append(tx, tenant, &act, now).await?;
    Ok(after)
}

/// A tenant's level, locked; 0 where nobody reported it.
pub(super) async fn hold(
    tx: &mut ControlTx,
    tenant: TenantId,
    metric: Metric,
    now: UnixMs,
) -> Result<Level, StoreError> {
    sql("INSERT INTO usage_level (tenant_id, metric, value, updated_at) VALUES ($1, $2, 0, $3)
         ON CONFLICT (tenant_id, metric) DO NOTHING")
    .bind(tenant.0)
    .bind(metric.as_str())
    .bind(stored(now))
    .execute(tx)
    .await?;
    let (used, reserved): (i64, i64) =
        locking!("SELECT value, reserved FROM usage_level WHERE tenant_id = $1 AND metric = $2")
            .bind(tenant.0)
            .bind(metric.as_str())
            .one(tx)
            .await?;
    Ok(Level { used: uint(used), reserved: uint(reserved) })
}

/// Writes a level and its place in the history.
pub(super) async fn set<S>(
    tx: &mut Tx<S>,
    tenant: TenantId,
    metric: Metric,
    level: u64,
    now: UnixMs,
) -> Result<(), StoreError> {
    sql("INSERT INTO usage_level (tenant_id, metric, value, updated_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (tenant_id, metric)
         DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at")
    .bind(tenant.0)
    .bind(metric.as_str())
    .bind(int(level))
    .bind(stored(now))
    .execute(tx)
    .await?;
    trends::put_level(tx, tenant, metric, level, now).await
}

async fn read(tx: &mut TenantTx) -> Result<BTreeMap<Metric, u64>, StoreError> {
    let rows: Vec<(String, i64)> =
        sql("SELECT metric, value FROM usage_level WHERE tenant_id = $1 AND metric <> $2")
            .bind(tx.tenant().0)
            .bind(Metric::ConcurrentSessions.as_str())
            .all(tx)
            .await?;
    let level = |(name, value): (String, i64)| {
        let metric = Metric::from_name(&name)
            .ok_or_else(|| StoreError::Decode(format!("level {name:?}")))?;
        Ok((metric, uint(value)))
    };
    rows.into_iter().map(level).collect()
}
