//! Pools of tokens, when their terms or their members change.
//!
//! What a tranche may be is decided by the authority when it is opened; here the accounts are
//! put in order around it. Invariants: while anything here runs, nothing is opened, reported
//! or credited; what was used before a change stays with the pool that it was drawn from, and
//! whatever is open below the change starts closing.

use model::{clock::UnixMs, pool::Terms, quota::Metric, tenant::TenantId, window::Window};
use uuid::Uuid;

use super::family::{self, Use};
use crate::store::{
    StoreError,
    authority::{int, uint},
    db::{ControlTx, Tx, sql},
    rows::{self, Span},
};

/// Keeps every quota account as it is until the end of the transaction; taken before any row.
/// On SQLite a transaction that writes excludes every other.
pub(in crate::store) async fn freeze(tx: &mut ControlTx) -> Result<(), StoreError> {
    if tx.is_alone() {
        return Ok(());
    }
    sql("LOCK TABLE quota_window IN EXCLUSIVE MODE").execute(tx).await.map(drop)
}

/// The window of a pool's members that holds now; `None` for a metric without windows.
pub(super) async fn window(
    tx: &mut ControlTx,
    owner: TenantId,
    metric: Metric,
    now: UnixMs,
) -> Result<Option<Window>, StoreError> {
    if !Metric::CONSUMABLE.contains(&metric) {
        return Ok(None);
    }
    let top = family::top(tx, owner, metric).await?;
    let top = rows::tenants(tx, Span::one(top)).await?;
    let anchor = top.first().map(|top| top.quota_anchor).unwrap_or_default();
    Ok(Window::of(metric, now, anchor))
}

