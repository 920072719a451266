//! `/admin/tenants/{tenant_id}/plan-changes`: changes of plan at a later time, asked for,
//! listed and cancelled.
//!
//! Invariant: what is answered with 201 happens within a second of its time, unless it is
//! cancelled or its plan is gone by then; the list says which.

use axum::{
    extract::State,
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
};
use model::clock::UnixMs;
use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use super::{
    Api,
    body::Document,
    caller::Caller,
    fields::Fields,
    json,
    page::{self, Asked, Page},
    path::{PlanChangePath, TenantPath},
    problem::ApiError,
    rules,
};
use crate::store::PlanChange;

/// A plan and its time.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documents the shape that `schedule` reads")]
pub(super) struct NewPlanChangeBody {
    /// Name of a declared plan.
    plan: String,
    /// In the future.
    #[schemars(extend("format" = "date-time"))]
    effective_at: String,
}

/// A change of plan.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "PlanChange")]
pub(super) struct PlanChangeView {
    id: Uuid,
    plan: String,
    effective_at: String,
    /// `scheduled`, `applied`, `cancelled` or `refused`.
    state: &'static str,
    /// Why it was refused.
    detail: Option<String>,
    created_at: String,
    ended_at: Option<String>,
}

/// A tenant's changes of plan, the latest time first.
pub(super) type PlanChangesView = Page<PlanChangeView>;

impl From<PlanChange> for PlanChangeView {
    fn from(change: PlanChange) -> Self {
        Self {
            id: change.id,
            plan: change.plan,
            effective_at: change.effective_at.rfc3339_exact(),
            state: change.state.as_str(),
            detail: change.detail,
            created_at: change.created_at.rfc3339(),
            ended_at: change.ended_at.map(UnixMs::rfc3339),
        }
    }
}

pub(super) async fn list(
    State(api): State<Api>,
    TenantPath(id): TenantPath,
    uri: Uri,
) -> Result<Response, ApiError> {
    let asked = Asked::read(&uri)?;
    let changes = api.store.plan_changes(id).await?.ok_or(ApiError::NotFound)?;
    let page = asked
        .cut(changes, |change| page::latest_first(change.effective_at, &change.id.to_string()));
    Ok(json(page.map(PlanChangeView::from)))
}

pub(super) async fn schedule(
    caller: Caller,
    State(api): State<Api>,
    TenantPath(id): TenantPath,
    document: Document,
) -> Result<Response, ApiError> {
    let mut fields = Fields::new(document.members);
    let offered = !caller.is_operator();
    let plan = fields.required("plan", |value| rules::plan(value, &api.catalog.borrow(), offered));
    let now = api.clock.now();
    let effective_at = fields.required("effective_at", |value| {
        let at = rules::instant(value)?;
        let later = "must lie in the future; PATCH the tenant to change its plan at once";
        if at > now { Ok(at) } else { Err(later.to_owned()) }
    });
    let (Some(plan), Some(effective_at)) = (plan, effective_at) else {
        return Err(fields.refuse());
    };
    fields.finish()?;
    let change = api.store.schedule_plan_change(caller.actor(), id, plan, effective_at).await?;
    Ok((StatusCode::CREATED, json(PlanChangeView::from(change))).into_response())
}

pub(super) async fn cancel(
    caller: Caller,
    State(api): State<Api>,
    TenantPath(id): TenantPath,
    PlanChangePath(change): PlanChangePath,
) -> Result<StatusCode, ApiError> {
    api.store.cancel_plan_change(caller.actor(), id, change).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Backend, Control, acme, on_both, path_of};

    on_both![a_change_is_scheduled_listed_and_cancelled, a_change_needs_a_plan_and_a_time_to_come];

    async fn a_change_is_scheduled_listed_and_cancelled(on: Backend) {
        let control = Control::start(on).await;
        let tenant = control.create(&acme()).await;
        let path = format!("{}/plan-changes", path_of(&tenant));
        let asked = json!({"plan": "team", "effective_at": "2024-02-01T00:00:00.5Z"});
        let scheduled = control.json("POST", &path, &asked).await;
        assert_eq!(scheduled.status, 201, "{}", scheduled.text);
        assert_eq!(scheduled.json["state"], "scheduled");
        assert_eq!(scheduled.json["effective_at"], "2024-02-01T00:00:00.5Z");
        assert_eq!(scheduled.json["created_at"], "2024-01-01T00:00:00Z");
        assert_eq!(
            control.get(&path).await.json,
            json!({"items": [scheduled.json], "next_cursor": null})
        );
        let one = format!("{path}/{}", scheduled.json["id"].as_str().expect("an id"));
        assert_eq!(control.with(("DELETE", &one), &[], "").await.status, 204);
        assert_eq!(control.with(("DELETE", &one), &[], "").await.status, 404);
        let item = control.get(&path).await.json["items"][0].clone();
        assert_eq!(
            (&item["state"], &item["ended_at"]),
            (&"cancelled".into(), &"2024-01-01T00:00:00Z".into())
        );
        assert_eq!(control.get(&path_of(&tenant)).await.json["plan"], "enterprise");
    }

    async fn a_change_needs_a_plan_and_a_time_to_come(on: Backend) {
        let control = Control::start(on).await;
        let tenant = control.create(&acme()).await;
        let path = format!("{}/plan-changes", path_of(&tenant));
        let bad = json!({"plan": "platinum", "effective_at": "2024-01-01T00:00:00Z", "x": 1});
        let answer = control.json("POST", &path, &bad).await;
        assert_eq!(answer.bad_fields(), ["plan", "effective_at", "x"]);
        let answer = control.json("POST", &path, &json!({})).await;
        assert_eq!(answer.bad_fields(), ["plan", "effective_at"]);
        let unknown = "/api/v1/admin/tenants/00000000-0000-0000-0000-000000000000/plan-changes";
        assert_eq!(control.get(unknown).await.status, 404);
        let asked = json!({"plan": "team", "effective_at": "2024-02-01T00:00:00Z"});
        assert_eq!(control.json("POST", unknown, &asked).await.status, 404);
        assert_eq!(control.with(("DELETE", &format!("{path}/x")), &[], "").await.status, 404);
    }
}
