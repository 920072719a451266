//! `GET /tenants/{tenant_id}/alerts/events?cursor=&limit=`: what happened, newest first, and
//! how telling it goes.
//!
//! Invariant: an event is shown under the id that its receivers get it under.

use axum::{extract::State, http::Uri, response::Response};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use model::clock::UnixMs;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    api::{
        Api,
        fields::{Fields, query},
        json,
        path::TenantPath,
        problem::ApiError,
        rules,
    },
    store::{DeliveryRecord, EventRecord},
};

/// Events of a page unless asked otherwise.
const LIMIT_DEFAULT: u32 = 50;
/// Events of the longest page.
const LIMIT_MAX: u32 = 200;

/// Which page.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "documents the query that `list` reads")]
pub(in crate::api) struct EventsQuery {
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// 1 to 200; 50 unless given.
    #[schemars(range(min = 1, max = 200))]
    limit: Option<u32>,
}

/// A page of events, newest first.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AlertEvents")]
pub(in crate::api) struct EventsView {
    items: Vec<EventView>,
    /// `null` on the last page.
    next_cursor: Option<String>,
}

/// Something that happened.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AlertEvent")]
struct EventView {
    /// The `webhook-id` of every delivery.
    id: Uuid,
    /// `quota.warning`, `quota.critical`, `tenant.plan_changed`, `tenant.status_changed`.
    r#type: String,
    occurred_at: String,
    /// Its figures, as receivers get them.
    data: Map<String, Value>,
    deliveries: Vec<DeliveryView>,
}

/// How telling somebody goes.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AlertDelivery")]
struct DeliveryView {
    /// `email` or `webhook`.
    channel: &'static str,
    /// An address or a URL; `null` where the settings name none.
    target: Option<String>,
    /// `pending`, `delivered` or `failed`.
    state: &'static str,
    attempts: u64,
    next_attempt_at: Option<String>,
    last_error: Option<String>,
    /// When it was delivered or given up.
    settled_at: Option<String>,
}

impl EventView {
    fn new(event: EventRecord) -> Self {
        Self {
            id: event.id,
            r#type: event.kind,
            occurred_at: event.occurred_at.rfc3339(),
            data: event.payload,
            deliveries: event.deliveries.into_iter().map(DeliveryView::new).collect(),
        }
    }
}

impl DeliveryView {
    fn new(delivery: DeliveryRecord) -> Self {
        Self {
            channel: delivery.channel.as_str(),
            target: Some(delivery.target).filter(|target| !target.is_empty()),
            state: delivery.state.as_str(),
            attempts: delivery.attempts,
            next_attempt_at: delivery.next_attempt_at.map(UnixMs::rfc3339),
            last_error: delivery.last_error,
            settled_at: delivery.settled_at.map(UnixMs::rfc3339),
        }
    }
}

pub(in crate::api) async fn list(
    State(api): State<Api>,
    TenantPath(tenant): TenantPath,
    uri: Uri,
) -> Result<Response, ApiError> {
    let mut fields = Fields::new(query(&uri)?);
    let before = fields.optional("cursor", |value| {
        position(rules::text(value)?).ok_or_else(|| "must be a next_cursor given here".to_owned())
    });
    let limit = fields.optional("limit", |value| rules::number(value, 1, LIMIT_MAX.into()));
    fields.finish()?;
    let limit = limit.and_then(|limit| u32::try_from(limit).ok()).unwrap_or(LIMIT_DEFAULT);
    let page = api.store.events(tenant, before, limit).await?;
    Ok(json(EventsView {
        items: page.events.into_iter().map(EventView::new).collect(),
        next_cursor: page.next_before.map(|id| URL_SAFE_NO_PAD.encode(id.as_bytes())),
    }))
}

fn position(cursor: &str) -> Option<Uuid> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    Uuid::from_slice(&bytes).ok()
}
