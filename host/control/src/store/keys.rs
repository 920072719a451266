//! Data-plane keys of a tenant: issued, listed, revoked.
//!
//! Invariant: the text of a key leaves this file once, when it is issued; the database
//! and the directory hold its hash.

use std::sync::Arc;

use model::{
    clock::UnixMs,
    key::{self, KeyId},
    secret::Secret,
    tenant::TenantId,
};
use sqlx::SqliteConnection;

use super::{
    ChangeError, Store, StoreError,
    change::{Change, detached},
    random, rows,
};

/// A new key.
#[derive(Clone, Debug)]
pub struct IssuedKey {
    /// The whole key, to be shown once.
    pub text: Secret,
    /// Its public part.
    pub id: KeyId,
    /// When it was issued.
    pub created_at: UnixMs,
    /// End of its life.
    pub expires_at: Option<UnixMs>,
}

/// A key as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// Its public part.
    pub id: KeyId,
    /// When it was issued.
    pub created_at: UnixMs,
    /// End of its life.
    pub expires_at: Option<UnixMs>,
    /// When it was revoked.
    pub revoked_at: Option<UnixMs>,
}

impl Store {
    /// Issues a key, at once good at the edge.
    ///
    /// # Errors
    /// No such tenant, or the store failed.
    pub async fn issue_api_key(
        self: &Arc<Self>,
        tenant: TenantId,
        expires_at: Option<UnixMs>,
    ) -> Result<IssuedKey, ChangeError> {
        let store = Arc::clone(self);
        detached(async move {
            let mut change = Change::begin(&store).await?;
            exists(change.connection(), tenant).await?;
            let created_at = store.clock.now();
            let (text, id, hash) = key::mint(&random::bytes()?);
            sqlx::query(
                "INSERT INTO api_key (id, tenant, hash, created_at, expires_at)
                 VALUES ($1, $2, $3, $4, $5)",
            )
            .bind(&*id)
            .bind(tenant.0)
            .bind(hash.0.as_slice())
            .bind(rows::stored(created_at))
            .bind(expires_at.map(rows::stored))
            .execute(change.connection())
            .await
            .map_err(StoreError::from)?;
            change.publish(tenant).await?;
            Ok(IssuedKey { text: Secret::new(text), id, created_at, expires_at })
        })
        .await
    }

    /// A tenant's keys, oldest first, the revoked ones too.
    ///
    /// # Errors
    /// No such tenant, or the store failed.
    pub async fn api_keys(&self, tenant: TenantId) -> Result<Vec<KeyRecord>, ChangeError> {
        let mut connection = self.reader().acquire().await.map_err(StoreError::from)?;
        exists(&mut connection, tenant).await?;
        let rows: Vec<(String, i64, Option<i64>, Option<i64>)> = sqlx::query_as(
            "SELECT id, created_at, expires_at, revoked_at FROM api_key
             WHERE tenant = $1 ORDER BY created_at, id",
        )
        .bind(tenant.0)
        .fetch_all(&mut *connection)
        .await
        .map_err(StoreError::from)?;
        let record =
            |(id, created_at, expires_at, revoked_at): (String, _, Option<_>, Option<_>)| {
                KeyRecord {
                    id: id.into(),
                    created_at: rows::instant(created_at),
                    expires_at: expires_at.map(rows::instant),
                    revoked_at: revoked_at.map(rows::instant),
                }
            };
        Ok(rows.into_iter().map(record).collect())
    }

    /// Revokes a key, effective at the edge when this returns. Revoking it again changes
    /// nothing.
    ///
    /// # Errors
    /// No such tenant, no such key of it, or the store failed.
    pub async fn revoke_api_key(
        self: &Arc<Self>,
        tenant: TenantId,
        id: &str,
    ) -> Result<(), ChangeError> {
        let (store, id) = (Arc::clone(self), id.to_owned());
        detached(async move {
            let mut change = Change::begin(&store).await?;
            let done = sqlx::query(
                "UPDATE api_key SET revoked_at = COALESCE(revoked_at, $3)
                 WHERE tenant = $1 AND id = $2",
            )
            .bind(tenant.0)
            .bind(id)
            .bind(rows::stored(store.clock.now()))
            .execute(change.connection())
            .await
            .map_err(StoreError::from)?;
            if done.rows_affected() == 0 {
                return Err(ChangeError::NotFound);
            }
            Ok(change.publish(tenant).await?)
        })
        .await
    }
}

/// Refuses a tenant that is not there.
pub(super) async fn exists(
    connection: &mut SqliteConnection,
    tenant: TenantId,
) -> Result<(), ChangeError> {
    let row: Option<(i64,)> = sqlx::query_as("SELECT 1 FROM tenant WHERE id = $1")
        .bind(tenant.0)
        .fetch_optional(connection)
        .await
        .map_err(StoreError::from)?;
    row.map(drop).ok_or(ChangeError::NotFound)
}
