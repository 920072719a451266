use serde_json::{Value, json};

use super::*;
use crate::testing::{Backend, Control, acme, id_of, on_both, path_of, tenant as another};

on_both![
    there_are_at_most_so_many_live_keys,
    a_dead_key_is_listed_for_a_quarter_and_then_forgotten,
];

/// Adds live keys, as many issues would.
async fn add(store: &Store, tenant: TenantId, keys: usize) {
    let mut tx = store.db.tenant(tenant, Purpose::Write).await.expect("a transaction");
    for n in 0..keys {
        sql("INSERT INTO api_key (id, tenant_id, hash, created_at) VALUES ($1, $2, $3, 0)")
            .bind(format!("key{n}"))
            .bind(tenant.0)
            .bind([0_u8; 32].as_slice())
            .execute(&mut tx)
            .await
            .expect("a key");
    }
    tx.end::<_, StoreError>(Ok(())).await.expect("a commit");
}

async fn there_are_at_most_so_many_live_keys(on: Backend) {
    let control = Control::start(on).await;
    let tenant = control.create(&acme()).await;
    let (path, id) = (format!("{}/keys", path_of(&tenant)), id_of(&tenant));
    add(&control.store, id, KEYS_MAX - 2).await;
    let end = json!({ "expires_at": "2024-01-01T00:00:01Z" });
    assert_eq!(control.json("POST", &path, &end).await.status, 201);
    // Two at once for the last.
    let (one, two) = tokio::join!(control.post(&path), control.post(&path));
    let (passed, refused) = if one.status == 201 { (one, two) } else { (two, one) };
    assert_eq!(passed.status, 201, "{}", passed.text);
    assert_eq!((refused.status, &refused.json["code"]), (409, &json!("too-many")));
    assert_eq!(refused.json["detail"], "there may be 1000 live keys; revoke one first");
    // Neither a revoked nor an expired one counts, nor another tenant's.
    let revoke = format!("{path}/{}", passed.json["id"].as_str().expect("an id"));
    assert_eq!(control.with(("DELETE", &revoke), &[], "").await.status, 204);
    assert_eq!(control.post(&path).await.status, 201);
    assert_eq!(control.post(&path).await.status, 409);
    control.clock.advance_ms(1_000);
    assert_eq!(control.post(&path).await.status, 201);
    assert_eq!(control.post(&path).await.status, 409);
    let two = control.create(&another("two")).await;
    assert_eq!(control.post(&format!("{}/keys", path_of(&two))).await.status, 201);
}

async fn a_dead_key_is_listed_for_a_quarter_and_then_forgotten(on: Backend) {
    let control = Control::start(on).await;
    let id = id_of(&control.create(&acme()).await);
    let store = &control.store;
    let now = store.clock.now();
    let issue = async |end: Option<UnixMs>| {
        store.issue_api_key(&Actor::Operator, id, end).await.expect("a key").id
    };
    let ids = async || {
        let listed = store.api_keys(id).await.expect("keys");
        listed.into_iter().map(|key| Value::from(&*key.id)).collect::<Vec<_>>()
    };
    let revoked = issue(None).await;
    store.revoke_api_key(&Actor::Operator, id, &revoked).await.expect("revoked");
    // Revoked today, though it would have lived for long.
    let both = issue(Some(now.plus_ms(KEPT_DEAD_MS))).await;
    store.revoke_api_key(&Actor::Operator, id, &both).await.expect("revoked");
    issue(Some(now.plus_ms(1))).await;
    let later = issue(Some(now.plus_ms(KEPT_DEAD_MS))).await;
    let live = issue(None).await;
    control.clock.advance_ms(KEPT_DEAD_MS);
    store.forget_dead_keys().await.expect("a run");
    assert_eq!(ids().await.len(), 5);
    control.clock.advance_ms(1);
    store.forget_dead_keys().await.expect("a run");
    assert_eq!(ids().await.len(), 3);
    control.clock.advance_ms(1);
    store.forget_dead_keys().await.expect("a run");
    let mut left = [Value::from(&*later), Value::from(&*live)];
    left.sort_by_key(Value::to_string);
    assert_eq!(ids().await, left);
}