/// Tokens that former members took from a pool in a window.
pub(in crate::store) async fn carried(
    tx: &mut ControlTx,
    owner: TenantId,
    metric: Metric,
    window: Window,
) -> Result<u64, StoreError> {
    let (carried,): (i64,) = sql("SELECT CAST(coalesce(sum(carried), 0) AS BIGINT)
         FROM quota_window
         WHERE tenant_id = $1 AND metric = $2 AND start_ms < $4 AND end_ms > $3")
    .bind(owner.0)
    .bind(metric.as_str())
    .bind(int(window.start.0))
    .bind(int(window.end.0))
    .one(tx)
    .await?;
    Ok(uint(carried))
}

/// Puts the accounts in order after the terms of a pool changed from the first to the second.
pub(super) async fn settle(
    tx: &mut ControlTx,
    owner: TenantId,
    metric: Metric,
    (before, after): (Option<&Terms>, Option<&Terms>),
    now: UnixMs,
) -> Result<(), StoreError> {
    let children: Vec<(Uuid,)> =
        sql("SELECT id FROM tenant WHERE parent = $1").bind(owner.0).all(tx).await?;
    for child in children.into_iter().map(|(child,)| TenantId(child)) {
        let within =
            |terms: Option<&Terms>| terms.and_then(|terms| terms.share_of(child)).map(|_| owner);
        pass(tx, child, metric, (within(before), within(after)), now).await?;
    }
    if let Some(terms) = after {
        note_size(tx, owner, metric, terms.total, now).await?;
    }
    close_below(tx, owner, metric, now).await?;
    free_above(tx, owner, metric).await
}

/// A move of a tenant, as far as pools of tokens are concerned.
pub(in crate::store) struct Moving(Vec<(Metric, Option<TenantId>)>);

impl Moving {
    /// Before the move.
    pub(in crate::store) async fn from(
        tx: &mut ControlTx,
        tenant: TenantId,
    ) -> Result<Self, StoreError> {
        let mut held = Vec::new();
        if is_any(tx).await? {
            freeze(tx).await?;
            for metric in Metric::CONSUMABLE {
                held.push((metric, owner_of(tx, tenant, metric).await?));
            }
        }
        Ok(Self(held))
    }

    /// After it.
    pub(in crate::store) async fn done(
        self,
        tx: &mut ControlTx,
        tenant: TenantId,
        now: UnixMs,
    ) -> Result<(), StoreError> {
        for (metric, before) in self.0 {
            let after = owner_of(tx, tenant, metric).await?;
            if before == after {
                continue;
            }
            pass(tx, tenant, metric, (before, after), now).await?;
            close_below(tx, tenant, metric, now).await?;
            for owner in [before, after].into_iter().flatten() {
                free_above(tx, owner, metric).await?;
            }
        }
        Ok(())
    }
}

/// Whether there is a pool of tokens at all.
pub(in crate::store) async fn is_any(tx: &mut ControlTx) -> Result<bool, StoreError> {
    let found: Option<(i64,)> =
        sql("SELECT total FROM pool WHERE metric IN ('api_calls', 'ai_requests') LIMIT 1")
            .optional(tx)
            .await?;
    Ok(found.is_some())
}

/// The owner of the pool that a tenant is a member of.
async fn owner_of<S>(
    tx: &mut Tx<S>,
    tenant: TenantId,
    metric: Metric,
) -> Result<Option<TenantId>, StoreError> {
    let owner: Option<(Uuid,)> = sql("SELECT pool.tenant_id FROM tenant
         JOIN pool ON pool.tenant_id = tenant.parent AND pool.metric = $2
         LEFT JOIN pool_share share ON share.tenant_id = pool.tenant_id
          AND share.metric = pool.metric AND share.child = tenant.id
         WHERE tenant.id = $1 AND (pool.open = 1 OR share.child IS NOT NULL)")
    .bind(tenant.0)
    .bind(metric.as_str())
    .optional(tx)
    .await?;
    Ok(owner.map(|(owner,)| TenantId(owner)))
}

/// Takes a tenant out of one pool and into another. What it and those below it used stays
/// with the first as carried; to the second it is new. Out of all pools, all that it used in
/// the window counts for its plan: else coming and going would renew its quota.
async fn pass(
    tx: &mut ControlTx,
    tenant: TenantId,
    metric: Metric,
    (from, into): (Option<TenantId>, Option<TenantId>),
    now: UnixMs,
) -> Result<(), StoreError> {
    if from == into {
        return Ok(());
    }
    for window in live(tx, tenant, metric, now).await? {
        let family = family::below(tx, tenant, metric, Use::Granted(window)).await?;
        let below = family.used_below(tenant);
        let used = family.used(tenant).saturating_add(below);
        if let Some(owner) = from.filter(|_| used > 0) {
            carry(tx, owner, metric, window, used).await?;
        }
        if let Some(owner) = into.filter(|_| below > 0) {
            raise_size(tx, owner, metric, below, now).await?;
        }
    }
    sql("UPDATE quota_window SET pool_top = NULL, pool_dry = NULL,
             pool_base = CASE WHEN $4 = 1 THEN granted - credited ELSE 0 END,
             pool_since = CASE WHEN $4 = 1 THEN latest ELSE 0 END
         WHERE tenant_id = $1 AND metric = $2 AND end_ms > $3")
    .bind(tenant.0)
    .bind(metric.as_str())
    .bind(int(now.0))
    .bind(i64::from(into.is_some()))
    .execute(tx)
    .await
    .map(drop)
}

/// Windows of a tenant and of those below it that have not ended.
async fn live(
    tx: &mut ControlTx,
    tenant: TenantId,
    metric: Metric,
    now: UnixMs,
) -> Result<Vec<Window>, StoreError> {
    let rows: Vec<(i64, i64)> = sql("SELECT DISTINCT w.start_ms, w.end_ms
         FROM tenant_closure c
         JOIN quota_window w ON w.tenant_id = c.tenant_id AND w.metric = $2
         WHERE c.ancestor = $1 AND w.end_ms > $3")
    .bind(tenant.0)
    .bind(metric.as_str())
    .bind(int(now.0))
    .all(tx)
    .await?;
    let window = |(start, end)| Window { start: UnixMs(uint(start)), end: UnixMs(uint(end)) };
    Ok(rows.into_iter().map(window).collect())
}

/// Leaves tokens with the pool that they were drawn from.
async fn carry(
    tx: &mut ControlTx,
    owner: TenantId,
    metric: Metric,
    window: Window,
    tokens: u64,
) -> Result<(), StoreError> {
    sql("INSERT INTO quota_window (tenant_id, metric, start_ms, end_ms, limit_version,
             limit_tokens, limit_high, carried)
         VALUES ($1, $2, $3, $4, 1, 0, 0, $5)
         ON CONFLICT (tenant_id, metric, start_ms)
         DO UPDATE SET carried = quota_window.carried + excluded.carried")
    .bind(owner.0)
    .bind(metric.as_str())
    .bind(int(window.start.0))
    .bind(int(window.end.0))
    .bind(int(tokens))
    .execute(tx)
    .await
    .map(drop)
}

/// Notes the size of a pool, for the audit.
async fn note_size(
    tx: &mut ControlTx,
    owner: TenantId,
    metric: Metric,
    total: u64,
    now: UnixMs,
) -> Result<(), StoreError> {
    sql("INSERT INTO quota_pool (tenant_id, metric, freed, total_high, since_ms)
         VALUES ($1, $2, 0, $3, $4)
         ON CONFLICT (tenant_id, metric) DO UPDATE SET since_ms = excluded.since_ms,
             total_high = CASE WHEN quota_pool.total_high < excluded.total_high
                 THEN excluded.total_high ELSE quota_pool.total_high END")
    .bind(owner.0)
    .bind(metric.as_str())
    .bind(int(total))
    .bind(int(now.0))
    .execute(tx)
    .await
    .map(drop)
}

/// A member came with use of those below it, which is counted though it was not drawn here.
async fn raise_size(
    tx: &mut ControlTx,
    owner: TenantId,
    metric: Metric,
    tokens: u64,
    now: UnixMs,
) -> Result<(), StoreError> {
    sql("UPDATE quota_pool SET total_high = total_high + $3, since_ms = $4
         WHERE metric = $2 AND tenant_id IN (
             SELECT ancestor FROM tenant_closure WHERE tenant_id = $1)")
    .bind(owner.0)
    .bind(metric.as_str())
    .bind(int(tokens))
    .bind(int(now.0))
    .execute(tx)
    .await
    .map(drop)
}

/// Starts closing whatever is open of a tenant and of those below it.
async fn close_below(
    tx: &mut ControlTx,
    tenant: TenantId,
    metric: Metric,
    now: UnixMs,
) -> Result<(), StoreError> {
    for statement in [
        "UPDATE quota_epoch SET state = 'closing'
         WHERE metric = $2 AND state = 'open'
           AND tenant_id IN (SELECT tenant_id FROM tenant_closure WHERE ancestor = $1)
           AND EXISTS (SELECT 1 FROM quota_window w WHERE w.tenant_id = quota_epoch.tenant_id
               AND w.metric = quota_epoch.metric AND w.start_ms = quota_epoch.start_ms
               AND w.end_ms > $3)",
        "UPDATE quota_window SET shared_floor = shared_latest
         WHERE metric = $2 AND shared_floor < shared_latest AND end_ms > $3
           AND tenant_id IN (SELECT tenant_id FROM tenant_closure WHERE ancestor = $1)",
    ] {
        sql(statement).bind(tenant.0).bind(metric.as_str()).bind(int(now.0)).execute(tx).await?;
    }
    Ok(())
}

/// Has those who found a pool, or one above it, used up look again.
async fn free_above(tx: &mut ControlTx, owner: TenantId, metric: Metric) -> Result<(), StoreError> {
    sql("UPDATE quota_pool SET freed = freed + 1
         WHERE metric = $2 AND tenant_id IN (
             SELECT ancestor FROM tenant_closure WHERE tenant_id = $1)")
    .bind(owner.0)
    .bind(metric.as_str())
    .execute(tx)
    .await
    .map(drop)
}
