//! What a tenant and all those below it use together: the roll-up over the hierarchy.
//!
//! Sums of the same figures that each of them is shown, each in its own month and day.
//! Invariant: as for one tenant, a figure is whole or the answer is a 503; of a family too
//! large for one answer only its size is said, and nobody is added up of whom the caller may
//! not know.

use std::sync::Arc;

use model::{
    access::Right,
    anchor::Anchor,
    quota::{Metric, whole_mb},
    tenant::TenantId,
};
use schemars::JsonSchema;
use serde::Serialize;

use super::Current;
use crate::api::{Api, caller::Caller, problem::ApiError};

/// Tenants that are added up in one answer, a query or two each; a larger family is read
/// child by child.
const TENANTS_MAX: usize = 1_000;

/// A tenant with its descendants.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "SubtreeUsage")]
pub(super) struct Subtree {
    /// How many they are, the tenant itself included.
    tenants: usize,
    /// Their sums; `null` for more than 1,000 tenants: ask about the children then.
    current_usage: Option<Current>,
}

impl Subtree {
    /// `None` where nobody is below of whom the caller may know.
    pub(super) async fn of(
        caller: &Caller,
        api: &Api,
        root: TenantId,
        own: Current,
    ) -> Result<Option<Self>, ApiError> {
        let below = below(caller, api, root).await?;
        if below.is_empty() {
            return Ok(None);
        }
        let tenants = below.len() + 1;
        let current_usage = match tenants <= TENANTS_MAX {
            true => Some(sum(api, root, own, &below).await?),
            false => None,
        };
        Ok(Some(Self { tenants, current_usage }))
    }
}

/// Who is below, and when their months begin. One that was made elsewhere in this moment is
/// not in the directory yet, and has used nothing.
async fn below(
    caller: &Caller,
    api: &Api,
    root: TenantId,
) -> Result<Vec<(TenantId, Anchor)>, ApiError> {
    let ids = api.store.subtree(root).await?;
    let directory = Arc::clone(&api.store.directory().borrow());
    let anchor = |id: TenantId| directory.record(id).map(|record| (id, record.tenant.quota_anchor));
    let may_read = |id: &TenantId| {
        caller.rights_on(api, *id).is_some_and(|rights| rights.contains(Right::UsageRead))
    };
    Ok(ids.into_iter().filter(|id| *id != root).filter(may_read).filter_map(anchor).collect())
}

async fn sum(
    api: &Api,
    root: TenantId,
    own: Current,
    below: &[(TenantId, Anchor)],
) -> Result<Current, ApiError> {
    let levels = api.store.levels_below(root).await?;
    let level = |metric| levels.get(&metric).copied().unwrap_or(0);
    let (mut calls, mut requests, mut sessions) = (0, 0, 0);
    for (id, anchor) in below {
        let used = api.usage.usage(*id, *anchor).await.map_err(|_| ApiError::UsageUnavailable)?;
        calls += used.api_calls_this_month;
        requests += used.ai_requests_today;
        sessions += api.sessions.count(*id).await.map_err(|_| ApiError::UsageUnavailable)?;
    }
    Ok(Current {
        users_count: level(Metric::Users),
        projects_count: level(Metric::Projects),
        storage_used_mb: whole_mb(level(Metric::Storage)),
        api_calls_this_month: own.api_calls_this_month + calls,
        ai_requests_today: own.ai_requests_today + requests,
        concurrent_sessions: own.concurrent_sessions + sessions,
    })
}

#[cfg(test)]
mod tests;
