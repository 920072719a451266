//! `POST /tenants/{tenant_id}/usage/claims`: room taken under a limit before it is used.
//!
//! 201 with the new level, or the refusal of the quota in the words that the data plane
//! uses. Invariants: a claim that is sent again is answered as before; what an upgrade
//! would not help is not offered as one.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderName, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use model::{catalog::Catalog, quota::Metric};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::{
    api::{
        Api,
        body::Document,
        caller::Caller,
        fields::{Fields, Ruled},
        json,
        path::TenantPath,
        problem::ApiError,
        rules,
    },
    store::{Claim, ClaimError},
};

/// Longest id of a claim, in bytes: a UUID or a digest with a prefix.
const ID_BYTES_MAX: usize = 128;
/// Largest change: what every JSON reader can hold exactly.
const DELTA_MAX: u64 = (1 << 53) - 1;
/// Says that an answer was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// A claim: room that is about to be used, or given back.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documents the shape that `read` reads")]
pub(in crate::api) struct ClaimBody {
    metric: Claimable,
    /// How much more: users, projects, or bytes of storage; negative gives back.
    #[schemars(range(min = -9_007_199_254_740_991_i64, max = 9_007_199_254_740_991_i64))]
    delta: i64,
    /// Chosen by the client: for a day, the same claim with the same id is counted once.
    #[schemars(length(min = 1, max = 128))]
    id: String,
}

#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "ClaimableMetric")]
#[expect(dead_code, reason = "documents the metrics of a claim")]
enum Claimable {
    Users,
    Projects,
    Storage,
}

/// A claim that is counted.
#[derive(Serialize, JsonSchema)]
pub(in crate::api) struct ClaimView {
    id: String,
    metric: &'static str,
    delta: i64,
    /// What it led to, in the unit of `delta`.
    level: u64,
}

pub(in crate::api) async fn take(
    caller: Caller,
    State(api): State<Api>,
    TenantPath(tenant): TenantPath,
    document: Document,
) -> Result<Response, ApiError> {
    let claim = read(document)?;
    let catalog = Arc::clone(&api.catalog.borrow());
    let taken = api.store.claim(caller.actor(), tenant, &claim, &catalog).await;
    let taken = taken.map_err(|refused| refusal(refused, &catalog))?;
    let Claim { id, metric, delta } = claim;
    let view = ClaimView { id, metric: metric.as_str(), delta, level: taken.level };
    let mut answer = (StatusCode::CREATED, json(view)).into_response();
    if taken.repeated {
        answer.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(answer)
}

fn read(document: Document) -> Result<Claim, ApiError> {
    let mut fields = Fields::new(document.members);
    let metric = fields.required("metric", metric);
    let delta = fields.required("delta", delta);
    let id = fields.required("id", id);
    let (Some(metric), Some(delta), Some(id)) = (metric, delta, id) else {
        return Err(fields.refuse());
    };
    fields.finish()?;
    Ok(Claim { id, metric, delta })
}

fn metric(value: &Value) -> Ruled<Metric> {
    let name = rules::text(value)?;
    let claimable = Metric::REPORTED.into_iter().find(|metric| metric.as_str() == name);
    claimable.ok_or_else(|| {
        let names = Metric::REPORTED.map(Metric::as_str).join(", ");
        format!("must be one of: {names}; other metrics are counted by the edge")
    })
}

fn delta(value: &Value) -> Ruled<i64> {
    let delta = value.as_i64().filter(|delta| (1..=DELTA_MAX).contains(&delta.unsigned_abs()));
    delta.ok_or_else(|| {
        format!("must be a whole number other than 0, from -{DELTA_MAX} to {DELTA_MAX}")
    })
}

fn id(value: &Value) -> Ruled<String> {
    let id = rules::text(value)?;
    if id.is_empty() || id.len() > ID_BYTES_MAX || id.chars().any(char::is_control) {
        return Err(format!("must have 1 to {ID_BYTES_MAX} bytes and no control characters"));
    }
    Ok(id.to_owned())
}

fn refusal(error: ClaimError, catalog: &Catalog) -> ApiError {
    match error {
        ClaimError::NotFound => ApiError::NotFound,
        ClaimError::IdReused => {
            ApiError::field("id", "was used for another claim within the last 24 hours")
        }
        ClaimError::Exceeded(why) => ApiError::QuotaExceeded(Box::new(why.problem(&catalog.plans))),
        ClaimError::PlanUnknown(plan) => {
            tracing::error!(plan, "a claim was refused: the plan is not declared");
            ApiError::UsageUnavailable
        }
        ClaimError::Store(error) => ApiError::Store(error),
    }
}
