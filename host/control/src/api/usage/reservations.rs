//! `/tenants/{tenant_id}/usage/reservations`: room that is set aside for requests under way,
//! and a word about those whose outcome nobody knows.
//!
//! Invariant: a reservation that an edge vouches for is nobody else's to end.

use axum::{
    extract::State,
    http::{StatusCode, Uri},
    response::Response,
};
use model::{clock::UnixMs, quota::Metric, tenant::TenantId};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use uuid::Uuid;

use crate::{
    api::{
        Api,
        body::Document,
        caller::Caller,
        fields::{Fields, Ruled},
        json,
        page::{self, Asked},
        path::{ReservationPath, TenantPath},
        problem::{ApiError, Conflict},
    },
    store::{ReservationRecord, SetAside, SettleError},
};

/// Largest change: what every JSON reader can hold exactly.
const DELTA_MAX: u64 = (1 << 53) - 1;

/// Reservations of a tenant, the oldest first.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ReservationList")]
pub(in crate::api) struct List {
    items: Vec<View>,
    /// `null` on the last page.
    next_cursor: Option<String>,
}

/// Room that is set aside.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Reservation")]
struct View {
    #[schemars(with = "uuid::Uuid")]
    id: Uuid,
    metric: &'static str,
    /// Users, projects, or bytes of storage.
    amount: u64,
    created_at: String,
    /// Until then its edge vouches for it, and renews it before.
    expires_at: String,
    /// Nobody vouches for it: it stays counted until it is resolved, or until the tenant's
    /// backend reports the level.
    unresolved: bool,
}

/// What became of a request.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ReservationResolution")]
#[expect(dead_code, reason = "documents the shape that `resolve` reads")]
pub(in crate::api) struct Resolution {
    /// By how much the level changed: users, projects, or bytes of storage; 0 for not at all.
    #[schemars(range(min = -9_007_199_254_740_991_i64, max = 9_007_199_254_740_991_i64))]
    delta: i64,
}

/// Room set aside by metric, in the units in which it is reserved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "UsageReserved")]
pub(super) struct Reserved {
    users: u64,
    projects: u64,
    storage_bytes: u64,
    /// Of it, what no edge vouches for any more.
    unresolved: Unresolved,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "UsageUnresolved")]
struct Unresolved {
    users: u64,
    projects: u64,
    storage_bytes: u64,
}

impl Reserved {
    /// `None` when nothing is.
    pub(super) fn new(sums: &BTreeMap<Metric, SetAside>) -> Option<Self> {
        let sum = |metric| sums.get(&metric).copied().unwrap_or_default();
        let [users, projects, storage] =
            [Metric::Users, Metric::Projects, Metric::Storage].map(sum);
        let unresolved = Unresolved {
            users: users.unresolved,
            projects: projects.unresolved,
            storage_bytes: storage.unresolved,
        };
        let reserved = Self {
            users: users.reserved,
            projects: projects.reserved,
            storage_bytes: storage.reserved,
            unresolved,
        };
        Some(reserved).filter(|reserved| *reserved != Self::default())
    }
}

pub(in crate::api) async fn list(
    State(api): State<Api>,
    TenantPath(tenant): TenantPath,
    uri: Uri,
) -> Result<Response, ApiError> {
    let asked = Asked::read(&uri)?;
    let refused = || ApiError::field("cursor", "must be a next_cursor given here");
    let after = match &asked.after {
        Some(place) => Some(made(place).ok_or_else(refused)?),
        None => None,
    };
    exists(&api, tenant).await?;
    // One more than is shown says whether there is another page.
    let limit = u32::try_from(asked.limit + 1).unwrap_or(u32::MAX);
    let mut records = api.store.reservations(tenant, after, limit).await?;
    let more = records.len() > asked.limit;
    records.truncate(asked.limit);
    let place = |record: &ReservationRecord| {
        page::cursor(&page::in_time(record.created_at, &record.id.to_string()))
    };
    let next_cursor = records.last().filter(|_| more).map(place);
    Ok(json(List { items: records.iter().map(view).collect(), next_cursor }))
}

/// When and under which id the reservation of a place was made.
fn made(place: &str) -> Option<(UnixMs, Uuid)> {
    let (at, id) = place.split_at_checked(16)?;
    Some((UnixMs(u64::from_str_radix(at, 16).ok()?), id.parse().ok()?))
}

fn view(record: &ReservationRecord) -> View {
    View {
        id: record.id,
        metric: record.metric.as_str(),
        amount: record.amount,
        created_at: record.created_at.rfc3339(),
        expires_at: record.expires_at.rfc3339(),
        unresolved: record.unresolved,
    }
}

