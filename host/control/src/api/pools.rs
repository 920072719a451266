//! `/tenants/{tenant_id}/pools`: what a parent sets aside for its children, in the product
//! guide's shape.
//!
//! Storage is given in GB of 2^30 bytes, users in seats, API calls and AI requests as they
//! are counted, in the windows of the tenant above all pools. A share of the guide's form is all
//! guaranteed; the extended form gives `guaranteed_…` and `max_…`. Invariants: what is
//! computed (used, committed) is answered, and accepted back without being stored; every
//! broken rule is named with its field.

mod read;
#[cfg(test)]
mod tests;
mod view;

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use model::quota::Metric;

pub(super) use self::{read::PoolsBody, view::Pools};
use super::{
    Api,
    body::Document,
    caller::Caller,
    json,
    path::TenantPath,
    problem::ApiError,
    tags::{content_tag, expected_tag},
};
use crate::store::{PoolReport, PoolsError, pools_tag};

/// How the pools of a metric are spelled.
struct Spelling {
    metric: Metric,
    pool: &'static str,
    total: &'static str,
    allocated: &'static str,
    guaranteed: &'static str,
    max: &'static str,
    /// Members of a pool that are computed.
    computed: [&'static str; 2],
    /// Member of a share that is computed.
    used: &'static str,
    /// Stored units in one of these.
    unit: u64,
    /// Name of the unit in refusals.
    unit_name: &'static str,
}

const SPELLINGS: [Spelling; 4] = [
    Spelling {
        metric: Metric::Storage,
        pool: "shared_storage_pool",
        total: "total_allocation_gb",
        allocated: "allocated_gb",
        guaranteed: "guaranteed_gb",
        max: "max_gb",
        computed: ["used_gb", "committed_gb"],
        used: "used_gb",
        unit: 1 << 30,
        unit_name: "GB",
    },
    Spelling {
        metric: Metric::Users,
        pool: "shared_user_pool",
        total: "total_seats",
        allocated: "allocated_seats",
        guaranteed: "guaranteed_seats",
        max: "max_seats",
        computed: ["utilized_seats", "committed_seats"],
        used: "used_seats",
        unit: 1,
        unit_name: "seats",
    },
    Spelling {
        metric: Metric::ApiCalls,
        pool: "shared_api_call_pool",
        total: "total_calls_per_month",
        allocated: "allocated_calls",
        guaranteed: "guaranteed_calls",
        max: "max_calls",
        computed: ["used_calls", "committed_calls"],
        used: "used_calls",
        unit: 1,
        unit_name: "calls",
    },
    Spelling {
        metric: Metric::AiRequests,
        pool: "shared_ai_request_pool",
        total: "total_requests_per_day",
        allocated: "allocated_requests",
        guaranteed: "guaranteed_requests",
        max: "max_requests",
        computed: ["used_requests", "committed_requests"],
        used: "used_requests",
        unit: 1,
        unit_name: "requests",
    },
];

/// The member that holds the pools.
const SHARING: &str = "resource_sharing";
/// The member of a pool that holds the shares.
const ALLOCATIONS: &str = "child_allocations";

pub(super) async fn get(
    State(api): State<Api>,
    TenantPath(tenant): TenantPath,
) -> Result<Response, ApiError> {
    if !api.store.knows(tenant) {
        return Err(ApiError::NotFound);
    }
    Ok(answer(&api.store.pools(tenant).await?))
}

fn answer(pools: &BTreeMap<Metric, PoolReport>) -> Response {
    (content_tag(&pools_tag(pools)), json(Pools::new(pools))).into_response()
}

pub(super) async fn put(
    caller: Caller,
    State(api): State<Api>,
    TenantPath(tenant): TenantPath,
    headers: HeaderMap,
    document: Document,
) -> Result<Response, ApiError> {
    let if_tag = expected_tag(&headers)?;
    let wanted = read::pools(document)?;
    let catalog = Arc::clone(&api.catalog.borrow());
    let set =
        api.store.put_pools(caller.actor(), tenant, &wanted, &catalog, if_tag.as_deref()).await;
    Ok(answer(&set.map_err(refusal)?))
}

fn refusal(error: PoolsError) -> ApiError {
    match error {
        PoolsError::NotFound => ApiError::NotFound,
        PoolsError::TagMismatch => ApiError::VersionMismatch,
        PoolsError::Faults(faults) => ApiError::Invalid(read::errors(faults)),
        PoolsError::PlanUnknown(plan) => {
            tracing::error!(plan, "pools were refused: the plan is not declared");
            ApiError::UsageUnavailable
        }
        PoolsError::Store(error) => ApiError::Store(error),
    }
}
