//! `PUT /tenants/{tenant_id}/usage/levels`: what a tenant's backend counted.
//!
//! Invariant: a fact is a fact; no quota refuses it.

use std::collections::BTreeMap;

use axum::{extract::State, response::Response};
use model::quota::Metric;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::api::{
    Api,
    body::Document,
    caller::Caller,
    fields::{Fields, Ruled},
    json,
    path::TenantPath,
    problem::ApiError,
};

/// Largest level: what every JSON reader can hold exactly.
const LEVEL_MAX: u64 = (1 << 53) - 1;

/// Levels as counted; one that is left out stays as it is.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documents the shape that `read` reads")]
pub(in crate::api) struct LevelsBody {
    /// Users of the tenant.
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    users: Option<u64>,
    /// Projects of the tenant.
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    projects: Option<u64>,
    /// Bytes that it stores.
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    storage_bytes: Option<u64>,
}

/// All levels of a tenant.
#[derive(Serialize, JsonSchema)]
pub(in crate::api) struct Levels {
    users: u64,
    projects: u64,
    storage_bytes: u64,
}

pub(in crate::api) async fn put(
    caller: Caller,
    State(api): State<Api>,
    TenantPath(tenant): TenantPath,
    document: Document,
) -> Result<Response, ApiError> {
    let facts = read(document)?;
    let levels = api.store.put_levels(caller.actor(), tenant, &facts).await?;
    let level = |metric| levels.get(&metric).copied().unwrap_or(0);
    Ok(json(Levels {
        users: level(Metric::Users),
        projects: level(Metric::Projects),
        storage_bytes: level(Metric::Storage),
    }))
}

const fn member(metric: Metric) -> &'static str {
    match metric {
        Metric::Storage => "storage_bytes",
        other => other.as_str(),
    }
}

fn read(document: Document) -> Result<BTreeMap<Metric, u64>, ApiError> {
    let mut fields = Fields::new(document.members);
    if !Metric::REPORTED.into_iter().any(|metric| fields.has(member(metric))) {
        fields.reject("users", "at least one of users, projects and storage_bytes is required");
    }
    let facts = Metric::REPORTED
        .into_iter()
        .filter_map(|metric| Some((metric, fields.optional(member(metric), level)?)))
        .collect();
    fields.finish()?;
    Ok(facts)
}

fn level(value: &Value) -> Ruled<u64> {
    value
        .as_u64()
        .filter(|level| *level <= LEVEL_MAX)
        .ok_or_else(|| format!("must be a whole number from 0 to {LEVEL_MAX}"))
}
