use model::audit::PLATFORM_CHAIN;
use serde_json::json;

use super::*;
use crate::{
    keys::verifies,
    testing::{Backend, Control, acme, id_of, on_both, tenant},
};

on_both![
    a_chain_that_grew_is_signed_once_a_day_and_its_tenant_sees_it,
    every_chain_is_signed_and_shown_to_the_operator_page_by_page,
];

async fn a_chain_that_grew_is_signed_once_a_day_and_its_tenant_sees_it(on: Backend) {
    let control = Control::start(on).await;
    let made = control.create(&acme()).await;
    let id = id_of(&made);
    assert_eq!(control.store.sign_heads().await.expect("signed"), 2, "the platform's and its own");
    control.patch(&made, &json!({ "plan": "team" })).await;
    assert_eq!(control.store.sign_heads().await.expect("signed"), 0, "once a day");
    control.clock.advance_ms(DAY_MS);
    assert_eq!(control.store.sign_heads().await.expect("signed"), 1, "the platform did nothing");
    control.clock.advance_ms(DAY_MS);
    assert_eq!(control.store.sign_heads().await.expect("signed"), 0, "nothing is new");
    let path = format!("/api/v1/tenants/{id}/audit/heads");
    let token = json!({ "role": "tenant-admin", "name": "own" });
    let issued = control.json("POST", &format!("/api/v1/tenants/{id}/tokens"), &token).await;
    let token = issued.json["token"].as_str().expect("a token").to_owned();
    let shown = control.as_token(&token, "GET", &format!("{path}?limit=1"), &json!(null)).await;
    assert_eq!(shown.status, 200, "{}", shown.text);
    let newest: AuditHead = serde_json::from_value(shown.json["items"][0].clone()).expect("one");
    assert_eq!((newest.chain, newest.seq), (id, 2));
    let entries = control.store.audit_entries(Some(id), 1, 1).await.expect("entries");
    assert_eq!(newest.hash, entries[0].hash);
    let cursor = shown.json["next_cursor"].as_str().expect("another page");
    let older = control.get(&format!("{path}?limit=1&cursor={cursor}")).await.json;
    assert_eq!((&older["items"][0]["seq"], &older["next_cursor"]), (&json!(1), &json!(null)));
    // Whoever has the public key can verify a head alone.
    let key = control.with(("GET", "/v1/audit/key"), &[], "").await.json;
    let public = key["public_key"].as_str().expect("a key");
    assert_eq!((public, key["algorithm"].as_str()), (newest.public_key.as_str(), Some("Ed25519")));
    assert!(verifies(public, &newest.message(), &newest.signature));
    let longer = AuditHead { seq: 3, ..newest.clone() };
    assert!(!verifies(public, &longer.message(), &newest.signature));
}

async fn every_chain_is_signed_and_shown_to_the_operator_page_by_page(on: Backend) {
    let control = Control::start(on).await;
    let mut chains = vec![PLATFORM_CHAIN];
    for number in 0..4 {
        chains.push(id_of(&control.create(&tenant(&format!("one-of-{number}"))).await));
    }
    chains.sort_unstable();
    control.store.sign_heads().await.expect("signed");
    let (mut seen, mut path) = (Vec::new(), "/api/v1/admin/audit/heads?limit=2".to_owned());
    loop {
        let page = control.get(&path).await.json;
        for item in page["items"].as_array().expect("items") {
            let head: AuditHead = serde_json::from_value(item.clone()).expect("a head");
            assert!(verifies(&head.public_key, &head.message(), &head.signature));
            seen.push(head.chain);
        }
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/api/v1/admin/audit/heads?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen, chains);
}
