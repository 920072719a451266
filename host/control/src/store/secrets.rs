//! Secrets of a tenant: written by name, read only into the directory.
//!
//! The values lie in the database as they are, in a file that only its owner may read;
//! envelope encryption comes with the tenant keys. Invariant: no function here returns a
//! value together with an intent to show it; the API sees names.

use std::collections::BTreeMap;

use model::{secret::Secret, tenant::TenantId};
use uuid::Uuid;

use super::{
    StoreError,
    db::{TenantTx, Tx, sql},
    rows::Span,
};

/// Values of a span, for the directory.
pub(super) async fn values<S>(
    tx: &mut Tx<S>,
    span: Span,
) -> Result<BTreeMap<TenantId, BTreeMap<String, Secret>>, StoreError> {
    let rows: Vec<(Uuid, String, String)> =
        sql("SELECT tenant_id, name, value FROM tenant_secret WHERE tenant_id BETWEEN $1 AND $2")
            .bind(span.first)
            .bind(span.last)
            .all(tx)
            .await?;
    let mut by_tenant = BTreeMap::<TenantId, BTreeMap<String, Secret>>::new();
    for (tenant, name, value) in rows {
        by_tenant.entry(TenantId(tenant)).or_default().insert(name, Secret::new(value));
    }
    Ok(by_tenant)
}

/// Names of a span, in their order.
pub(super) async fn names<S>(
    tx: &mut Tx<S>,
    span: Span,
) -> Result<BTreeMap<TenantId, Vec<String>>, StoreError> {
    let rows: Vec<(Uuid, String)> =
        sql("SELECT tenant_id, name FROM tenant_secret WHERE tenant_id BETWEEN $1 AND $2
         ORDER BY tenant_id, name")
        .bind(span.first)
        .bind(span.last)
        .all(tx)
        .await?;
    let mut by_tenant = BTreeMap::<TenantId, Vec<String>>::new();
    for (tenant, name) in rows {
        by_tenant.entry(TenantId(tenant)).or_default().push(name);
    }
    Ok(by_tenant)
}

/// Sets one secret.
pub(super) async fn put(tx: &mut TenantTx, name: &str, value: &Secret) -> Result<(), StoreError> {
    sql("INSERT INTO tenant_secret (tenant_id, name, value) VALUES ($1, $2, $3)
         ON CONFLICT (tenant_id, name) DO UPDATE SET value = excluded.value")
    .bind(tx.tenant().0)
    .bind(name)
    .bind(value.expose())
    .execute(tx)
    .await
    .map(drop)
}

/// Forgets one secret, or all of them.
pub(super) async fn forget(tx: &mut TenantTx, name: Option<&str>) -> Result<(), StoreError> {
    sql("DELETE FROM tenant_secret WHERE tenant_id = $1 AND ($2 IS NULL OR name = $2)")
        .bind(tx.tenant().0)
        .bind(name)
        .execute(tx)
        .await
        .map(drop)
}
