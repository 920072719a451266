//! What a tenant's webhooks are signed with: made here, shown once, rotated with a grace.
//!
//! The texts lie sealed in the database (`sealed.rs`). Invariant: at most two are live, and
//! the newest never expires by itself.

use base64::{Engine, engine::general_purpose::STANDARD};
use model::{clock::UnixMs, secret::Secret, tenant::TenantId};
use uuid::Uuid;

use super::super::{
    ChangeError, Store, StoreError,
    audit::{self, Act, Actor},
    db::{Purpose, TenantTx, Tx, sql},
    keys::exists,
    random, rows,
    sealed::{Place, Sealer},
};
use crate::notify::SECRET_PREFIX;

/// How long a rotated secret still signs, in ms: a day to bring the new one to receivers.
pub const SECRET_GRACE_MS: u64 = 24 * 3_600_000;

/// Where a secret's text belongs.
pub(in crate::store) const fn place(tenant: TenantId, id: &str) -> Place<'_> {
    Place { tenant, table: "webhook_secret", row: id, column: "secret" }
}

/// A new secret.
#[derive(Clone, Debug)]
pub struct NewSecret {
    /// `whsec_` and 32 bytes in base64, to be shown once.
    pub text: Secret,
    /// When it was made.
    pub created_at: UnixMs,
    /// Until when the one before still signs, if there is one.
    pub previous_expires_at: Option<UnixMs>,
}

/// A secret as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretRecord {
    /// When it was made.
    pub created_at: UnixMs,
    /// When it ceases to sign.
    pub expires_at: Option<UnixMs>,
}

impl Store {
    /// Makes a new secret for a tenant's webhooks; the one before signs too for a day, any
    /// older one no longer.
    ///
    /// # Errors
    /// No such tenant, or the store failed.
    pub async fn rotate_webhook_secret(
        &self,
        by: &Actor,
        tenant: TenantId,
    ) -> Result<NewSecret, ChangeError> {
        let now = self.clock.now();
        let act = Act::new(by, "webhook_secret.rotate", "");
        let mut tx = self.db.tenant(tenant, Purpose::Write).await?;
        let made = async {
            exists(&mut tx).await?;
            let made = make(&mut tx, &self.sealer, now).await?;
            audit::append(&mut tx, tenant, &act, now).await?;
            Ok(made)
        }
        .await;
        tx.end(made).await
    }
}

/// Makes a secret the newest.
pub(super) async fn make(
    tx: &mut TenantTx,
    sealer: &Sealer,
    now: UnixMs,
) -> Result<NewSecret, ChangeError> {
    // One of two rotations at once waits here, and then retires what the other made.
    sql("UPDATE webhook_secret SET expires_at = expires_at WHERE tenant_id = $1")
        .bind(tx.tenant().0)
        .execute(tx)
        .await?;
    sql("DELETE FROM webhook_secret WHERE tenant_id = $1 AND expires_at IS NOT NULL")
        .bind(tx.tenant().0)
        .execute(tx)
        .await?;
    let expires_at = now.plus_ms(SECRET_GRACE_MS);
    let retired = sql("UPDATE webhook_secret SET expires_at = $2 WHERE tenant_id = $1")
        .bind(tx.tenant().0)
        .bind(rows::stored(expires_at))
        .execute(tx)
        .await?;
    let text = format!("{SECRET_PREFIX}{}", STANDARD.encode(random::bytes::<32>()?));
    let id = Uuid::from_bytes(random::bytes()?);
    let row = id.to_string();
    let sealed = sealer.seal_text(place(tx.tenant(), &row), &text)?;
    sql("INSERT INTO webhook_secret (tenant_id, id, secret, key_id, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, NULL)")
    .bind(tx.tenant().0)
    .bind(id)
    .bind(&sealed.text)
    .bind(&sealed.key_id)
    .bind(rows::stored(now))
    .execute(tx)
    .await?;
    Ok(NewSecret {
        text: Secret::new(text),
        created_at: now,
        previous_expires_at: (retired > 0).then_some(expires_at),
    })
}

/// The live secrets, newest first, without their texts.
pub(super) async fn records(
    tx: &mut TenantTx,
    now: UnixMs,
) -> Result<Vec<SecretRecord>, StoreError> {
    let tenant = tx.tenant();
    let rows = rows_of(tx, tenant, now).await?;
    let record = |row: SecretRow| SecretRecord {
        created_at: rows::instant(row.created_at),
        expires_at: row.expires_at.map(rows::instant),
    };
    Ok(rows.into_iter().map(record).collect())
}

/// What to sign with now, newest first.
pub(in crate::store) async fn live<S>(
    tx: &mut Tx<S>,
    sealer: &Sealer,
    tenant: TenantId,
    now: UnixMs,
) -> Result<Vec<Secret>, StoreError> {
    let rows = rows_of(tx, tenant, now).await?;
    let open = |row: SecretRow| {
        let id = row.id.to_string();
        sealer.open_text(place(tenant, &id), row.secret, row.key_id.as_deref()).map(Secret::new)
    };
    rows.into_iter().map(open).collect()
}

#[derive(sqlx::FromRow)]
struct SecretRow {
    id: Uuid,
    secret: String,
    key_id: Option<String>,
    created_at: i64,
    expires_at: Option<i64>,
}

async fn rows_of<S>(
    tx: &mut Tx<S>,
    tenant: TenantId,
    now: UnixMs,
) -> Result<Vec<SecretRow>, StoreError> {
    sql("SELECT id, secret, key_id, created_at, expires_at FROM webhook_secret
         WHERE tenant_id = $1 AND (expires_at IS NULL OR expires_at > $2)
         ORDER BY expires_at IS NULL DESC, created_at DESC")
    .bind(tenant.0)
    .bind(rows::stored(now))
    .all(tx)
    .await
}
