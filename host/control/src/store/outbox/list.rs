//! The events of a tenant and how their deliveries go, newest first.
//!
//! Invariant: a reader that follows the pages sees every event that was there when it began
//! exactly once.

use std::collections::BTreeMap;

use model::{clock::UnixMs, tenant::TenantId};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::super::{
    ChangeError, Store, StoreError,
    alerts::Channel,
    db::{Purpose, TenantTx, sql},
    keys::exists,
    rows,
};

/// An event as listed.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRecord {
    /// The id under which it is sent, always the same.
    pub id: Uuid,
    /// `quota.warning` and so on.
    pub kind: String,
    /// Its figures.
    pub payload: Map<String, Value>,
    /// When it happened.
    pub occurred_at: UnixMs,
    /// Who is told, in the order of channel and target.
    pub deliveries: Vec<DeliveryRecord>,
}

/// How one delivery goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryRecord {
    /// By what.
    pub channel: Channel,
    /// To where; empty where the settings name no URL.
    pub target: String,
    /// How it stands.
    pub state: DeliveryState,
    /// Attempts begun.
    pub attempts: u64,
    /// When it is tried next, if it is.
    pub next_attempt_at: Option<UnixMs>,
    /// Why the last attempt did not succeed.
    pub last_error: Option<String>,
    /// When it was delivered or given up.
    pub settled_at: Option<UnixMs>,
}

/// How a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryState {
    /// To be tried, or being tried.
    Pending,
    /// The receiver has it.
    Delivered,
    /// Given up.
    Failed,
}

impl DeliveryState {
    /// The stable name used in JSON and SQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        let all = [Self::Pending, Self::Delivered, Self::Failed];
        all.into_iter().find(|state| state.as_str() == name)
    }
}

/// A page of events.
#[derive(Clone, Debug, PartialEq)]
pub struct EventsPage {
    /// Newest first.
    pub events: Vec<EventRecord>,
    /// Where the next page begins, if there is one.
    pub next_before: Option<Uuid>,
}

#[derive(sqlx::FromRow)]
struct DeliveryRow {
    event_id: Uuid,
    channel: String,
    target: String,
    state: String,
    attempts: i64,
    next_attempt_at: Option<i64>,
    last_error: Option<String>,
    settled_at: Option<i64>,
}

impl Store {
    /// A tenant's events before the one called `before`, at most `limit`.
    ///
    /// # Errors
    /// No such tenant, or the store failed.
    pub async fn events(
        &self,
        tenant: TenantId,
        before: Option<Uuid>,
        limit: u32,
    ) -> Result<EventsPage, ChangeError> {
        let mut tx = self.db.tenant(tenant, Purpose::Read).await?;
        let page = async {
            exists(&mut tx).await?;
            Ok(page(&mut tx, before.unwrap_or(Uuid::max()), limit).await?)
        }
        .await;
        tx.end(page).await
    }
}

async fn page(tx: &mut TenantTx, before: Uuid, limit: u32) -> Result<EventsPage, StoreError> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut rows: Vec<(Uuid, String, String, i64)> =
        sql("SELECT id, kind, payload, occurred_at FROM outbox_event
         WHERE tenant_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3")
        .bind(tx.tenant().0)
        .bind(before)
        .bind(i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX))
        .all(tx)
        .await?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let (Some((newest, ..)), Some((oldest, ..))) = (rows.first(), rows.last()) else {
        return Ok(EventsPage { events: Vec::new(), next_before: None });
    };
    let next_before = more.then_some(*oldest);
    let mut deliveries = deliveries(tx, *oldest, *newest).await?;
    let event = |(id, kind, payload, occurred_at): (Uuid, _, String, _)| {
        Ok(EventRecord {
            id,
            kind,
            payload: rows::object(&payload)?,
            occurred_at: rows::instant(occurred_at),
            deliveries: deliveries.remove(&id).unwrap_or_default(),
        })
    };
    let events = rows.into_iter().map(event).collect::<Result<_, StoreError>>()?;
    Ok(EventsPage { events, next_before })
}

async fn deliveries(
    tx: &mut TenantTx,
    oldest: Uuid,
    newest: Uuid,
) -> Result<BTreeMap<Uuid, Vec<DeliveryRecord>>, StoreError> {
    let rows: Vec<DeliveryRow> = sql("SELECT event_id, channel, target, state, attempts,
             next_attempt_at, last_error, settled_at FROM outbox_delivery
         WHERE tenant_id = $1 AND event_id BETWEEN $2 AND $3 ORDER BY event_id, channel, target")
    .bind(tx.tenant().0)
    .bind(oldest)
    .bind(newest)
    .all(tx)
    .await?;
    let mut by_event = BTreeMap::<Uuid, Vec<_>>::new();
    for row in rows {
        by_event.entry(row.event_id).or_default().push(row.decode()?);
    }
    Ok(by_event)
}

impl DeliveryRow {
    fn decode(self) -> Result<DeliveryRecord, StoreError> {
        let bad = |value: &str| StoreError::Decode(format!("delivery {value:?}"));
        Ok(DeliveryRecord {
            channel: Channel::from_name(&self.channel).ok_or_else(|| bad(&self.channel))?,
            state: DeliveryState::from_name(&self.state).ok_or_else(|| bad(&self.state))?,
            target: self.target,
            attempts: u64::try_from(self.attempts).unwrap_or(0),
            next_attempt_at: self.next_attempt_at.map(rows::instant),
            last_error: self.last_error,
            settled_at: self.settled_at.map(rows::instant),
        })
    }
}
