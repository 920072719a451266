use serde_json::json;

use super::*;
use crate::testing::{Backend, Control, acme, id_of, on_both, path_of};

on_both![
    every_mutation_leaves_one_entry_in_a_chain_that_holds,
    a_refused_mutation_leaves_none,
    an_entry_can_be_neither_changed_nor_removed,
    parallel_mutations_of_one_tenant_form_one_chain,
];

/// The chain of a tenant, verified from its first entry.
async fn verified(control: &Control, chain: TenantId) -> Vec<AuditEntry> {
    let entries = control.store.audit_entries(Some(chain), 0, 200).await.expect("entries");
    let (mut seq, mut previous) = (0, GENESIS.to_owned());
    for entry in &entries {
        assert!(entry.follows(chain, seq, &previous), "{entry:?}");
        (seq, previous) = (entry.seq, entry.hash.clone());
    }
    entries
}

fn actions(entries: &[AuditEntry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.action.as_str()).collect()
}

async fn every_mutation_leaves_one_entry_in_a_chain_that_holds(on: Backend) {
    let control = Control::start(on).await;
    let tenant = control.create(&acme()).await;
    let id = id_of(&tenant);
    control.patch(&tenant, &json!({"plan": "team", "secrets": {"signing": "s3cret"}})).await;
    let path = path_of(&tenant);
    let key = control.post(&format!("{path}/keys")).await.json["id"].clone();
    let key = format!("{path}/keys/{}", key.as_str().expect("an id"));
    assert_eq!(control.with(("DELETE", &key), &[], "").await.status, 204);
    control.post(&format!("{path}/suspend")).await;
    control.post(&format!("{path}/resume")).await;
    let entries = verified(&control, id).await;
    assert_eq!(
        actions(&entries),
        [
            "tenant.create",
            "tenant.plan",
            "key.issue",
            "key.revoke",
            "tenant.suspend",
            "tenant.resume"
        ],
    );
    assert!(entries.iter().all(|entry| entry.actor == "operator"));
    assert_eq!(entries[1].detail, r#"{"changed":["plan","secrets","version"]}"#);
    assert!(entries.iter().all(|entry| !entry.detail.contains("s3cret")));
    let shown = control.get(&format!("/api/v1/tenants/{id}/audit?after=1&limit=2")).await.json;
    assert_eq!((&shown["items"][0]["seq"], &shown["next_after"]), (&2.into(), &3.into()));
    let platform = control.get("/api/v1/admin/audit").await.json;
    assert_eq!(platform["items"][0]["action"], "admin-token.set");
}

async fn a_refused_mutation_leaves_none(on: Backend) {
    let control = Control::start(on).await;
    let tenant = control.create(&acme()).await;
    assert_eq!(control.json("POST", "/api/v1/admin/tenants", &acme()).await.status, 409);
    assert_eq!(control.patch(&tenant, &json!({"status": "past_due"})).await.status, 409);
    assert_eq!(actions(&verified(&control, id_of(&tenant)).await), ["tenant.create"]);
}

async fn an_entry_can_be_neither_changed_nor_removed(on: Backend) {
    let control = Control::start(on).await;
    let tenant = id_of(&control.create(&acme()).await);
    for statement in [
        "UPDATE audit_entry SET actor = 'nobody' WHERE tenant_id = $1",
        "DELETE FROM audit_entry WHERE tenant_id = $1",
    ] {
        let mut tx = control.store.db.tenant(tenant, Purpose::Write).await.expect("begun");
        let refused = sql(statement).bind(tenant.0).execute(&mut tx).await;
        assert!(refused.is_err(), "{statement}");
        let _rolled_back = tx.end::<(), StoreError>(Err(StoreError::Failed)).await;
        let mut tx = control.store.db.control(Purpose::Write).await.expect("begun");
        let refused = sql(statement).bind(tenant.0).execute(&mut tx).await;
        assert!(refused.is_err(), "{statement}");
        let _rolled_back = tx.end::<(), StoreError>(Err(StoreError::Failed)).await;
    }
    assert_eq!(verified(&control, tenant).await.len(), 1);
}

async fn parallel_mutations_of_one_tenant_form_one_chain(on: Backend) {
    let control = Control::start(on).await;
    let tenant = id_of(&control.create(&acme()).await);
    let path = format!("/api/v1/tenants/{tenant}/tokens");
    let body = json!({"role": "tenant-admin", "name": "t"});
    let issues = (0..20).map(|_| control.json("POST", &path, &body));
    for issued in futures_util::future::join_all(issues).await {
        assert_eq!(issued.status, 201, "{}", issued.text);
    }
    assert_eq!(verified(&control, tenant).await.len(), 21);
}
