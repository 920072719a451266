//! Answers of requests that carried an `Idempotency-Key`.
//!
//! An answer is stored in the transaction of the change it reports, so a retry finds both
//! or neither. Invariant: a key answers one request only, known by its fingerprint.

use model::{clock::UnixMs, tenant::TenantId};
use uuid::Uuid;

use super::{
    StoreError,
    db::{ControlTx, sql},
    rows::stored,
};

/// How long an answer is kept, in ms: a day covers every sane client's retries.
const KEPT_MS: u64 = 86_400_000;

/// What identifies a request that may be repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The operation; the same key on another operation is another key.
    pub scope: &'static str,
    /// As the client sent it.
    pub key: String,
    /// SHA-256 of the request's body.
    pub fingerprint: [u8; 32],
}

/// A stored answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAnswer {
    /// The tenant it is about.
    pub tenant: TenantId,
    /// The body as it was sent.
    pub body: Vec<u8>,
}

/// What is known about a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing.
    Never,
    /// The same request was answered.
    Answered(StoredAnswer),
    /// Another request used the key.
    Otherwise,
}

/// Looks a key up.
pub(super) async fn look_up(
    tx: &mut ControlTx,
    key: &IdempotencyKey,
    now: UnixMs,
) -> Result<Seen, StoreError> {
    let row: Option<(Vec<u8>, Uuid, Vec<u8>)> =
        sql("SELECT fingerprint, tenant_id, answer FROM idempotency
         WHERE scope = $1 AND key = $2 AND created_at > $3")
        .bind(key.scope)
        .bind(&key.key)
        .bind(oldest(now))
        .optional(tx)
        .await?;
    Ok(match row {
        None => Seen::Never,
        Some((fingerprint, tenant, body)) if fingerprint == key.fingerprint => {
            Seen::Answered(StoredAnswer { tenant: TenantId(tenant), body })
        }
        Some(_) => Seen::Otherwise,
    })
}

/// Keeps an answer, and forgets those past their time.
pub(super) async fn keep(
    tx: &mut ControlTx,
    key: &IdempotencyKey,
    answer: &StoredAnswer,
    now: UnixMs,
) -> Result<(), StoreError> {
    sql("DELETE FROM idempotency WHERE created_at <= $1").bind(oldest(now)).execute(tx).await?;
    sql("INSERT INTO idempotency (scope, key, fingerprint, tenant_id, answer, created_at)
         VALUES ($1, $2, $3, $4, $5, $6)")
    .bind(key.scope)
    .bind(&key.key)
    .bind(key.fingerprint.as_slice())
    .bind(answer.tenant.0)
    .bind(&answer.body)
    .bind(stored(now))
    .execute(tx)
    .await
    .map(drop)
}

fn oldest(now: UnixMs) -> i64 {
    stored(UnixMs(now.0.saturating_sub(KEPT_MS)))
}
