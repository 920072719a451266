//! `POST /admin/tenants/{id}/suspend` and `/resume`: no request of the tenant, or of one
//! below it, is admitted from the answer on; and admitted again.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use model::tenant::{Status, SuspendReason, TenantId};
use schemars::JsonSchema;

use super::view::answer;
use crate::{
    api::{
        Api, body::MaybeDocument, caller::Caller, fields::Fields, path::TenantPath,
        problem::ApiError, rules,
    },
    store::{StatusChange, TenantPatch},
};

/// Why a tenant is suspended.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documents the shape that `suspend` reads")]
pub(in crate::api) struct Suspension {
    /// `operator` unless given.
    reason: Option<SuspendReason>,
}

/// Nothing to say about a resumption.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct Resumption {}

pub(in crate::api) async fn suspend(
    caller: Caller,
    State(api): State<Api>,
    TenantPath(id): TenantPath,
    MaybeDocument(document): MaybeDocument,
) -> Result<Response, ApiError> {
    let mut fields = Fields::new(document.map(|document| document.members).unwrap_or_default());
    let reason = fields.optional("reason", rules::suspend_reason);
    fields.finish()?;
    change(&caller, &api, id, StatusChange::To(Status::Suspended, reason)).await
}

pub(in crate::api) async fn resume(
    caller: Caller,
    State(api): State<Api>,
    TenantPath(id): TenantPath,
    MaybeDocument(document): MaybeDocument,
) -> Result<Response, ApiError> {
    Fields::new(document.map(|document| document.members).unwrap_or_default()).finish()?;
    change(&caller, &api, id, StatusChange::Resume).await
}

async fn change(
    caller: &Caller,
    api: &Api,
    id: TenantId,
    status: StatusChange,
) -> Result<Response, ApiError> {
    let patch = TenantPatch { status: Some(status), ..TenantPatch::default() };
    let stored = api.store.patch_tenant(caller.actor(), id, patch, None).await?;
    let catalog = Arc::clone(&api.catalog.borrow());
    Ok(answer(&stored, &catalog, &api.store))
}

#[cfg(test)]
mod tests {
    use model::tenant::{NotAdmitted, TRIAL_DAYS};
    use serde_json::{Value, json};

    use crate::testing::{Backend, Control, acme, on_both, path_of};

    const DAY_MS: u64 = 86_400_000;

    async fn verb(control: &Control, tenant: &Value, verb: &str) -> (u16, Value) {
        let answer = control.post(&format!("{}/{verb}", path_of(tenant))).await;
        (answer.status, answer.json)
    }

    on_both![
        a_suspension_is_in_force_when_it_is_answered_and_ends_in_the_trial,
        a_paying_tenant_resumes_to_active,
        a_trial_that_ended_meanwhile_is_not_resumed_for_free,
        a_transition_that_is_not_allowed_is_refused_with_those_that_are,
        a_past_due_tenant_has_its_days_of_grace,
        a_suspension_may_be_repeated_and_given_another_reason,
    ];

    async fn a_suspension_is_in_force_when_it_is_answered_and_ends_in_the_trial(on: Backend) {
        let control = Control::start(on).await;
        let tenant = control.create(&acme()).await;
        let admission = || {
            let now = model::clock::Clock::now(&*control.clock);
            let directory = control.store.directory().borrow().clone();
            directory.records().next().expect("a tenant").tenant.admission(now)
        };
        assert_eq!(admission(), Ok(()));
        let (status, suspended) = verb(&control, &tenant, "suspend").await;
        assert_eq!((status, &suspended["status"]), (200, &"suspended".into()));
        assert_eq!(suspended["suspend_reason"], "operator");
        assert_eq!(admission(), Err(NotAdmitted::Suspended));
        let (status, resumed) = verb(&control, &tenant, "resume").await;
        assert_eq!((status, &resumed["status"]), (200, &"trial".into()));
        assert_eq!(resumed["suspend_reason"], Value::Null);
        assert_eq!(resumed["trial_ends_at"], tenant["trial_ends_at"]);
        assert_eq!(admission(), Ok(()));
    }

    async fn a_paying_tenant_resumes_to_active(on: Backend) {
        let control = Control::start(on).await;
        let tenant = control.create(&acme()).await;
        let active = control.patch(&tenant, &json!({"status": "active"})).await.json;
        assert_eq!(active["trial_ends_at"], Value::Null);
        control
            .json("POST", &format!("{}/suspend", path_of(&tenant)), &json!({"reason": "unpaid"}))
            .await;
        control.clock.advance_ms(100 * DAY_MS);
        let (status, resumed) = verb(&control, &tenant, "resume").await;
        assert_eq!((status, &resumed["status"]), (200, &"active".into()));
    }

    async fn a_trial_that_ended_meanwhile_is_not_resumed_for_free(on: Backend) {
        let control = Control::start(on).await;
        let tenant = control.create(&acme()).await;
        verb(&control, &tenant, "suspend").await;
        control.clock.advance_ms(TRIAL_DAYS * DAY_MS);
        let (status, refused) = verb(&control, &tenant, "resume").await;
        assert_eq!((status, &refused["code"]), (409, &"invalid-transition".into()));
        assert_eq!(refused["allowed"], json!(["active"]));
        let activated = control.patch(&tenant, &json!({"status": "active"})).await;
        assert_eq!(activated.status, 200, "{}", activated.text);
    }

    async fn a_transition_that_is_not_allowed_is_refused_with_those_that_are(on: Backend) {
        let control = Control::start(on).await;
        let tenant = control.create(&acme()).await;
        for status in ["past_due", "provisioning", "erasing", "erased"] {
            let refused = control.patch(&tenant, &json!({"status": status})).await;
            assert_eq!(
                (refused.status, &refused.json["code"]),
                (409, &"invalid-transition".into())
            );
            assert_eq!(refused.json["allowed"], json!(["active", "suspended"]), "{status}");
        }
        assert_eq!(control.get(&path_of(&tenant)).await.json, tenant);
    }

    async fn a_past_due_tenant_has_its_days_of_grace(on: Backend) {
        let control = Control::start(on).await;
        let tenant = control.create(&acme()).await;
        control.patch(&tenant, &json!({"status": "active"})).await;
        let past_due = control.patch(&tenant, &json!({"status": "past_due"})).await.json;
        assert_eq!(past_due["grace_ends_at"], "2024-01-15T00:00:00Z");
        let paid = control.patch(&tenant, &json!({"status": "active"})).await.json;
        assert_eq!(paid["grace_ends_at"], Value::Null);
    }

    async fn a_suspension_may_be_repeated_and_given_another_reason(on: Backend) {
        let control = Control::start(on).await;
        let tenant = control.create(&acme()).await;
        verb(&control, &tenant, "suspend").await;
        let path = format!("{}/suspend", path_of(&tenant));
        let again = control.json("POST", &path, &json!({"reason": "abuse"})).await;
        assert_eq!((again.status, &again.json["suspend_reason"]), (200, &"abuse".into()));
        let bad = control.json("POST", &path, &json!({"reason": "mood", "x": 1})).await;
        assert_eq!(bad.bad_fields(), ["reason", "x"]);
    }
}
