//! `GET /tenants/{tenant_id}/usage`: the product guide's figures, in its order.
//!
//! API calls and AI requests are exact, from the quota authority; users, projects and
//! storage are levels that backends report (`levels.rs`, `claims.rs`); sessions are those
//! alive now on all edges. Quotas are the plan's; where a pool replaces
//! one, `pools` says so and the percentage is of what the pool allows. What is set aside for
//! requests under way stands in `reserved`, when something is. Invariant: an
//! authority that does not answer is a 503, never a stale or invented figure.

pub(super) mod claims;
pub(super) mod levels;
pub(super) mod reservations;
mod subtree;
#[cfg(test)]
mod tests;
pub(super) mod trends;

use axum::{extract::State, response::Response};
use model::{
    gate::MeteredUsage,
    quota::{BYTES_PER_MB, Metric, Quotas, utilization_percent, whole_mb},
    tenant::TenantId,
};
use schemars::JsonSchema;
use serde::Serialize;
use std::{collections::BTreeMap, sync::Arc};

use self::{reservations::Reserved, subtree::Subtree};
use super::{Api, caller::Caller, json, path::TenantPath, problem::ApiError};
use crate::store::PoolCap;

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
    /// Room set aside for requests under way: not used yet, and counted against the quotas.
    #[serde(skip_serializing_if = "Option::is_none")]
    reserved: Option<Reserved>,
    /// Where a share of the parent's pool replaces a quota.
    #[serde(skip_serializing_if = "Pools::is_empty")]
    pools: Pools,
    /// The tenant and all those below it together, when there are any whose usage the caller
    /// may read.
    #[serde(skip_serializing_if = "Option::is_none")]
    subtree: Option<Subtree>,
}

/// Shares in the place of quotas, in the units of these.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "UsagePools")]
struct Pools {
    #[serde(skip_serializing_if = "Option::is_none")]
    max_users: Option<Share>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_storage_mb: Option<Share>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_api_calls_per_month: Option<Share>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_ai_requests_per_day: Option<Share>,
}

#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[schemars(rename = "UsagePoolShare")]
struct Share {
    /// Whose pool.
    #[schemars(with = "uuid::Uuid")]
    pool_tenant_id: TenantId,
    /// Set aside for this tenant.
    guaranteed: u64,
    /// The most that all pools above allow.
    limit: u64,
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
    caller: Caller,
    State(api): State<Api>,
    TenantPath(id): TenantPath,
) -> Result<Response, ApiError> {
    let stored = api.store.tenant(id).await?.ok_or(ApiError::NotFound)?;
    let metered = api
        .usage
        .usage(id, api.store.quota_anchor(&stored.tenant))
        .await
        .map_err(|_| ApiError::UsageUnavailable)?;
    let sessions = api.sessions.count(id).await.map_err(|_| ApiError::UsageUnavailable)?;
    let current = Current::new(metered, sessions, &api.store.levels(id).await?);
    let catalog = Arc::clone(&api.catalog.borrow());
    let quotas = catalog.quotas_of(&stored.tenant);
    let pools = Pools::new(&api.store.pool_caps(id, &catalog).await?);
    let limits = quotas.map(|quotas| pools.replace(quotas));
    Ok(json(Usage {
        tenant_id: id,
        current_usage: current,
        quotas,
        utilization_percentages: limits.map(|limits| Percentages::new(current, &limits)),
        last_calculated_at: metered.as_of.rfc3339(),
        reserved: Reserved::new(&api.store.set_aside(id).await?),
        pools,
        subtree: Subtree::of(&caller, &api, id, current).await?,
    }))
}

impl Pools {
    fn new(caps: &BTreeMap<Metric, PoolCap>) -> Self {
        let share = |metric, unit: u64| {
            caps.get(&metric).map(|cap| Share {
                pool_tenant_id: cap.owner,
                guaranteed: cap.share.guaranteed / unit,
                limit: cap.limit / unit,
            })
        };
        Self {
            max_users: share(Metric::Users, 1),
            max_storage_mb: share(Metric::Storage, BYTES_PER_MB),
            max_api_calls_per_month: share(Metric::ApiCalls, 1),
            max_ai_requests_per_day: share(Metric::AiRequests, 1),
        }
    }

    const fn is_empty(&self) -> bool {
        self.max_users.is_none()
            && self.max_storage_mb.is_none()
            && self.max_api_calls_per_month.is_none()
            && self.max_ai_requests_per_day.is_none()
    }

    /// The quotas with what the pools allow in their place.
    fn replace(&self, quotas: Quotas) -> Quotas {
        let limit = |share: Option<Share>, plan| share.map_or(plan, |share| share.limit);
        Quotas {
            max_users: limit(self.max_users, quotas.max_users),
            max_storage_mb: limit(self.max_storage_mb, quotas.max_storage_mb),
            max_api_calls_per_month: limit(
                self.max_api_calls_per_month,
                quotas.max_api_calls_per_month,
            ),
            max_ai_requests_per_day: limit(
                self.max_ai_requests_per_day,
                quotas.max_ai_requests_per_day,
            ),
            ..quotas
        }
    }
}

impl Current {
    fn new(
        metered: MeteredUsage,
        concurrent_sessions: u64,
        levels: &BTreeMap<Metric, u64>,
    ) -> Self {
        let level = |metric| levels.get(&metric).copied().unwrap_or(0);
        Self {
            users_count: level(Metric::Users),
            projects_count: level(Metric::Projects),
            api_calls_this_month: metered.api_calls_this_month,
            storage_used_mb: whole_mb(level(Metric::Storage)),
            ai_requests_today: metered.ai_requests_today,
            concurrent_sessions,
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
