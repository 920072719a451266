//! `GET /tenants/{tenant_id}/health`, and the product guide's spelling
//! `/health/tenant/{tenant_id}`.
//!
//! Invariant: an answer is at most [`KEPT_MS`] old, and however many ask, one tenant is
//! checked once at a time; neither liveness nor readiness depends on it.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use model::tenant::{Tenant, TenantId};
use moka::future::Cache;
use schemars::JsonSchema;
use serde::Serialize;

use super::checks::{self, Check, Wellness};
use crate::api::{Api, json, path::TenantPath, problem::ApiError};

/// How long an answer is kept, in ms: a page of many gauges asks for it every few seconds.
const KEPT_MS: u64 = 2_000;
/// Tenants whose answer is kept: those that somebody looks at, of 100,000.
const TENANTS_KEPT: u64 = 1_024;

/// The health of a tenant: as its worst check.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(in crate::api) struct TenantHealth {
    #[schemars(with = "uuid::Uuid")]
    tenant_id: TenantId,
    status: Wellness,
    checks: Checks,
    metrics: Metrics,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "TenantHealthChecks")]
struct Checks {
    database_connection: Check,
    cache_availability: Check,
    quota_status: Check,
    billing_status: Check,
}

/// Figures; `null` while they cannot be read.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "TenantHealthMetrics")]
struct Metrics {
    active_users: Option<u64>,
    current_projects: Option<u64>,
    /// Of this UTC day, as of the last sample: at most a minute old.
    api_calls_today: Option<u64>,
}

/// Recent answers, by tenant.
#[derive(Clone, Debug)]
pub(in crate::api) struct Recent(Cache<TenantId, Kept>);

#[derive(Clone, Debug)]
struct Kept {
    health: Arc<TenantHealth>,
    /// On the clock that never goes back.
    at_ms: u64,
}

impl Default for Recent {
    fn default() -> Self {
        Self(Cache::new(TENANTS_KEPT))
    }
}

pub(in crate::api) async fn read(
    State(api): State<Api>,
    TenantPath(id): TenantPath,
) -> Result<Response, ApiError> {
    let tenant = api.store.published(id).ok_or(ApiError::NotFound)?;
    let old = |kept: &Kept| api.clock.monotonic_ms().saturating_sub(kept.at_ms) >= KEPT_MS;
    let fresh = async {
        let health = Arc::new(check(&api, &tenant.tenant).await);
        Kept { health, at_ms: api.clock.monotonic_ms() }
    };
    let kept = api.health.0.entry(id).or_insert_with_if(fresh, old).await;
    Ok(json(&*kept.into_value().health))
}

async fn check(api: &Api, tenant: &Tenant) -> TenantHealth {
    let ((database, figures), cache, consumed) = tokio::join!(
        checks::database(api, tenant),
        checks::cache(api),
        checks::consumption(api, tenant),
    );
    let quotas = api.catalog.borrow().quotas_of(tenant);
    let level = |metric| {
        let figures = figures.as_ref()?;
        Some(figures.levels.get(&metric).copied().unwrap_or(0))
    };
    let metrics = Metrics {
        active_users: level(model::quota::Metric::Users),
        current_projects: level(model::quota::Metric::Projects),
        api_calls_today: figures.as_ref().map(|figures| figures.calls_today),
    };
    let checks = Checks {
        quota_status: checks::quota(quotas, figures.as_ref(), consumed),
        billing_status: checks::billing(tenant, api.store.effective_status(tenant)),
        database_connection: database,
        cache_availability: cache,
    };
    TenantHealth { tenant_id: tenant.id, status: checks.worst(), checks, metrics }
}

