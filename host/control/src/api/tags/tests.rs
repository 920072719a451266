use serde_json::{Value, json};

use crate::{
    api::{endpoints, plugins::tests::geo_in_every_scope},
    testing::{Backend, Control, acme, id_of, on_both, tenant},
};

on_both![
    whatever_is_put_or_patched_as_a_whole_has_a_tag_that_protects_it,
    use_of_a_pool_does_not_change_its_tag,
];

/// Replaced by facts that somebody counted, which have no version to protect.
const REPORTS: [&str; 1] = ["/tenants/{tenant_id}/usage/levels"];

/// A document of every resource that can be changed, and another one.
fn documents(id: &str) -> Vec<(&'static str, Value, Value)> {
    let pool =
        |seats| json!({ "resource_sharing": { "shared_user_pool": { "total_seats": seats }}});
    let bill = |shared| {
        json!({ "billing_consolidation": {
            "consolidated_invoicing": false, "shared_quotas": shared, "parent_tenant_id": id,
        }})
    };
    let alerts = |at| json!({ "quota_alerts": { "users": { "warning_threshold": at }}});
    let dated = |value| {
        json!({ "overrides": [
            { "metric": "max_users", "value": value, "reason": "more",
              "effective_from": "2024-02-01T00:00:00Z" },
        ]})
    };
    vec![
        ("/admin/tenants/{tenant_id}", json!({ "plan": "team" }), json!({ "plan": "enterprise" })),
        ("/admin/tenants/{tenant_id}/overrides", dated(2), dated(3)),
        ("/tenants/{tenant_id}/alerts", alerts(50), alerts(60)),
        ("/tenants/{tenant_id}/pools", pool(5), pool(6)),
        ("/tenants/{tenant_id}/billing", bill(false), bill(true)),
        // In every scope of plugins.
        ("{plugin}", json!({ "enabled": false }), json!({ "enabled": true })),
        ("{plugin}/config", json!({ "config": { "a": 1 } }), json!({ "config": { "a": 2 } })),
    ]
}

async fn whatever_is_put_or_patched_as_a_whole_has_a_tag_that_protects_it(on: Backend) {
    let control = Control::start(on).await;
    let id = id_of(&control.create(&acme()).await).to_string();
    geo_in_every_scope(&control, &id).await;
    let documents = documents(&id);
    for endpoint in endpoints() {
        let (method, path) = (endpoint.method.as_str(), endpoint.path);
        if !matches!(method, "PUT" | "PATCH") || REPORTS.contains(&path) {
            continue;
        }
        let (scope, plugin) = path.split_once("/plugins/").unwrap_or((path, ""));
        let known = if plugin.is_empty() { scope } else { plugin };
        let (_, one, other) = documents.iter().find(|(of, ..)| *of == known).expect(path);
        let path = format!("/api/v1{}", path.replace("{tenant_id}", &id));
        let path = path.replace("{plan}", "team").replace("{plugin}", "geo");
        let kind = ("content-type", "application/json");
        let tag = |answer: &crate::testing::Answer| {
            answer.headers["etag"].to_str().expect("a tag").to_owned()
        };
        let before = tag(&control.get(&path).await);
        let send = async |tag: &str, body: &Value| {
            control.with((method, &path), &[kind, ("if-match", tag)], &body.to_string()).await
        };
        let first = send(&before, one).await;
        assert_eq!(first.status, 200, "{path}: {}", first.text);
        assert_ne!(tag(&first), before, "{path}");
        assert_eq!(tag(&control.get(&path).await), tag(&first), "{path}");
        let late = send(&before, other).await;
        assert_eq!((late.status, &late.json["code"]), (412, &json!("version-mismatch")), "{path}");
        assert_eq!(tag(&control.get(&path).await), tag(&first), "{path}: nothing was changed");
        assert_eq!(send(&tag(&first), other).await.status, 200, "{path}");
        assert_eq!(send("*", one).await.status, 200, "{path}");
        assert_eq!(send("no tag", one).await.status, 412, "{path}");
    }
}

async fn use_of_a_pool_does_not_change_its_tag(on: Backend) {
    let control = Control::start(on).await;
    let parent = id_of(&control.create(&acme()).await);
    let mut child = tenant("child-of-acme");
    child["parent_tenant_id"] = json!(parent);
    let child = id_of(&control.create(&child).await);
    let path = format!("/api/v1/tenants/{parent}/pools");
    let pool = json!({ "resource_sharing": { "shared_user_pool": { "total_seats": 5 }}});
    let before = control.json("PUT", &path, &pool).await;
    let levels = format!("/api/v1/tenants/{child}/usage/levels");
    assert_eq!(control.json("PUT", &levels, &json!({ "users": 2 })).await.status, 200);
    let after = control.get(&path).await;
    assert_ne!(after.text, before.text, "the use is shown");
    assert_eq!(after.headers["etag"], before.headers["etag"]);
}
