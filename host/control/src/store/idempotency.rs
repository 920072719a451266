//! Requests that take effect once, however often they are sent: those with an
//! `Idempotency-Key`.
//!
//! The key is noted by `audit::append`, in the transaction of the effect itself, so of any
//! number of requests with one key, at once or after a crash, one takes effect. The answer
//! follows in a transaction of its own, sealed, since it may hold a new token. Invariant: a
//! key answers one request only, known by its fingerprint.

use model::{clock::UnixMs, tenant::TenantId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Store, StoreError,
    db::{ControlTx, Purpose, Tx, sql},
    rows::stored,
    sealed::Place,
};

/// How long a key is remembered, in ms: a day covers every sane client's retries.
const KEPT_MS: u64 = 86_400_000;

/// A request that may be sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The tenant that its path names; the platform's chain where it names none.
    pub tenant: TenantId,
    /// Who sent it; nobody else's keys matter to it.
    pub caller: String,
    /// As the client sent it.
    pub key: String,
    /// SHA-256 of what was asked.
    pub fingerprint: [u8; 32],
    /// This sending of it.
    pub id: Uuid,
}

/// An answer as it was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenAnswer {
    /// HTTP status.
    pub status: u16,
    /// Header fields that belong to the answer itself.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

/// What is known about a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing.
    Never,
    /// The same request took effect, and its answer is not kept yet, or never will be.
    Unanswered,
    /// The same request was answered.
    Answered(GivenAnswer),
    /// Another request used the key.
    Otherwise,
}

impl Attempt {
    fn row(&self) -> String {
        format!("{}:{}", self.caller, self.key)
    }
}

#[derive(sqlx::FromRow)]
struct SeenRow {
    fingerprint: Vec<u8>,
    /// Sealed.
    answer: Option<Vec<u8>>,
}

fn place<'a>(attempt: &Attempt, row: &'a str) -> Place<'a> {
    Place { tenant: attempt.tenant, table: "idempotent_request", row, column: "answer" }
}

impl Store {
    /// What is known about a request's key.
    ///
    /// # Errors
    /// The store failed.
    pub async fn seen(&self, attempt: &Attempt) -> Result<Seen, StoreError> {
        let mut tx = self.db.control(Purpose::Read).await?;
        let row = sql("SELECT fingerprint, answer FROM idempotent_request
             WHERE tenant_id = $1 AND caller = $2 AND key = $3 AND created_at > $4")
        .bind(attempt.tenant.0)
        .bind(&attempt.caller)
        .bind(&attempt.key)
        .bind(oldest(self.clock.now()))
        .optional(&mut tx)
        .await;
        let row: Option<SeenRow> = tx.end(row).await?;
        let Some(SeenRow { fingerprint, answer }) = row else { return Ok(Seen::Never) };
        if fingerprint != attempt.fingerprint {
            return Ok(Seen::Otherwise);
        }
        let Some(sealed) = answer else { return Ok(Seen::Unanswered) };
        let opened = self.sealer.open(place(attempt, &attempt.row()), &sealed)?;
        let unreadable = |_| StoreError::Decode("an answer of an idempotent request".to_owned());
        serde_json::from_slice(&opened).map(Seen::Answered).map_err(unreadable)
    }

    /// Keeps the answer to a request that succeeded, whether or not it changed anything.
    ///
    /// # Errors
    /// Another request with the key was first, or the store failed.
    pub async fn keep_answer(
        &self,
        attempt: &Attempt,
        answer: &GivenAnswer,
    ) -> Result<(), StoreError> {
        let unwritable = |_| StoreError::Decode("an answer to keep".to_owned());
        let answer = serde_json::to_vec(answer).map_err(unwritable)?;
        let sealed = self.sealer.seal(place(attempt, &attempt.row()), &answer)?;
        let mut tx = self.db.control(Purpose::Write).await?;
        let kept = async {
            note(&mut tx, attempt, self.clock.now()).await?;
            answered(&mut tx, attempt, &sealed).await
        }
        .await;
        tx.end(kept).await
    }

    /// Forgets the keys that are past their time.
    pub(crate) async fn forget_old_requests(&self) -> Result<(), StoreError> {
        let mut tx = self.db.control(Purpose::Write).await?;
        let forgotten = sql("DELETE FROM idempotent_request WHERE created_at <= $1")
            .bind(oldest(self.clock.now()))
            .execute(&mut tx)
            .await;
        tx.end(forgotten.map(drop)).await
    }
}

/// Notes that a request takes effect, in the transaction of the effect. Waits for another
/// one with the key to end.
pub(super) async fn note<S>(
    tx: &mut Tx<S>,
    attempt: &Attempt,
    now: UnixMs,
) -> Result<(), StoreError> {
    let noted = sql("INSERT INTO idempotent_request
             (tenant_id, caller, key, fingerprint, attempt, answer, created_at)
         VALUES ($1, $2, $3, $4, $5, NULL, $6)
         ON CONFLICT (tenant_id, caller, key) DO UPDATE SET
             fingerprint = excluded.fingerprint, attempt = excluded.attempt,
             answer = excluded.answer, created_at = excluded.created_at
         WHERE idempotent_request.attempt = excluded.attempt
            OR idempotent_request.created_at <= $7")
    .bind(attempt.tenant.0)
    .bind(&attempt.caller)
    .bind(&attempt.key)
    .bind(attempt.fingerprint.as_slice())
    .bind(attempt.id)
    .bind(stored(now))
    .bind(oldest(now))
    .execute(tx)
    .await?;
    if noted == 1 { Ok(()) } else { Err(StoreError::KeyUsed) }
}

async fn answered(tx: &mut ControlTx, attempt: &Attempt, sealed: &[u8]) -> Result<(), StoreError> {
    sql("UPDATE idempotent_request SET answer = $4
         WHERE tenant_id = $1 AND caller = $2 AND key = $3")
    .bind(attempt.tenant.0)
    .bind(&attempt.caller)
    .bind(&attempt.key)
    .bind(sealed)
    .execute(tx)
    .await
    .map(drop)
}

fn oldest(now: UnixMs) -> i64 {
    stored(UnixMs(now.0.saturating_sub(KEPT_MS)))
}

#[cfg(test)]
impl Store {
    /// As if the process had ended before its answers were kept.
    pub(crate) async fn lose_answers(&self) {
        let mut tx = self.db.control(Purpose::Write).await.expect("a transaction");
        let lost = sql("UPDATE idempotent_request SET answer = NULL").execute(&mut tx).await;
        tx.end(lost).await.expect("lost");
    }
}