pub(in crate::api) async fn resolve(
    caller: Caller,
    State(api): State<Api>,
    TenantPath(tenant): TenantPath,
    ReservationPath(id): ReservationPath,
    document: Document,
) -> Result<StatusCode, ApiError> {
    let mut fields = Fields::new(document.members);
    let delta = fields.required("delta", delta);
    fields.finish()?;
    let Some(delta) = delta else { return Err(ApiError::NotFound) };
    match api.store.resolve_reservation(caller.actor(), tenant, id, delta).await {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(SettleError::NotFound) => Err(ApiError::NotFound),
        Err(SettleError::UnderWay) => Err(ApiError::Conflict(Conflict {
            code: "reservation-live",
            title: "The request is under way",
            detail: "An edge vouches for this reservation and will settle it; one that no edge \
                     vouches for is shown as unresolved."
                .to_owned(),
        })),
        Err(SettleError::Store(error)) => Err(ApiError::Store(error)),
    }
}

async fn exists(api: &Api, tenant: TenantId) -> Result<(), ApiError> {
    api.store.tenant(tenant).await?.map(drop).ok_or(ApiError::NotFound)
}

fn delta(value: &Value) -> Ruled<i64> {
    let delta = value.as_i64().filter(|delta| delta.unsigned_abs() <= DELTA_MAX);
    delta.ok_or_else(|| format!("must be a whole number from -{DELTA_MAX} to {DELTA_MAX}"))
}

#[cfg(test)]
mod tests {
    use model::reservation::{Amount, Wanted};
    use serde_json::json;

    use super::*;
    use crate::{
        store::{EdgeRun, Reserving},
        testing::{Backend, Control, acme, guide, id_of, on_both},
    };

    on_both![
        what_is_set_aside_is_shown_apart_and_resolved_by_hand,
        a_resolution_that_is_none_is_refused,
    ];

    const TTL_MS: u64 = 30_000;

    async fn reserve(control: &Control, tenant: TenantId, metric: Metric, amount: u64) -> Uuid {
        let id = Uuid::new_v4();
        let by = EdgeRun { edge: Uuid::from_u128(1), run: Uuid::from_u128(2) };
        let wanted = Wanted { tenant, metric, amount: Amount::exactly(amount) };
        let reserving = Reserving { id, by, wanted, ttl_ms: TTL_MS };
        control.store.reserve(&reserving, &guide()).await.expect("room");
        id
    }

    async fn what_is_set_aside_is_shown_apart_and_resolved_by_hand(on: Backend) {
        let control = Control::start(on).await;
        control.usage.set(0, 0);
        let tenant = id_of(&control.create(&acme()).await);
        let usage = format!("/api/v1/tenants/{tenant}/usage");
        assert_eq!(control.get(&usage).await.json.get("reserved"), None);
        let upload = reserve(&control, tenant, Metric::Storage, 700).await;
        control.clock.advance_ms(TTL_MS);
        reserve(&control, tenant, Metric::Users, 1).await;
        let shown = control.get(&usage).await.json;
        let unresolved = json!({ "users": 0, "projects": 0, "storage_bytes": 700 });
        assert_eq!(
            shown["reserved"],
            json!({ "users": 1, "projects": 0, "storage_bytes": 700, "unresolved": unresolved })
        );
        assert_eq!(shown["current_usage"]["storage_used_mb"], 0);
        let list = format!("{usage}/reservations");
        let items = control.get(&list).await.json["items"].clone();
        assert_eq!(items[0]["id"], upload.to_string());
        assert_eq!(
            (&items[0]["metric"], &items[0]["amount"], &items[0]["unresolved"]),
            (&json!("storage"), &json!(700), &json!(true))
        );
        assert_eq!(items[1]["unresolved"], false);
        let living = format!("{list}/{}", items[1]["id"].as_str().expect("an id"));
        let refused = control.json("POST", &living, &json!({ "delta": 0 })).await;
        assert_eq!((refused.status, &refused.json["code"]), (409, &json!("reservation-live")));
        let lost = format!("{list}/{upload}");
        assert_eq!(control.json("POST", &lost, &json!({ "delta": 650 })).await.status, 204);
        assert_eq!(control.json("POST", &lost, &json!({ "delta": 650 })).await.status, 404);
        assert_eq!(control.store.levels(tenant).await.expect("levels")[&Metric::Storage], 650);
        let audit = control.get(&format!("/api/v1/tenants/{tenant}/audit")).await.text;
        assert_eq!(audit.matches("usage.resolve").count(), 1, "{audit}");
    }

    async fn a_resolution_that_is_none_is_refused(on: Backend) {
        let control = Control::start(on).await;
        let tenant = id_of(&control.create(&acme()).await);
        let list = format!("/api/v1/tenants/{tenant}/usage/reservations");
        let upload = reserve(&control, tenant, Metric::Storage, 700).await;
        let path = format!("{list}/{upload}");
        for bad in [json!({}), json!({ "delta": "1" }), json!({ "delta": 1_u64 << 53 })] {
            assert_eq!(control.json("POST", &path, &bad).await.bad_fields(), ["delta"]);
        }
        let unknown = format!("{list}/{}", Uuid::nil());
        for nothing in [unknown.as_str(), &format!("{list}/x")] {
            let answer = control.json("POST", nothing, &json!({ "delta": 0 })).await;
            assert_eq!(answer.status, 404, "{nothing}");
        }
        let nobody = format!("/api/v1/tenants/{}/usage/reservations", Uuid::nil());
        assert_eq!(control.get(&nobody).await.status, 404);
    }
}
