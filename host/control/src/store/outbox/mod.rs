//! The outbox: what happened to a tenant, and who is told of it.
//!
//! [`insert`] belongs into the transaction of what happened, whichever that is; it adds a
//! delivery for everyone the tenant's alert settings name. [`Store::claim_deliveries`] and
//! [`Store::settle_delivery`] are the delivery job's. Invariant: an event is there exactly
//! when what it tells of was committed, once where it is named once; it is sent at least
//! once to everyone, always under the same id.

mod backoff;
pub(super) mod changes;
mod claim;
mod list;
mod settle;
use model::{clock::UnixMs, quota::Metric, tenant::TenantId};
use serde_json::{Map, Value};
use uuid::Uuid;

pub(crate) use self::claim::Claimed;
pub use self::{
    list::{DeliveryRecord, DeliveryState, EventRecord, EventsPage},
    settle::Outcome,
};
use super::{
    StoreError,
    alerts::{AlertSettings, Channel, Severity, Target, parsed},
    db::{ControlTx, Tx, sql},
    random, rows,
};

/// How long events are kept, in ms: 90 days, so that a quarter can be looked back on.
const KEPT_MS: u64 = 90 * 86_400_000;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A threshold of a metric was reached.
    Quota {
        /// Which threshold.
        severity: Severity,
        /// Of what.
        metric: Metric,
        /// Names the arming of the threshold: a second event of it is not inserted.
        once: String,
    },
    /// Another plan is in force.
    PlanChanged,
    /// The tenant has another status.
    StatusChanged,
}

impl EventKind {
    /// The stable name: the `type` of a webhook.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Quota { severity: Severity::Warning, .. } => "quota.warning",
            Self::Quota { severity: Severity::Critical, .. } => "quota.critical",
            Self::PlanChanged => "tenant.plan_changed",
            Self::StatusChanged => "tenant.status_changed",
        }
    }

    fn once(&self) -> Option<&str> {
        match self {
            Self::Quota { once, .. } => Some(once),
            Self::PlanChanged | Self::StatusChanged => None,
        }
    }

    fn targets(&self, settings: &AlertSettings, admin_email: &str) -> Vec<Target> {
        match self {
            Self::Quota { metric, .. } => settings.targets_of(*metric, admin_email),
            Self::PlanChanged | Self::StatusChanged => settings.targets_of_tenant(admin_email),
        }
    }
}

/// Inserts an event about `tenant`, whose figures `payload` has, with its deliveries. Its id;
/// `None` when it is named once and there.
///
/// Usable in every transaction that writes and sees the tenant. `tenant_id` and
/// `occurred_at` are added to the payload.
pub(super) async fn insert<S>(
    tx: &mut Tx<S>,
    tenant: TenantId,
    kind: EventKind,
    mut payload: Map<String, Value>,
    now: UnixMs,
) -> Result<Option<Uuid>, StoreError> {
    payload.shift_insert(0, "tenant_id".to_owned(), tenant.to_string().into());
    payload.insert("occurred_at".to_owned(), now.rfc3339().into());
    let id = uuid::Builder::from_unix_timestamp_millis(now.0, &random::bytes()?).into_uuid();
    let inserted = sql("INSERT INTO outbox_event (tenant_id, id, kind, once, payload, occurred_at)
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (tenant_id, once) DO NOTHING")
    .bind(tenant.0)
    .bind(id)
    .bind(kind.as_str())
    .bind(kind.once())
    .bind(rows::json(&payload)?)
    .bind(rows::stored(now))
    .execute(tx)
    .await?;
    if inserted == 0 {
        return Ok(None);
    }
    for target in targets(tx, tenant, &kind).await? {
        deliver(tx, tenant, id, target, now).await?;
    }
    Ok(Some(id))
}

#[cfg(test)]
impl super::Store {
    /// Stands in for a change of plan.
    pub(crate) async fn tell_plan_changed(&self, tenant: TenantId) {
        let mut tx = self.db.tenant(tenant, super::db::Purpose::Write).await.expect("one");
        let kind = EventKind::PlanChanged;
        let told = insert(&mut tx, tenant, kind, Map::new(), self.clock.now()).await;
        tx.end(told).await.expect("an event");
    }
}

/// Whom the settings, as they are now, name for an event.
async fn targets<S>(
    tx: &mut Tx<S>,
    tenant: TenantId,
    kind: &EventKind,
) -> Result<Vec<Target>, StoreError> {
    let row: Option<(String, String)> = sql("SELECT s.document, t.admin_email
         FROM alert_settings s JOIN tenant t ON t.id = s.tenant_id WHERE s.tenant_id = $1")
    .bind(tenant.0)
    .optional(tx)
    .await?;
    let Some((document, admin_email)) = row else { return Ok(Vec::new()) };
    Ok(kind.targets(&parsed(&document)?, &admin_email))
}

/// Adds a delivery; one that cannot be made is there as failed, so that the tenant sees it.
async fn deliver<S>(
    tx: &mut Tx<S>,
    tenant: TenantId,
    event: Uuid,
    target: Target,
    now: UnixMs,
) -> Result<(), StoreError> {
    let refusal = refusal(tx, tenant, &target).await?;
    let due = refusal.is_none().then(|| rows::stored(now));
    let settled = refusal.is_some().then(|| rows::stored(now));
    sql("INSERT INTO outbox_delivery (tenant_id, event_id, channel, target, state, attempts,
             next_attempt_at, lease, last_error, created_at, settled_at)
         VALUES ($1, $2, $3, $4, $5, 0, $6, NULL, $7, $8, $9)")
    .bind(tenant.0)
    .bind(event)
    .bind(target.channel.as_str())
    .bind(target.address.as_deref().unwrap_or_default())
    .bind(if refusal.is_some() { "failed" } else { "pending" })
    .bind(due)
    .bind(refusal.as_deref())
    .bind(rows::stored(now))
    .bind(settled)
    .execute(tx)
    .await
    .map(drop)
}

/// Why a target cannot be delivered to at all.
async fn refusal<S>(
    tx: &mut Tx<S>,
    tenant: TenantId,
    target: &Target,
) -> Result<Option<String>, StoreError> {
    let Some(address) = &target.address else {
        return Ok(Some("no webhook_url is set: set it for the metric or in defaults".to_owned()));
    };
    if target.channel != Channel::Webhook {
        return Ok(None);
    }
    let gone: Option<(i64,)> =
        sql("SELECT since FROM webhook_gone WHERE tenant_id = $1 AND url = $2")
            .bind(tenant.0)
            .bind(address)
            .optional(tx)
            .await?;
    Ok(gone.map(|(since,)| {
        let since = rows::instant(since).rfc3339();
        format!("the endpoint answered 410 Gone at {since}: PUT the settings to enable it again")
    }))
}

/// Drops the events of a tenant that nobody looks back on any more.
pub(super) async fn forget_old(
    tx: &mut ControlTx,
    tenant: TenantId,
    now: UnixMs,
) -> Result<(), StoreError> {
    let oldest = UnixMs(now.0.saturating_sub(KEPT_MS));
    let before = uuid::Builder::from_unix_timestamp_millis(oldest.0, &[0; 10]).into_uuid();
    for statement in [
        "DELETE FROM outbox_delivery WHERE tenant_id = $1 AND event_id < $2",
        "DELETE FROM outbox_event WHERE tenant_id = $1 AND id < $2",
    ] {
        sql(statement).bind(tenant.0).bind(before).execute(tx).await?;
    }
    Ok(())
}
