//! `GET /tenants/{id}/usage`: the product guide's figures, in its order.
//!
//! API calls and AI requests are exact, from the quota authority. Users, projects,
//! storage and sessions are reported levels; nothing reports them in this release, so
//! they are 0. Invariant: an authority that does not answer is a 503, never a stale or
//! invented figure.

use axum::{extract::State, response::Response};
use model::{
    gate::MeteredUsage,
    quota::{Metric, Quotas, utilization_percent},
    tenant::TenantId,
};
use serde::Serialize;
use std::collections::BTreeMap;

use super::{Api, auth::Admin, json, path::TenantPath, problem::ApiError, rules};

#[derive(Debug, Serialize)]
struct Usage {
    tenant_id: TenantId,
    current_usage: Current,
    /// `null`, as the percentages, when the plan is no longer declared.
    quotas: Option<Quotas>,
    utilization_percentages: Option<Percentages>,
    last_calculated_at: String,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Current {
    users_count: u64,
    projects_count: u64,
    api_calls_this_month: u64,
    storage_used_mb: u64,
    ai_requests_today: u64,
    concurrent_sessions: u64,
}

#[derive(Debug, Serialize)]
struct Percentages {
    users: f64,
    projects: f64,
    api_calls: f64,
    storage: f64,
    ai_requests: f64,
    concurrent_sessions: f64,
}

pub(super) async fn read(
    _: Admin,
    State(api): State<Api>,
    TenantPath(id): TenantPath,
) -> Result<Response, ApiError> {
    let stored = api.store.tenant(id).await?.ok_or(ApiError::NotFound)?;
    let metered = api.usage.usage(id).await.map_err(|_| ApiError::UsageUnavailable)?;
    let current = Current::new(metered, &api.store.gauges(id).await?);
    let quotas = rules::effective(&stored.tenant, &api.catalog.borrow());
    Ok(json(Usage {
        tenant_id: id,
        current_usage: current,
        quotas,
        utilization_percentages: quotas.map(|quotas| Percentages::new(current, &quotas)),
        last_calculated_at: metered.as_of.rfc3339(),
    }))
}

impl Current {
    fn new(metered: MeteredUsage, gauges: &BTreeMap<Metric, u64>) -> Self {
        let level = |metric| gauges.get(&metric).copied().unwrap_or(0);
        Self {
            users_count: level(Metric::Users),
            projects_count: level(Metric::Projects),
            api_calls_this_month: metered.api_calls_this_month,
            storage_used_mb: level(Metric::Storage),
            ai_requests_today: metered.ai_requests_today,
            concurrent_sessions: level(Metric::ConcurrentSessions),
        }
    }
}

impl Percentages {
    fn new(used: Current, quotas: &Quotas) -> Self {
        let percent = |used, metric| utilization_percent(used, quotas.of(metric));
        Self {
            users: percent(used.users_count, Metric::Users),
            projects: percent(used.projects_count, Metric::Projects),
            api_calls: percent(used.api_calls_this_month, Metric::ApiCalls),
            storage: percent(used.storage_used_mb, Metric::Storage),
            ai_requests: percent(used.ai_requests_today, Metric::AiRequests),
            concurrent_sessions: percent(used.concurrent_sessions, Metric::ConcurrentSessions),
        }
    }
}
