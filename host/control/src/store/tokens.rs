//! Tokens of the control API: issued, verified, rotated, revoked.
//!
//! The database is asked on every request that carries one, so a revocation holds at once
//! in every process. Invariant: the text of a token leaves this file once, when it is
//! issued; the database holds its hash. A rotation never shortens the life of the old
//! token below what the caller was told, nor lengthens it.

use std::sync::Arc;

use model::{
    access::{Right, Rights, Role},
    audit::PLATFORM_CHAIN,
    clock::UnixMs,
    key::{self, KeyId, PresentedKey, SecretHash},
    secret::Secret,
    tenant::TenantId,
};
use uuid::Uuid;

use super::{
    Store, StoreError,
    audit::{self, Act, Actor},
    change::detached,
    db::{ControlTx, Purpose, sql, sql_each},
    random,
    rows::{instant, stored},
};

/// Live tokens of one tenant, or of the platform: enough for every program of a tenant
/// with both sides of a rotation, few enough to read through.
pub const TOKENS_MAX: usize = 100;
/// How long a dead token or key is listed, in ms: 90 days, so that a quarter's review sees it.
pub(super) const KEPT_DEAD_MS: u64 = 90 * 86_400_000;
/// How much older the noted last use may get before it is written again, in ms: reads
/// should not become writes.
const LAST_USE_GRAIN_MS: u64 = 60_000;

/// What a token is issued from.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Whose; `None` for the operator's own.
    pub tenant: Option<TenantId>,
    /// What for; `Admin` exactly when there is no tenant.
    pub role: Role,
    /// The rights it is limited to; `None` for all of the role's.
    pub scopes: Option<Rights>,
    /// A name for people.
    pub name: String,
    /// End of its life.
    pub expires_at: Option<UnixMs>,
}

/// A new token.
#[derive(Clone, Debug)]
pub struct IssuedToken {
    /// The whole token, to be shown once.
    pub text: Secret,
    /// Everything else.
    pub record: TokenRecord,
}

/// A token as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    /// Its public part.
    pub id: KeyId,
    /// Whose; `None` for the operator's own.
    pub tenant: Option<TenantId>,
    /// What for.
    pub role: Role,
    /// The rights it is limited to; `None` for all of the role's.
    pub scopes: Option<Rights>,
    /// A name for people.
    pub name: String,
    /// When it was issued.
    pub created_at: UnixMs,
    /// End of its life.
    pub expires_at: Option<UnixMs>,
    /// When it was revoked.
    pub revoked_at: Option<UnixMs>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<UnixMs>,
    /// The token that it replaced.
    pub rotated_from: Option<KeyId>,
}

impl TokenRecord {
    /// Whether it is good for anything at `now`.
    #[must_use]
    pub fn lives(&self, now: UnixMs) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

/// Why a token was not issued, rotated or revoked.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// No such tenant, or no such token of it.
    #[error("there is no such tenant, or no such token of it")]
    NotFound,
    /// A token that no longer lives cannot be rotated.
    #[error("the token is revoked or expired")]
    Dead,
    /// There are as many as there may be.
    #[error("there may be {TOKENS_MAX} live tokens; revoke one first")]
    TooMany,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// Issues a token, good from the answer on.
    ///
    /// # Errors
    /// No such tenant, too many tokens, or the store failed.
    pub async fn issue_token(
        self: &Arc<Self>,
        by: &Actor,
        new: NewToken,
    ) -> Result<IssuedToken, TokenError> {
        let (store, act) = (Arc::clone(self), Act::new(by, "token.issue", ""));
        detached(async move {
            let mut tx = store.db.control(Purpose::Write).await?;
            let issued = issue(&mut tx, act, new, None, store.clock.now()).await;
            tx.end(issued).await
        })
        .await
    }

    /// Issues a token like `id`, to live as long as that was to unless `expires_at` says
    /// otherwise, and lets the old one live on until `old_until`, or its own earlier end.
    ///
    /// # Errors
    /// No such token, one that is dead, too many tokens, or the store failed.
    pub async fn rotate_token(
        self: &Arc<Self>,
        by: &Actor,
        tenant: Option<TenantId>,
        id: &str,
        old_until: UnixMs,
        expires_at: Option<UnixMs>,
    ) -> Result<IssuedToken, TokenError> {
        let (store, id) = (Arc::clone(self), id.to_owned());
        let act = Act::new(by, "token.rotate", "");
        detached(async move {
            let mut tx = store.db.control(Purpose::Write).await?;
            let now = store.clock.now();
            let issued = rotate(&mut tx, act, (tenant, &id), (old_until, expires_at), now).await;
            tx.end(issued).await
        })
        .await
    }

