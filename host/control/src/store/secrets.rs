//! Secrets of a tenant: written by name, read only into the directory.
//!
//! The values lie sealed in the database (`sealed.rs`). One that does not open is left out
//! of the directory, so that one tenant's damaged row holds up nobody's changes. Invariant:
//! no function here returns a value together with an intent to show it; the API sees names.

use std::collections::BTreeMap;

use model::{secret::Secret, tenant::TenantId};
use uuid::Uuid;

use super::{
    StoreError,
    db::{TenantTx, Tx, sql},
    rows::Span,
    sealed::{Place, Sealer},
};

/// Where a secret's value belongs.
pub(super) const fn place(tenant: TenantId, name: &str) -> Place<'_> {
    Place { tenant, table: "tenant_secret", row: name, column: "value" }
}

/// Values of a span, for the directory.
pub(super) async fn values<S>(
    tx: &mut Tx<S>,
    sealer: &Sealer,
    span: Span,
) -> Result<BTreeMap<TenantId, BTreeMap<String, Secret>>, StoreError> {
    let rows: Vec<(Uuid, String, String, Option<String>)> =
        sql("SELECT tenant_id, name, value, key_id FROM tenant_secret
         WHERE tenant_id BETWEEN $1 AND $2")
        .bind(span.first)
        .bind(span.last)
        .all(tx)
        .await?;
    let mut by_tenant = BTreeMap::<TenantId, BTreeMap<String, Secret>>::new();
    for (tenant, name, value, key_id) in rows {
        let tenant = TenantId(tenant);
        match sealer.open_text(place(tenant, &name), value, key_id.as_deref()) {
            Ok(value) => {
                drop(by_tenant.entry(tenant).or_default().insert(name, Secret::new(value)))
            }
            Err(error) => tracing::error!(%tenant, name, %error, "a secret was left out"),
        }
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
pub(super) async fn put(
    tx: &mut TenantTx,
    sealer: &Sealer,
    name: &str,
    value: &Secret,
) -> Result<(), StoreError> {
    let sealed = sealer.seal_text(place(tx.tenant(), name), value.expose())?;
    sql("INSERT INTO tenant_secret (tenant_id, name, value, key_id) VALUES ($1, $2, $3, $4)
         ON CONFLICT (tenant_id, name) DO UPDATE
         SET value = excluded.value, key_id = excluded.key_id")
    .bind(tx.tenant().0)
    .bind(name)
    .bind(&sealed.text)
    .bind(&sealed.key_id)
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
