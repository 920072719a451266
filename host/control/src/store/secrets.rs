//! Secrets of a tenant: written by name, read only into the directory.
//!
//! The values lie in the database as they are, in a file that only its owner may read;
//! envelope encryption comes with the tenant keys. Invariant: no function here returns a
//! value together with an intent to show it; the API sees names.

use std::collections::BTreeMap;

use model::{secret::Secret, tenant::TenantId};
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::{StoreError, rows::Span};

/// Values of a span, for the directory.
pub(super) async fn values(
    connection: &mut SqliteConnection,
    span: Span,
) -> Result<BTreeMap<TenantId, BTreeMap<String, Secret>>, StoreError> {
    let rows: Vec<(Uuid, String, String)> = sqlx::query_as(
        "SELECT tenant, name, value FROM tenant_secret WHERE tenant BETWEEN $1 AND $2",
    )
    .bind(span.first)
    .bind(span.last)
    .fetch_all(connection)
    .await?;
    let mut by_tenant = BTreeMap::<TenantId, BTreeMap<String, Secret>>::new();
    for (tenant, name, value) in rows {
        by_tenant.entry(TenantId(tenant)).or_default().insert(name, Secret::new(value));
    }
    Ok(by_tenant)
}

/// Names of a span, in their order.
pub(super) async fn names(
    connection: &mut SqliteConnection,
    span: Span,
) -> Result<BTreeMap<TenantId, Vec<String>>, StoreError> {
    let rows: Vec<(Uuid, String)> = sqlx::query_as(
        "SELECT tenant, name FROM tenant_secret WHERE tenant BETWEEN $1 AND $2
         ORDER BY tenant, name",
    )
    .bind(span.first)
    .bind(span.last)
    .fetch_all(connection)
    .await?;
    let mut by_tenant = BTreeMap::<TenantId, Vec<String>>::new();
    for (tenant, name) in rows {
        by_tenant.entry(TenantId(tenant)).or_default().push(name);
    }
    Ok(by_tenant)
}

/// Sets one secret.
pub(super) async fn put(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    name: &str,
    value: &Secret,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO tenant_secret (tenant, name, value) VALUES ($1, $2, $3)
         ON CONFLICT (tenant, name) DO UPDATE SET value = excluded.value",
    )
    .bind(tenant.0)
    .bind(name)
    .bind(value.expose())
    .execute(connection)
    .await?;
    Ok(())
}

/// Forgets one secret, or all of them.
pub(super) async fn forget(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    name: Option<&str>,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM tenant_secret WHERE tenant = $1 AND ($2 IS NULL OR name = $2)")
        .bind(tenant.0)
        .bind(name)
        .execute(connection)
        .await?;
    Ok(())
}