    /// Revokes a token, from the answer on in every process. Again changes nothing.
    ///
    /// # Errors
    /// No such token, or the store failed.
    pub async fn revoke_token(
        self: &Arc<Self>,
        by: &Actor,
        tenant: Option<TenantId>,
        id: &str,
    ) -> Result<(), TokenError> {
        let (store, id) = (Arc::clone(self), id.to_owned());
        let act = Act::new(by, "token.revoke", id.as_str());
        detached(async move {
            let mut tx = store.db.control(Purpose::Write).await?;
            let revoked = revoke(&mut tx, act, tenant, &id, store.clock.now()).await;
            tx.end(revoked).await
        })
        .await
    }

    /// The tokens of a tenant, or the operator's own, oldest first, dead ones too.
    ///
    /// # Errors
    /// The store failed.
    pub async fn tokens(&self, tenant: Option<TenantId>) -> Result<Vec<TokenRecord>, StoreError> {
        let mut tx = self.db.control(Purpose::Read).await?;
        let records = list(&mut tx, tenant).await;
        tx.end(records).await
    }

    /// The token that was presented, if it is one and lives. Notes its use.
    ///
    /// # Errors
    /// The store failed.
    pub async fn verify_token(
        self: &Arc<Self>,
        presented: &PresentedKey<'_>,
    ) -> Result<Option<TokenRecord>, StoreError> {
        let mut tx = self.db.control(Purpose::Read).await?;
        let found = find(&mut tx, presented.id).await;
        let now = self.clock.now();
        let verified = tx
            .end(found)
            .await?
            .filter(|(record, hash)| presented.has_secret(hash) && record.lives(now));
        let Some((record, _)) = verified else { return Ok(None) };
        let stale = |at: UnixMs| now.ms_since(at) >= LAST_USE_GRAIN_MS;
        if record.last_used_at.is_none_or(stale) {
            let (store, id) = (Arc::clone(self), record.id.clone());
            tokio::spawn(async move {
                if let Err(error) = store.note_use(&id, now).await {
                    tracing::debug!(%error, "the last use of a token was not noted");
                }
            });
        }
        Ok(Some(record))
    }

    /// Forgets the tokens that have been dead for [`KEPT_DEAD_MS`].
    pub(crate) async fn forget_dead_tokens(&self) -> Result<(), StoreError> {
        let before = stored(UnixMs(self.clock.now().0.saturating_sub(KEPT_DEAD_MS)));
        let mut tx = self.db.control(Purpose::Write).await?;
        let forgotten = sql("DELETE FROM access_token
             WHERE COALESCE(revoked_at, expires_at) < $1 OR expires_at < $1")
        .bind(before)
        .execute(&mut tx)
        .await;
        tx.end(forgotten.map(drop)).await
    }

    async fn note_use(&self, id: &str, now: UnixMs) -> Result<(), StoreError> {
        let mut tx = self.db.control(Purpose::Write).await?;
        let noted = sql("UPDATE access_token SET last_used_at = $2 WHERE id = $1")
            .bind(id)
            .bind(stored(now))
            .execute(&mut tx)
            .await;
        tx.end(noted.map(drop)).await
    }
}

async fn issue(
    tx: &mut ControlTx,
    mut act: Act,
    new: NewToken,
    rotated_from: Option<KeyId>,
    now: UnixMs,
) -> Result<IssuedToken, TokenError> {
    if let Some(tenant) = new.tenant {
        // Held, so that two issues at the limit do not both count one too few.
        let held: Option<(Uuid,)> = sql_each(
            "SELECT id FROM tenant WHERE id = $1",
            "SELECT id FROM tenant WHERE id = $1 FOR UPDATE",
        )
        .bind(tenant.0)
        .optional(tx)
        .await?;
        held.ok_or(TokenError::NotFound)?;
    }
    let live = list(tx, new.tenant).await?.iter().filter(|token| token.lives(now)).count();
    if live >= TOKENS_MAX {
        return Err(TokenError::TooMany);
    }
    let (text, id, hash) = key::mint_token(&random::bytes()?);
    let record = TokenRecord {
        id,
        tenant: new.tenant,
        role: new.role,
        scopes: new.scopes,
        name: new.name,
        created_at: now,
        expires_at: new.expires_at,
        revoked_at: None,
        last_used_at: None,
        rotated_from,
    };
    insert(tx, &record, &hash).await?;
    act.target(&record.id);
    act.note("role", record.role.as_str());
    let scopes = record.scopes.map(|scopes| scopes.iter().map(Right::scope).collect::<Vec<_>>());
    act.note("scopes", scopes);
    audit::append(tx, record.tenant.unwrap_or(PLATFORM_CHAIN), &act, now).await?;
    Ok(IssuedToken { text: Secret::new(text), record })
}

async fn insert(
    tx: &mut ControlTx,
    record: &TokenRecord,
    hash: &SecretHash,
) -> Result<(), StoreError> {
    sql("INSERT INTO access_token (id, tenant_id, role, scopes, name, hash, created_at,
             expires_at, rotated_from)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)")
    .bind(&*record.id)
    .bind(record.tenant.map(|tenant| tenant.0))
    .bind(record.role.as_str())
    .bind(scopes_text(record.scopes))
    .bind(&record.name)
    .bind(hash.0.as_slice())
    .bind(stored(record.created_at))
    .bind(record.expires_at.map(stored))
    .bind(record.rotated_from.as_deref())
    .execute(tx)
    .await
    .map(drop)
}

