//! The closure table: a row for every tenant and each of its ancestors, itself included.
//!
//! Called within a change of the directory, so that no two changes of families overlap.
//! Invariant: every statement leaves the closure equal to what following parents gives,
//! once the caller has written the parent that it names.

use model::{clock::UnixMs, tenant::TenantId};
use uuid::Uuid;

use crate::store::{
    StoreError,
    db::{ControlTx, sql},
    rows,
};

/// Adds a new tenant below its parent, or as a root.
pub(in crate::store) async fn add(
    tx: &mut ControlTx,
    tenant: TenantId,
    parent: Option<TenantId>,
    now: UnixMs,
) -> Result<(), StoreError> {
    sql("INSERT INTO tenant_closure (tenant_id, ancestor, depth)
         SELECT $1, ancestor, depth + 1 FROM tenant_closure WHERE tenant_id = $2
         UNION ALL SELECT $1, $1, 0")
    .bind(tenant.0)
    .bind(parent.map(|parent| parent.0))
    .execute(tx)
    .await?;
    remember(tx, tenant, parent, now).await
}

/// Puts a tenant, with its whole subtree, below another parent. The caller knows that the
/// parent is not in that subtree.
pub(super) async fn transplant(
    tx: &mut ControlTx,
    tenant: TenantId,
    parent: Option<TenantId>,
    now: UnixMs,
) -> Result<(), StoreError> {
    sql("DELETE FROM tenant_closure
         WHERE tenant_id IN (SELECT tenant_id FROM tenant_closure WHERE ancestor = $1)
           AND ancestor NOT IN (SELECT tenant_id FROM tenant_closure WHERE ancestor = $1)")
    .bind(tenant.0)
    .execute(tx)
    .await?;
    sql("INSERT INTO tenant_closure (tenant_id, ancestor, depth)
         SELECT below.tenant_id, above.ancestor, below.depth + above.depth + 1
         FROM tenant_closure below CROSS JOIN tenant_closure above
         WHERE below.ancestor = $1 AND above.tenant_id = $2")
    .bind(tenant.0)
    .bind(parent.map(|parent| parent.0))
    .execute(tx)
    .await?;
    remember(tx, tenant, parent, now).await
}

/// Keeps whose child the tenant is from now on.
async fn remember(
    tx: &mut ControlTx,
    tenant: TenantId,
    parent: Option<TenantId>,
    now: UnixMs,
) -> Result<(), StoreError> {
    sql("INSERT INTO tenant_parent (tenant_id, since, parent) VALUES ($1, $2, $3)
         ON CONFLICT (tenant_id, since) DO UPDATE SET parent = excluded.parent")
    .bind(tenant.0)
    .bind(rows::stored(now))
    .bind(parent.map(|parent| parent.0))
    .execute(tx)
    .await
    .map(drop)
}

/// A tenant and its ancestors, nearest first.
pub(in crate::store) async fn line(
    tx: &mut ControlTx,
    tenant: TenantId,
) -> Result<Vec<TenantId>, StoreError> {
    let rows: Vec<(Uuid,)> =
        sql("SELECT ancestor FROM tenant_closure WHERE tenant_id = $1 ORDER BY depth")
            .bind(tenant.0)
            .all(tx)
            .await?;
    Ok(rows.into_iter().map(|(id,)| TenantId(id)).collect())
}

/// A tenant and its descendants, in the order of their ids.
pub(in crate::store) async fn subtree(
    tx: &mut ControlTx,
    root: TenantId,
) -> Result<Vec<TenantId>, StoreError> {
    let rows: Vec<(Uuid,)> =
        sql("SELECT tenant_id FROM tenant_closure WHERE ancestor = $1 ORDER BY tenant_id")
            .bind(root.0)
            .all(tx)
            .await?;
    Ok(rows.into_iter().map(|(id,)| TenantId(id)).collect())
}

/// Levels of the subtree of a tenant, its own included.
pub(super) async fn levels_below(tx: &mut ControlTx, root: TenantId) -> Result<i64, StoreError> {
    let (deepest,): (Option<i64>,) =
        sql("SELECT MAX(depth) FROM tenant_closure WHERE ancestor = $1")
            .bind(root.0)
            .one(tx)
            .await?;
    Ok(deepest.map_or(0, |deepest| deepest + 1))
}

/// Levels from the root of a family down to a tenant, its own included; 0 for an unknown one.
pub(in crate::store) async fn levels_above(
    tx: &mut ControlTx,
    tenant: TenantId,
) -> Result<i64, StoreError> {
    let (levels,): (i64,) = sql("SELECT COUNT(*) FROM tenant_closure WHERE tenant_id = $1")
        .bind(tenant.0)
        .one(tx)
        .await?;
    Ok(levels)
}
