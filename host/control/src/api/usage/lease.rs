//! The numbers of the leases in a usage answer: what the durable account says of the present
//! windows, and what the edge that answers knows.
//!
//! Invariant: `granted = credited + spent + wasted + outstanding` in one committed state.

use model::{
    anchor::Anchor,
    clock::UnixMs,
    gate::EdgeQuota,
    ledger::{Authority as _, WindowAccount, WindowKey},
    quota::Metric,
    tenant::TenantId,
    window::Window,
};
use schemars::JsonSchema;
use serde::Serialize;

use crate::api::{Deps, problem::ApiError};

/// Quotas of which tokens were granted in their present window.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "UsageLease")]
pub(super) struct Leases {
    #[serde(skip_serializing_if = "Option::is_none")]
    api_calls: Option<Lease>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ai_requests: Option<Lease>,
}

/// One quota's tokens in its present window.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "UsageLeaseAccount")]
struct Lease {
    window_start: String,
    window_end: String,
    /// Size of the quota that tokens were last granted under.
    limit: u64,
    /// Debited for edges and dispatchers so far.
    granted: u64,
    /// Of the granted, proven unspent or given back late.
    credited: u64,
    /// Of the granted, charged requests.
    spent: u64,
    /// Of the granted, charged without a known request: edges or machines that were lost. May
    /// fall when they come back.
    wasted: u64,
    /// Of the granted, in leases of edges or still at a dispatcher.
    outstanding: u64,
    /// Given back by requests so far.
    refunded: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    edge: Option<AtEdge>,
}

/// What the edge that answers knows, since it serves the tenant.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "UsageLeaseAtEdge")]
struct AtEdge {
    /// May be spent without asking.
    at_hand: u64,
    /// Kept aside for the time in which nobody answers.
    kept: u64,
    /// Tokens taken by requests.
    admitted: u64,
    /// Calls to the Redis that edges share.
    dispatcher_calls: u64,
    /// The same for each token; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    dispatcher_calls_per_admitted: Option<f64>,
}

impl Leases {
    /// The leases of the windows that hold `now`; `None` when nothing was granted in any.
    pub(super) async fn read(
        api: &Deps,
        tenant: TenantId,
        anchor: Anchor,
        now: UnixMs,
    ) -> Result<Option<Self>, ApiError> {
        let key = |metric| {
            let window = Window::of(metric, now, anchor)?;
            Some(WindowKey { tenant, metric, window })
        };
        let keys: Vec<WindowKey> = Metric::CONSUMABLE.into_iter().filter_map(key).collect();
        let accounts = api.store.accounts(keys.clone()).await;
        let accounts = accounts.map_err(|_| ApiError::UsageUnavailable)?;
        let at_edge = api.usage.at_edge(tenant);
        let mut leases = Self { api_calls: None, ai_requests: None };
        for (key, account) in keys.into_iter().zip(accounts) {
            let edge = at_edge.iter().find(|edge| edge.metric == key.metric);
            let lease = account.map(|account| Lease::new(key.window, &account, edge));
            match key.metric {
                Metric::ApiCalls => leases.api_calls = lease,
                _ => leases.ai_requests = lease,
            }
        }
        let any = leases.api_calls.is_some() || leases.ai_requests.is_some();
        Ok(any.then_some(leases))
    }
}

impl Lease {
    fn new(window: Window, account: &WindowAccount, edge: Option<&EdgeQuota>) -> Self {
        Self {
            window_start: window.start.rfc3339(),
            window_end: window.end.rfc3339(),
            limit: account.limit,
            granted: account.granted,
            credited: account.credited,
            spent: account.spent(),
            wasted: account.wasted,
            outstanding: account.outstanding(),
            refunded: account.refunded,
            edge: edge.map(AtEdge::new),
        }
    }
}

impl AtEdge {
    fn new(edge: &EdgeQuota) -> Self {
        let EdgeQuota { at_hand, kept, admitted, dispatcher_calls, .. } = *edge;
        let each = dispatcher_calls as f64 / admitted as f64;
        let dispatcher_calls_per_admitted = (admitted > 0).then_some(each);
        Self { at_hand, kept, admitted, dispatcher_calls, dispatcher_calls_per_admitted }
    }
}
