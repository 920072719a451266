//! Taking deliveries that are due, each by one worker at a time.
//!
//! A claim moves the due time to the end of its lease: a worker that dies in between needs
//! no clean-up, and what it may or may not have sent is sent again under the same id.
//! What runs counts against its tenant until it is settled or its lease ends, in whichever
//! process (claims made at the same moment do not see each other). Invariant: a delivery is
//! with one living worker only, and no tenant takes all of them.

use model::{clock::UnixMs, secret::Secret, tenant::TenantId};
use serde_json::Value;
use uuid::Uuid;

use super::super::{
    Store, StoreError,
    alerts::{Channel, live_secrets},
    db::{ControlTx, Purpose, sql, sql_each},
    random, rows,
    sealed::Sealer,
};

/// How long an attempt may take before it counts as lost, in ms: half as long again as
/// the slowest channel.
pub(super) const LEASE_MS: u64 = 30_000;
/// Deliveries of one tenant at once: one with many dead receivers leaves room for others.
const PER_TENANT: i64 = 4;

/// A delivery that this worker has for now.
#[derive(Clone, Debug)]
pub(crate) struct Claimed {
    pub(crate) tenant: TenantId,
    /// Name to show of the tenant.
    pub(crate) tenant_name: String,
    pub(crate) event: Uuid,
    pub(crate) kind: String,
    pub(crate) payload: Value,
    pub(crate) occurred_at: UnixMs,
    pub(crate) channel: Channel,
    pub(crate) target: String,
    /// What to sign with; for webhooks only.
    pub(crate) secrets: Vec<Secret>,
    /// Attempts so far, this one included.
    pub(super) attempts: u64,
    pub(super) lease: Uuid,
}

#[derive(sqlx::FromRow)]
struct DueRow {
    tenant_id: Uuid,
    event_id: Uuid,
    channel: String,
    target: String,
    attempts: i64,
    kind: String,
    payload: String,
    occurred_at: i64,
    display_name: String,
}

/// Deliveries that are due: those of tenants with the fewest at once first, longest due
/// first among them. A pending delivery that is not due but has a lease is under way; it
/// has a place before those that are due, and only so many places are given to a tenant.
macro_rules! due {
    ($lock:literal) => {
        concat!(
            "SELECT d.tenant_id, d.event_id, d.channel, d.target, d.attempts, e.kind, e.payload,
                 e.occurred_at, t.display_name
             FROM (SELECT tenant_id, event_id, channel, target, row_number() OVER (
                       PARTITION BY tenant_id
                       ORDER BY CASE WHEN next_attempt_at > $1 THEN 0 ELSE 1 END,
                           next_attempt_at) AS place
                   FROM outbox_delivery
                   WHERE state = 'pending'
                     AND (next_attempt_at <= $1 OR lease IS NOT NULL)) p
             JOIN outbox_delivery d ON d.tenant_id = p.tenant_id AND d.event_id = p.event_id
              AND d.channel = p.channel AND d.target = p.target
             JOIN outbox_event e ON e.tenant_id = d.tenant_id AND e.id = d.event_id
             JOIN tenant t ON t.id = d.tenant_id
             WHERE p.place <= $2 AND d.state = 'pending' AND d.next_attempt_at <= $1
             ORDER BY p.place, d.next_attempt_at LIMIT $3",
            $lock
        )
    };
}

impl Store {
    /// Takes deliveries that are due, at most `limit`.
    ///
    /// # Errors
    /// The store failed; nothing is taken.
    pub(crate) async fn claim_deliveries(&self, limit: u32) -> Result<Vec<Claimed>, StoreError> {
        let now = self.clock.now();
        let mut tx = self.db.control(Purpose::Write).await?;
        let claimed = claim(&mut tx, &self.sealer, limit, now).await;
        tx.end(claimed).await
    }
}

async fn claim(
    tx: &mut ControlTx,
    sealer: &Sealer,
    limit: u32,
    now: UnixMs,
) -> Result<Vec<Claimed>, StoreError> {
    let due: Vec<DueRow> = sql_each(due!(""), due!(" FOR UPDATE OF d SKIP LOCKED"))
        .bind(rows::stored(now))
        .bind(PER_TENANT)
        .bind(i64::from(limit))
        .all(tx)
        .await?;
    let mut claimed = Vec::with_capacity(due.len());
    for row in due {
        let mut taken = row.decode(Uuid::from_bytes(random::bytes()?))?;
        take(tx, &taken, now).await?;
        if taken.channel == Channel::Webhook {
            match live_secrets(tx, sealer, taken.tenant, now).await {
                Ok(secrets) => taken.secrets = secrets,
                // It fails as one without a secret does, which its tenant sees.
                Err(error @ (StoreError::Unsealable(_) | StoreError::UnknownKey { .. })) => {
                    tracing::error!(tenant = %taken.tenant, %error, "a webhook is not signed");
                }
                Err(error) => return Err(error),
            }
        }
        claimed.push(taken);
    }
    Ok(claimed)
}

async fn take(tx: &mut ControlTx, taken: &Claimed, now: UnixMs) -> Result<(), StoreError> {
    sql("UPDATE outbox_delivery SET attempts = attempts + 1, lease = $5, next_attempt_at = $6
         WHERE tenant_id = $1 AND event_id = $2 AND channel = $3 AND target = $4")
    .bind(taken.tenant.0)
    .bind(taken.event)
    .bind(taken.channel.as_str())
    .bind(&taken.target)
    .bind(taken.lease)
    .bind(rows::stored(now.plus_ms(LEASE_MS)))
    .execute(tx)
    .await
    .map(drop)
}

impl DueRow {
    fn decode(self, lease: Uuid) -> Result<Claimed, StoreError> {
        let channel = Channel::from_name(&self.channel);
        Ok(Claimed {
            tenant: TenantId(self.tenant_id),
            tenant_name: self.display_name,
            event: self.event_id,
            kind: self.kind,
            payload: rows::object(&self.payload)?,
            occurred_at: rows::instant(self.occurred_at),
            channel: channel.ok_or_else(|| StoreError::Decode(format!("{:?}", self.channel)))?,
            target: self.target,
            secrets: Vec::new(),
            attempts: u64::try_from(self.attempts).unwrap_or(0) + 1,
            lease,
        })
    }
}