async fn rotate(
    tx: &mut ControlTx,
    act: Act,
    (tenant, id): (Option<TenantId>, &str),
    (old_until, expires_at): (UnixMs, Option<UnixMs>),
    now: UnixMs,
) -> Result<IssuedToken, TokenError> {
    let (old, _) =
        find(tx, id).await?.filter(|(old, _)| old.tenant == tenant).ok_or(TokenError::NotFound)?;
    if !old.lives(now) {
        return Err(TokenError::Dead);
    }
    let end = old.expires_at.map_or(old_until, |end| end.min(old_until));
    sql("UPDATE access_token SET expires_at = $2 WHERE id = $1")
        .bind(id)
        .bind(stored(end))
        .execute(tx)
        .await?;
    let lifetime_ms = old.expires_at.map(|end| end.ms_since(old.created_at));
    let expires_at = expires_at.or(lifetime_ms.map(|ms| now.plus_ms(ms)));
    let new = NewToken { tenant, role: old.role, scopes: old.scopes, name: old.name, expires_at };
    issue(tx, act, new, Some(old.id), now).await
}

async fn revoke(
    tx: &mut ControlTx,
    act: Act,
    tenant: Option<TenantId>,
    id: &str,
    now: UnixMs,
) -> Result<(), TokenError> {
    let (held, _) = find(tx, id)
        .await?
        .filter(|(held, _)| held.tenant == tenant)
        .ok_or(TokenError::NotFound)?;
    if held.revoked_at.is_some() {
        return Ok(());
    }
    sql("UPDATE access_token SET revoked_at = $2 WHERE id = $1")
        .bind(id)
        .bind(stored(now))
        .execute(tx)
        .await?;
    Ok(audit::append(tx, tenant.unwrap_or(PLATFORM_CHAIN), &act, now).await?)
}

#[derive(sqlx::FromRow)]
struct TokenRow {
    id: String,
    tenant_id: Option<Uuid>,
    role: String,
    scopes: String,
    name: String,
    hash: Vec<u8>,
    created_at: i64,
    expires_at: Option<i64>,
    revoked_at: Option<i64>,
    last_used_at: Option<i64>,
    rotated_from: Option<String>,
}

async fn list(
    tx: &mut ControlTx,
    tenant: Option<TenantId>,
) -> Result<Vec<TokenRecord>, StoreError> {
    let query = match tenant {
        Some(tenant) => {
            sql("SELECT * FROM access_token WHERE tenant_id = $1 ORDER BY created_at, id")
                .bind(tenant.0)
        }
        None => sql("SELECT * FROM access_token WHERE tenant_id IS NULL ORDER BY created_at, id"),
    };
    let rows: Vec<TokenRow> = query.all(tx).await?;
    rows.into_iter().map(|row| row.decode().map(|(record, _)| record)).collect()
}

async fn find(
    tx: &mut ControlTx,
    id: &str,
) -> Result<Option<(TokenRecord, SecretHash)>, StoreError> {
    let row: Option<TokenRow> =
        sql("SELECT * FROM access_token WHERE id = $1").bind(id).optional(tx).await?;
    row.map(TokenRow::decode).transpose()
}

impl TokenRow {
    fn decode(self) -> Result<(TokenRecord, SecretHash), StoreError> {
        let bad = |what: &str| StoreError::Decode(format!("{what} of token {}", self.id));
        let record = TokenRecord {
            tenant: self.tenant_id.map(TenantId),
            role: Role::from_name(&self.role).ok_or_else(|| bad("role"))?,
            scopes: scopes_of(&self.scopes).ok_or_else(|| bad("scopes"))?,
            name: self.name.clone(),
            created_at: instant(self.created_at),
            expires_at: self.expires_at.map(instant),
            revoked_at: self.revoked_at.map(instant),
            last_used_at: self.last_used_at.map(instant),
            rotated_from: self.rotated_from.as_deref().map(KeyId::from),
            id: self.id.as_str().into(),
        };
        let hash = self.hash.clone().try_into().map_err(|_| bad("hash"))?;
        Ok((record, SecretHash(hash)))
    }
}

/// Scopes as stored: a JSON list; an empty one stands for all of the role's.
fn scopes_text(scopes: Option<Rights>) -> String {
    let names: Vec<_> = scopes.unwrap_or(Rights::NONE).iter().map(Right::scope).collect();
    serde_json::json!(names).to_string()
}

fn scopes_of(text: &str) -> Option<Option<Rights>> {
    let names: Vec<String> = serde_json::from_str(text).ok()?;
    // A scope of a later release gives no right here.
    let rights: Vec<_> = names.iter().filter_map(|name| Right::from_scope(name)).collect();
    Some((!names.is_empty()).then(|| Rights::of(&rights)))
}

#[cfg(test)]
mod tests;
