//! The directory as the data plane gets it, read whole at start-up and then kept current
//! one tenant at a time.
//!
//! Invariant: tenants are in the order of their ids; revoked keys are absent.

use std::{collections::BTreeMap, sync::Arc};

use model::{
    directory::{Directory, TenantRecord},
    key::{ApiKey, SecretHash},
    tenant::TenantId,
};
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::{StoreError, rows, rows::Span, secrets};

/// Tenants of a span, with what belongs to them.
pub(super) struct Part {
    pub(super) tenants: Vec<Arc<TenantRecord>>,
    pub(super) keys: Vec<Arc<ApiKey>>,
}

/// Reads a span of tenants with their secrets and live keys.
pub(super) async fn load(
    connection: &mut SqliteConnection,
    span: Span,
) -> Result<Part, StoreError> {
    let mut secrets = secrets::values(connection, span).await?;
    let tenants = rows::tenants(connection, span).await?;
    let tenants = tenants
        .into_iter()
        .map(|tenant| {
            let secrets = secrets.remove(&tenant.id).unwrap_or_else(BTreeMap::new);
            Arc::new(TenantRecord { tenant, secrets })
        })
        .collect();
    Ok(Part { tenants, keys: keys(connection, span).await? })
}

async fn keys(
    connection: &mut SqliteConnection,
    span: Span,
) -> Result<Vec<Arc<ApiKey>>, StoreError> {
    let rows: Vec<(String, Uuid, Vec<u8>, Option<i64>)> = sqlx::query_as(
        "SELECT id, tenant, hash, expires_at FROM api_key
         WHERE tenant BETWEEN $1 AND $2 AND revoked_at IS NULL",
    )
    .bind(span.first)
    .bind(span.last)
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|(id, tenant, hash, expires_at)| {
            let hash = hash.try_into().map_err(|_| StoreError::Decode(format!("key {id}")))?;
            Ok(Arc::new(ApiKey {
                id: id.into(),
                tenant: TenantId(tenant),
                hash: SecretHash(hash),
                expires_at: expires_at.map(rows::instant),
            }))
        })
        .collect()
}

/// The first directory of a process.
pub(super) fn first(all: Part) -> Directory {
    Directory { version: 1, tenants: all.tenants, keys: all.keys }
}

/// The directory after `tenant` has become what `now_holds` says.
pub(super) fn with(before: &Directory, tenant: TenantId, now_holds: Part) -> Directory {
    let mut tenants = before.tenants.clone();
    for record in now_holds.tenants {
        match tenants.binary_search_by_key(&record.tenant.id, |held| held.tenant.id) {
            Ok(at) => tenants.splice(at..=at, [record]).for_each(drop),
            Err(at) => tenants.insert(at, record),
        }
    }
    let mut keys: Vec<_> = before.keys.iter().filter(|key| key.tenant != tenant).cloned().collect();
    keys.extend(now_holds.keys);
    Directory { version: before.version + 1, tenants, keys }
}
