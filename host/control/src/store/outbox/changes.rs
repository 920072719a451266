//! Events of a tenant itself: another plan, another status.
//!
//! Called by everything that writes either, within its transaction. Invariant: a change
//! that was undone tells nothing, and a write that changes neither makes no event.

use model::{
    clock::UnixMs,
    tenant::{SuspendReason, Tenant},
};
use serde_json::{Map, Value};

use super::{EventKind, insert};
use crate::store::{StoreError, db::TenantTx};

/// Tells what has become of a tenant.
pub(in crate::store) async fn tell(
    tx: &mut TenantTx,
    before: &Tenant,
    after: &Tenant,
    now: UnixMs,
) -> Result<(), StoreError> {
    let id = tx.tenant();
    if before.plan != after.plan {
        let payload = change(&before.plan, &after.plan);
        insert(tx, id, EventKind::PlanChanged, payload, now).await?;
    }
    if before.status != after.status {
        let mut payload = change(before.status.as_str(), after.status.as_str());
        let reason = after.suspend_reason.map(SuspendReason::as_str);
        payload.insert("suspend_reason".to_owned(), reason.into());
        insert(tx, id, EventKind::StatusChanged, payload, now).await?;
    }
    Ok(())
}

fn change(before: &str, after: &str) -> Map<String, Value> {
    let members = [("before", before), ("after", after)];
    members.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::{Backend, Control, acme, on_both, path_of};

    on_both![each_change_of_plan_or_status_is_told_once_and_nothing_else_is];

    async fn each_change_of_plan_or_status_is_told_once_and_nothing_else_is(on: Backend) {
        let control = Control::start(on).await;
        let tenant = control.create(&acme()).await;
        control.patch(&tenant, &json!({"display_name": "Other"})).await;
        control.patch(&tenant, &json!({"plan": "team"})).await;
        control.clock.advance_ms(1);
        control.post(&format!("{}/suspend", path_of(&tenant))).await;
        control.post(&format!("{}/suspend", path_of(&tenant))).await;
        assert_eq!(control.patch(&tenant, &json!({"plan": "no"})).await.status, 422);
        let id = tenant["id"].as_str().expect("an id");
        let events = control.get(&format!("/api/v1/tenants/{id}/alerts/events")).await;
        let told: Vec<(&Value, &Value, &Value)> = events.json["items"]
            .as_array()
            .expect("events")
            .iter()
            .map(|event| (&event["type"], &event["data"]["before"], &event["data"]["after"]))
            .collect();
        assert_eq!(
            told,
            [
                (&json!("tenant.status_changed"), &json!("trial"), &json!("suspended")),
                (&json!("tenant.plan_changed"), &json!("enterprise"), &json!("team")),
            ],
            "{}",
            events.text
        );
    }
}
