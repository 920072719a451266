//! Data-plane keys of a tenant: issued, listed, revoked, forgotten.
//!
//! Invariant: the text of a key leaves this file once, when it is issued; the database
//! and the directory hold its hash. A tenant has at most [`KEYS_MAX`] that live, as every
//! edge holds them all in memory.

use std::sync::Arc;

use model::{
    clock::UnixMs,
    key::{self, KeyId},
    secret::Secret,
    tenant::TenantId,
};

use super::{
    ChangeError, Store, StoreError,
    audit::{Act, Actor},
    change::{Change, detached},
    db::{OneTenant, Purpose, TenantTx, sql},
    random, rows,
    tokens::KEPT_DEAD_MS,
};

/// Live keys of one tenant: a key for each of its programs with both sides of a rotation,
/// few enough for every edge to hold, and to be read anew with each change of the tenant.
pub const KEYS_MAX: usize = 1_000;

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
    /// No such tenant, too many keys, or the store failed.
    pub async fn issue_api_key(
        self: &Arc<Self>,
        by: &Actor,
        tenant: TenantId,
        expires_at: Option<UnixMs>,
    ) -> Result<IssuedKey, ChangeError> {
        let (store, act) = (Arc::clone(self), Act::new(by, "key.issue", ""));
        detached(async move {
            let mut change = Change::of(&store, tenant, act).await?;
            let outcome = issue(&mut change, store.clock.now(), expires_at).await;
            change.end(outcome).await
        })
        .await
    }

    /// A tenant's keys, oldest first, the revoked ones too.
    ///
    /// # Errors
    /// No such tenant, or the store failed.
    pub async fn api_keys(&self, tenant: TenantId) -> Result<Vec<KeyRecord>, ChangeError> {
        let mut tx = self.db.tenant(tenant, Purpose::Read).await?;
        let listed = list(&mut tx).await;
        tx.end(listed).await
    }

    /// Revokes a key, effective at the edge when this returns. Revoking it again changes
    /// nothing.
    ///
    /// # Errors
    /// No such tenant, no such key of it, or the store failed.
    pub async fn revoke_api_key(
        self: &Arc<Self>,
        by: &Actor,
        tenant: TenantId,
        id: &str,
    ) -> Result<(), ChangeError> {
        let (store, id, act) = (Arc::clone(self), id.to_owned(), Act::new(by, "key.revoke", id));
        detached(async move {
            let mut change = Change::of(&store, tenant, act).await?;
            let outcome = revoke(&mut change, &id, store.clock.now()).await;
            change.end(outcome).await
        })
        .await
    }

    /// Forgets the keys that have been dead for [`KEPT_DEAD_MS`]. The directory of a running
    /// process may hold one that expired until its tenant changes; it verifies nothing.
    pub(crate) async fn forget_dead_keys(&self) -> Result<(), StoreError> {
        let before = rows::stored(UnixMs(self.clock.now().0.saturating_sub(KEPT_DEAD_MS)));
        let mut tx = self.db.control(Purpose::Write).await?;
        let forgotten = sql("DELETE FROM api_key WHERE revoked_at < $1 OR expires_at < $1")
            .bind(before)
            .execute(&mut tx)
            .await;
        tx.end(forgotten.map(drop)).await
    }
}

async fn issue(
    change: &mut Change<OneTenant>,
    created_at: UnixMs,
    expires_at: Option<UnixMs>,
) -> Result<IssuedKey, ChangeError> {
    exists(&mut change.tx).await?;
    if live(&mut change.tx, created_at).await? >= KEYS_MAX {
        return Err(ChangeError::TooManyKeys);
    }
    let (text, id, hash) = key::mint(&random::bytes()?);
    sql("INSERT INTO api_key (id, tenant_id, hash, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5)")
    .bind(&*id)
    .bind(change.tx.tenant().0)
    .bind(hash.0.as_slice())
    .bind(rows::stored(created_at))
    .bind(expires_at.map(rows::stored))
    .execute(&mut change.tx)
    .await?;
    change.target(&id);
    change.publish().await?;
    Ok(IssuedKey { text: Secret::new(text), id, created_at, expires_at })
}

/// How many of its keys live. Exact within a change, as no other can be under way.
async fn live(tx: &mut TenantTx, now: UnixMs) -> Result<usize, StoreError> {
    let (live,): (i64,) = sql("SELECT COUNT(*) FROM api_key
         WHERE tenant_id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)")
    .bind(tx.tenant().0)
    .bind(rows::stored(now))
    .one(tx)
    .await?;
    Ok(usize::try_from(live).unwrap_or(usize::MAX))
}

async fn list(tx: &mut TenantTx) -> Result<Vec<KeyRecord>, ChangeError> {
    exists(tx).await?;
    let rows: Vec<(String, i64, Option<i64>, Option<i64>)> =
        sql("SELECT id, created_at, expires_at, revoked_at FROM api_key
         WHERE tenant_id = $1 ORDER BY created_at, id")
        .bind(tx.tenant().0)
        .all(tx)
        .await?;
    let record =
        |(id, created_at, expires_at, revoked_at): (String, _, Option<_>, Option<_>)| KeyRecord {
            id: id.into(),
            created_at: rows::instant(created_at),
            expires_at: expires_at.map(rows::instant),
            revoked_at: revoked_at.map(rows::instant),
        };
    Ok(rows.into_iter().map(record).collect())
}

async fn revoke(change: &mut Change<OneTenant>, id: &str, now: UnixMs) -> Result<(), ChangeError> {
    let revoked = sql("UPDATE api_key SET revoked_at = COALESCE(revoked_at, $3)
         WHERE tenant_id = $1 AND id = $2")
    .bind(change.tx.tenant().0)
    .bind(id)
    .bind(rows::stored(now))
    .execute(&mut change.tx)
    .await?;
    if revoked == 0 {
        return Err(ChangeError::NotFound);
    }
    Ok(change.publish().await?)
}

/// Refuses a tenant that is not there.
pub(super) async fn exists(tx: &mut TenantTx) -> Result<(), ChangeError> {
    let row: Option<(i64,)> = sql("SELECT CAST(1 AS BIGINT) FROM tenant WHERE id = $1")
        .bind(tx.tenant().0)
        .optional(tx)
        .await?;
    row.map(drop).ok_or(ChangeError::NotFound)
}

#[cfg(test)]
mod tests;
