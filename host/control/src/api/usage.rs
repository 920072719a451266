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
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;

use super::{Api, json, path::TenantPath, problem::ApiError};

/// Usage and quotas of a tenant.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Usage {
    #[schemars(with = "uuid::Uuid")]
    tenant_id: TenantId,
    current_usage: Current,
    /// `null`, as the percentages, when the plan is no longer declared.
    quotas: Option<Quotas>,
    utilization_percentages: Option<Percentages>,
    last_calculated_at: String,
}

#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[schemars(rename = "CurrentUsage")]
struct Current {
    users_count: u64,
    projects_count: u64,
    api_calls_this_month: u64,
    storage_used_mb: u64,
    ai_requests_today: u64,
    concurrent_sessions: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "UtilizationPercentages")]
struct Percentages {
    users: f64,
    projects: f64,
    api_calls: f64,
    storage: f64,
    ai_requests: f64,
    concurrent_sessions: f64,
}

pub(super) async fn read(
    State(api): State<Api>,
    TenantPath(id): TenantPath,
) -> Result<Response, ApiError> {
    let stored = api.store.tenant(id).await?.ok_or(ApiError::NotFound)?;
    let metered = api.usage.usage(id).await.map_err(|_| ApiError::UsageUnavailable)?;
    let current = Current::new(metered, &api.store.gauges(id).await?);
    let quotas = api.catalog.borrow().quotas_of(&stored.tenant);
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

#[cfg(test)]
mod tests {
    use model::{clock::UnixMs, gate::MeteredUsage, quota::Metric};
    use serde_json::json;

    use crate::testing::{Backend, Control, acme, id_of, on_both};

    on_both![
        the_guides_example_is_answered_field_by_field,
        an_authority_that_does_not_answer_is_a_503_with_retry_after,
        an_unknown_tenant_is_not_found,
    ];

    async fn the_guides_example_is_answered_field_by_field(on: Backend) {
        let control = Control::start(on).await;
        let tenant = control.create(&acme()).await;
        for (metric, value) in
            [("users", 45), ("projects", 23), ("storage", 8_500), ("concurrent_sessions", 12)]
        {
            let metric = Metric::from_name(metric).expect("a metric");
            control.store.put_gauge(id_of(&tenant), metric, value).await.expect("a gauge");
        }
        *control.usage.0.lock().expect("not poisoned") = Some(MeteredUsage {
            api_calls_this_month: 85_000,
            ai_requests_today: 750,
            as_of: UnixMs(1_705_314_600_000),
        });
        let guide = json!({
            "tenant_id": tenant["id"],
            "current_usage": {
                "users_count": 45,
                "projects_count": 23,
                "api_calls_this_month": 85000,
                "storage_used_mb": 8500,
                "ai_requests_today": 750,
                "concurrent_sessions": 12
            },
            "quotas": {
                "max_users": 999999,
                "max_projects": 999999,
                "max_api_calls_per_month": 999999999,
                "max_storage_mb": 1048576,
                "max_ai_requests_per_day": 10000,
                "max_concurrent_sessions": 100
            },
            "utilization_percentages": {
                "users": 0.0045,
                "projects": 0.0023,
                "api_calls": 0.0085,
                "storage": 0.81,
                "ai_requests": 7.5,
                "concurrent_sessions": 12.0
            },
            "last_calculated_at": "2024-01-15T10:30:00Z"
        });
        for prefix in ["/api/v1", "/v1"] {
            let answer = control.get(&format!("{prefix}/tenants/{}/usage", id_of(&tenant))).await;
            assert_eq!(answer.text, guide.to_string());
        }
    }

    async fn an_authority_that_does_not_answer_is_a_503_with_retry_after(on: Backend) {
        let control = Control::start(on).await;
        let tenant = control.create(&acme()).await;
        let answer = control.get(&format!("/api/v1/tenants/{}/usage", id_of(&tenant))).await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.headers["retry-after"], "1");
        assert_eq!(answer.json["code"], "temporary-reduced-capacity");
    }

    async fn an_unknown_tenant_is_not_found(on: Backend) {
        let control = Control::start(on).await;
        for id in ["00000000-0000-0000-0000-000000000000", "acme-corp", "%ff", "1"] {
            let answer = control.get(&format!("/api/v1/tenants/{id}/usage")).await;
            assert_eq!((answer.status, &answer.json["code"]), (404, &"not-found".into()), "{id}");
        }
    }
}