impl Checks {
    fn worst(&self) -> Wellness {
        let Self { database_connection, cache_availability, quota_status, billing_status } = self;
        [database_connection, cache_availability, quota_status, billing_status]
            .into_iter()
            .map(|check| check.status)
            .max()
            .unwrap_or(Wellness::Healthy)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use axum::{body::Body, http::Request};
    use model::{
        quota::Metric,
        reservation::{Amount, Wanted},
    };
    use serde_json::{Value, json};
    use tokio::sync::watch;
    use uuid::Uuid;

    use super::KEPT_MS;
    use crate::{
        Actor,
        store::{EdgeRun, Reserving},
        testing::{Backend, Control, acme, guide, id_of, on_both, path_of},
    };

    async fn health(control: &Control, tenant: &Value) -> Value {
        // Past what is kept of the last answer.
        control.clock.advance_ms(KEPT_MS);
        let answer = control.get(&format!("/api/v1/tenants/{}/health", id_of(tenant))).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json
    }

    /// The status of all, then of each check in the guide's order.
    fn statuses(health: &Value) -> Vec<&str> {
        let checks = &health["checks"];
        [
            &health["status"],
            &checks["database_connection"]["status"],
            &checks["cache_availability"]["status"],
            &checks["quota_status"]["status"],
            &checks["billing_status"]["status"],
        ]
        .map(|status| status.as_str().expect("a status"))
        .into()
    }

    const H: &str = "healthy";
    const W: &str = "warning";
    const U: &str = "unhealthy";

    on_both![
        a_tenant_that_is_well_is_shown_with_its_figures,
        a_quota_near_its_end_and_an_open_invoice_warn,
        a_part_that_does_not_answer_shows_in_its_check,
        room_of_unknown_outcome_and_many_sessions_warn,
        an_answer_is_kept_for_two_seconds,
        every_spelling_needs_a_token_and_a_tenant,
    ];

    async fn a_tenant_that_is_well_is_shown_with_its_figures(on: Backend) {
        let control = Control::start(on).await;
        let tenant = control.create(&acme()).await;
        control.usage.set(10, 1);
        let levels = BTreeMap::from([(Metric::Users, 45)]);
        let put = control.store.put_levels(&Actor::Program, id_of(&tenant), &levels).await;
        put.expect("levels");
        let health = health(&control, &tenant).await;
        assert_eq!(statuses(&health), [H, H, H, H, H], "{health}");
        assert_eq!(health["tenant_id"], tenant["id"]);
        assert_eq!(health["metrics"]["active_users"], 45);
        assert_eq!(health["metrics"]["current_projects"], 0);
        assert_eq!(health["checks"]["billing_status"]["latency_ms"], 0);
        let members: Vec<_> = health.as_object().expect("an object").keys().collect();
        assert_eq!(members, ["tenant_id", "status", "checks", "metrics"]);
    }

    async fn a_quota_near_its_end_and_an_open_invoice_warn(on: Backend) {
        let control = Control::start(on).await;
        let tenant = control.create(&acme()).await;
        control.usage.set(799_999_999, 0);
        assert_eq!(statuses(&health(&control, &tenant).await), [H, H, H, H, H]);
        control.usage.set(800_000_000, 10_000);
        let near = health(&control, &tenant).await;
        assert_eq!(statuses(&near), [W, H, H, W, H]);
        let detail = &near["checks"]["quota_status"]["detail"];
        assert_eq!(detail, "api_calls at 80 %, ai_requests at 100 %");
        control.usage.set(0, 0);
        control.patch(&tenant, &json!({"status": "active"})).await;
        control.patch(&tenant, &json!({"status": "past_due"})).await;
        assert_eq!(statuses(&health(&control, &tenant).await), [W, H, H, H, W]);
        let suspended = json!({"status": "suspended", "suspend_reason": "abuse"});
        control.patch(&tenant, &suspended).await;
        assert_eq!(statuses(&health(&control, &tenant).await), [H, H, H, H, H]);
        control.patch(&tenant, &json!({"suspend_reason": "unpaid"})).await;
        assert_eq!(statuses(&health(&control, &tenant).await), [W, H, H, H, W]);
    }

    async fn room_of_unknown_outcome_and_many_sessions_warn(on: Backend) {
        let control = Control::start(on).await;
        let tenant = id_of(&control.create(&acme()).await);
        control.usage.set(0, 0);
        let wanted = Wanted { tenant, metric: Metric::Storage, amount: Amount::exactly(7) };
        let by = EdgeRun { edge: Uuid::from_u128(1), run: Uuid::from_u128(2) };
        let reserving = Reserving { id: Uuid::from_u128(3), by, wanted, ttl_ms: 1 };
        control.store.reserve(&reserving, &guide()).await.expect("room");
        let counts = BTreeMap::from([(tenant, 80)]);
        control.store.put_session_levels(&counts).await.expect("counts");
        let health = health(&control, &json!({ "id": tenant })).await;
        assert_eq!(statuses(&health), [W, H, H, W, H]);
        let detail = &health["checks"]["quota_status"]["detail"];
        let unknown = "7 bytes of storage set aside, outcome unknown";
        assert_eq!(detail, &format!("concurrent_sessions at 80 %, {unknown}"));
    }

    async fn a_part_that_does_not_answer_shows_in_its_check(on: Backend) {
        let control = Control::start(on).await;
        let tenant = control.create(&acme()).await;
        let silent = health(&control, &tenant).await;
        assert_eq!(statuses(&silent), [W, H, H, W, H], "the quota authority is away");
        control.usage.set(0, 0);
        let (applied, receiver) = watch::channel(0);
        control.store.set_applied(receiver);
        assert_eq!(statuses(&health(&control, &tenant).await), [W, H, W, H, H], "L1 is behind");
        applied.send_replace(u64::MAX);
        assert_eq!(statuses(&health(&control, &tenant).await), [H, H, H, H, H]);
        control.store.close().await;
        let gone = health(&control, &tenant).await;
        assert_eq!(statuses(&gone), [U, U, W, W, H], "the database is away");
        assert_eq!(gone["metrics"]["active_users"], Value::Null);
    }

    async fn an_answer_is_kept_for_two_seconds(on: Backend) {
        let control = Control::start(on).await;
        let tenant = control.create(&acme()).await;
        control.usage.set(0, 0);
        let path = format!("/api/v1/tenants/{}/health", id_of(&tenant));
        assert_eq!(control.get(&path).await.json["status"], H);
        control.usage.set(1_000_000_000, 0);
        control.clock.advance_ms(KEPT_MS - 1);
        assert_eq!(control.get(&path).await.json["status"], H);
        control.clock.advance_ms(1);
        assert_eq!(control.get(&path).await.json["status"], W);
    }

    async fn every_spelling_needs_a_token_and_a_tenant(on: Backend) {
        let control = Control::start(on).await;
        let tenant = control.create(&acme()).await;
        let id = id_of(&tenant);
        let unknown = "00000000-0000-0000-0000-000000000000";
        for before in ["/health/tenant/", "/api/v1/health/tenant/", "/v1/health/tenant/"] {
            let path = format!("{before}{id}");
            assert_eq!(control.get(&path).await.json["tenant_id"], tenant["id"], "{path}");
            assert_eq!(control.get(&format!("{before}{unknown}")).await.status, 404);
            let open = Request::get(&path).body(Body::empty()).expect("a request");
            assert_eq!(control.send(open).await.status, 401, "{path}");
        }
        assert_eq!(control.get(&path_of(&tenant)).await.status, 200);
    }
}
