//! What became of an attempt.
//!
//! Several attempts at one endpoint may hear at once that it is gone. Each first takes the
//! endpoint's row, then its deliveries in one order, so that none waits for another in a
//! circle. Invariant: only the attempt that has the lease decides; one that was given up
//! for lost and comes back late changes nothing.

use model::clock::UnixMs;
use uuid::Uuid;

use super::{
    super::{
        Store, StoreError,
        alerts::Channel,
        db::{ControlTx, Purpose, locking, sql},
        random, rows,
    },
    Claimed, backoff,
};

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver has it.
    Delivered,
    /// It may succeed later.
    Again(String),
    /// It cannot succeed as the settings are.
    Failed(String),
    /// The receiver wants nothing at this target any more.
    Gone(String),
}

impl Store {
    /// Stores how an attempt ended; false when it had lost its lease.
    ///
    /// # Errors
    /// The store failed: the delivery is tried again when its lease ends.
    pub(crate) async fn settle_delivery(
        &self,
        claimed: &Claimed,
        outcome: &Outcome,
    ) -> Result<bool, StoreError> {
        let now = self.clock.now();
        let mut tx = self.db.control(Purpose::Write).await?;
        let settled = settle(&mut tx, claimed, outcome, now).await;
        match tx.end(settled).await {
            Ok(()) => Ok(true),
            Err(Unsettled::LostLease) => Ok(false),
            Err(Unsettled::Store(error)) => Err(error),
        }
    }
}

/// Why an attempt changes nothing.
enum Unsettled {
    LostLease,
    Store(StoreError),
}

impl From<StoreError> for Unsettled {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The columns of a delivery after an attempt.
struct After<'a> {
    state: &'static str,
    next_attempt_at: Option<UnixMs>,
    last_error: Option<&'a str>,
}

fn after<'a>(
    claimed: &Claimed,
    outcome: &'a Outcome,
    now: UnixMs,
) -> Result<After<'a>, StoreError> {
    let [chance] = random::bytes()?;
    let ended = |state, last_error| After { state, next_attempt_at: None, last_error };
    Ok(match outcome {
        Outcome::Delivered => ended("delivered", None),
        Outcome::Failed(reason) | Outcome::Gone(reason) => ended("failed", Some(reason.as_str())),
        Outcome::Again(reason) => {
            let next = backoff::next(claimed.attempts, claimed.occurred_at, now, chance);
            let state = if next.is_some() { "pending" } else { "failed" };
            After { state, next_attempt_at: next, last_error: Some(reason) }
        }
    })
}

async fn settle(
    tx: &mut ControlTx,
    claimed: &Claimed,
    outcome: &Outcome,
    now: UnixMs,
) -> Result<(), Unsettled> {
    let is_gone = matches!(outcome, Outcome::Gone(_)) && claimed.channel == Channel::Webhook;
    if is_gone {
        mark_gone(tx, claimed, now).await?;
    }
    let after = after(claimed, outcome, now)?;
    let settled_at = after.next_attempt_at.is_none().then(|| rows::stored(now));
    let settled = sql("UPDATE outbox_delivery SET state = $6, next_attempt_at = $7, lease = NULL,
             last_error = $8, settled_at = $9
         WHERE tenant_id = $1 AND event_id = $2 AND channel = $3 AND target = $4 AND lease = $5
           AND state = 'pending'")
    .bind(claimed.tenant.0)
    .bind(claimed.event)
    .bind(claimed.channel.as_str())
    .bind(&claimed.target)
    .bind(claimed.lease)
    .bind(after.state)
    .bind(after.next_attempt_at.map(rows::stored))
    .bind(after.last_error)
    .bind(settled_at)
    .execute(tx)
    .await?;
    if settled == 0 {
        return Err(Unsettled::LostLease);
    }
    if is_gone {
        give_up(tx, claimed, after.last_error, now).await?;
    }
    Ok(())
}

/// Has nothing new sent to an endpoint, and locks what waits for it, oldest first.
async fn mark_gone(tx: &mut ControlTx, claimed: &Claimed, now: UnixMs) -> Result<(), StoreError> {
    sql("INSERT INTO webhook_gone (tenant_id, url, since) VALUES ($1, $2, $3)
         ON CONFLICT (tenant_id, url) DO NOTHING")
    .bind(claimed.tenant.0)
    .bind(&claimed.target)
    .bind(rows::stored(now))
    .execute(tx)
    .await?;
    // Where the endpoint was gone before, the row above holds nobody back.
    let _locked: Vec<(Uuid,)> = locking!(
        "SELECT event_id FROM outbox_delivery
         WHERE tenant_id = $1 AND channel = 'webhook' AND target = $2 AND state = 'pending'
         ORDER BY event_id"
    )
    .bind(claimed.tenant.0)
    .bind(&claimed.target)
    .all(tx)
    .await?;
    Ok(())
}

/// Gives up what waits for an endpoint.
async fn give_up(
    tx: &mut ControlTx,
    claimed: &Claimed,
    reason: Option<&str>,
    now: UnixMs,
) -> Result<(), StoreError> {
    sql("UPDATE outbox_delivery SET state = 'failed', next_attempt_at = NULL, lease = NULL,
             last_error = $3, settled_at = $4
         WHERE tenant_id = $1 AND channel = 'webhook' AND target = $2 AND state = 'pending'")
    .bind(claimed.tenant.0)
    .bind(&claimed.target)
    .bind(reason)
    .bind(rows::stored(now))
    .execute(tx)
    .await
    .map(drop)
}

#[cfg(test)]
mod tests;
