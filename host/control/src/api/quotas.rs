//! `GET /admin/quotas/audit`: whether every quota account adds up.
//!
//! Operators run it after an incident, and a job runs the same sums every hour. Invariant:
//! it only reads; an empty list is the proof.

use axum::{extract::State, response::Response};
use model::clock::UnixMs;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Api, json, problem::ApiError};
use crate::store::QuotaViolation;

/// What the audit found.
#[derive(Serialize, JsonSchema)]
pub(super) struct QuotaAudit {
    /// Whether every account adds up.
    sound: bool,
    violations: Vec<ViolationView>,
}

/// An account that does not add up.
#[derive(Serialize, JsonSchema)]
struct ViolationView {
    tenant_id: uuid::Uuid,
    metric: String,
    /// Start of the window.
    window_start: String,
    /// The rule that is broken.
    rule: String,
    found: i64,
    /// The figure that was expected, or the bound.
    expected: i64,
}

impl From<QuotaViolation> for ViolationView {
    fn from(found: QuotaViolation) -> Self {
        let start = UnixMs(u64::try_from(found.start_ms).unwrap_or(0));
        Self {
            tenant_id: found.tenant,
            metric: found.metric,
            window_start: start.rfc3339(),
            rule: found.rule,
            found: found.found,
            expected: found.expected,
        }
    }
}

pub(super) async fn audit(State(api): State<Api>) -> Result<Response, ApiError> {
    let found = api.store.audit_quotas().await?;
    let violations: Vec<_> = found.into_iter().map(ViolationView::from).collect();
    Ok(json(QuotaAudit { sound: violations.is_empty(), violations }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Backend, Control, on_both};

    async fn accounts_that_add_up_are_sound(on: Backend) {
        let control = Control::start(on).await;
        let answer = control.get("/api/v1/admin/quotas/audit").await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer.json, json!({"sound": true, "violations": []}));
    }

    on_both! { accounts_that_add_up_are_sound }
}
