use serde_json::{Value, json};

use crate::testing::{Answer, Backend, Control, acme, on_both, path_of, tenant};

on_both![
    a_tenant_admin_reads_its_own_usage_and_knows_of_no_other_tenant,
    a_right_that_is_missing_inside_the_own_tenant_is_a_403_that_names_it,
    scopes_take_away_and_never_give,
    a_service_token_names_its_scopes_and_all_bad_fields_are_named_at_once,
    nobody_issues_a_token_that_may_do_more_than_itself,
    nobody_renews_or_revokes_a_token_that_may_do_more_than_itself,
    an_idempotency_key_is_the_callers_own,
    a_parent_admin_creates_and_changes_plans_below_itself_only,
    a_parent_admin_manages_tokens_below_itself_and_gives_no_right_that_it_lacks,
    a_revoked_token_is_refused_at_once_and_a_rotated_one_after_its_overlap,
    an_operators_token_does_everything,
];

/// A tenant's id and a token of it.
struct Token {
    tenant: String,
    text: String,
}

async fn token(control: &Control, tenant: &Value, body: &Value) -> Token {
    let id = tenant["id"].as_str().expect("an id").to_owned();
    let answer = control.json("POST", &format!("/api/v1/tenants/{id}/tokens"), body).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let text = answer.json["token"].as_str().expect("a token").to_owned();
    Token { tenant: id, text }
}

async fn tenant_admin(control: &Control, tenant: &Value) -> Token {
    token(control, tenant, &json!({"role": "tenant-admin", "name": "t"})).await
}

impl Token {
    async fn send(&self, control: &Control, method: &str, path: &str, body: &Value) -> Answer {
        control.as_token(&self.text, method, path, body).await
    }

    async fn get(&self, control: &Control, path: &str) -> Answer {
        self.send(control, "GET", path, &Value::Null).await
    }

    fn path(&self, rest: &str) -> String {
        format!("/api/v1/tenants/{}/{rest}", self.tenant)
    }
}

async fn a_tenant_admin_reads_its_own_usage_and_knows_of_no_other_tenant(on: Backend) {
    let control = Control::start(on).await;
    let own = control.create(&acme()).await;
    let other = control.create(&tenant("other")).await;
    control.usage.set(7, 3);
    let admin = tenant_admin(&control, &own).await;
    let usage = admin.get(&control, &admin.path("usage")).await;
    assert_eq!(usage.status, 200, "{}", usage.text);
    assert_eq!(usage.json["current_usage"]["api_calls_this_month"], 7);
    assert_eq!(admin.get(&control, &path_of(&own)).await.status, 200);
    let missing = "00000000-0000-7000-8000-000000000000";
    let nobody = admin.get(&control, &format!("/api/v1/tenants/{missing}/usage")).await;
    let foreign = format!("/api/v1/tenants/{}/usage", other["id"].as_str().expect("an id"));
    let foreign = admin.get(&control, &foreign).await;
    assert_eq!((foreign.status, &foreign.text), (404, &nobody.text));
    assert_eq!(admin.get(&control, &path_of(&other)).await.status, 404);
}

async fn a_right_that_is_missing_inside_the_own_tenant_is_a_403_that_names_it(on: Backend) {
    let control = Control::start(on).await;
    let own = control.create(&acme()).await;
    let admin = tenant_admin(&control, &own).await;
    let suspend = format!("{}/suspend", path_of(&own));
    let refused = admin.send(&control, "POST", &suspend, &json!({})).await;
    assert_eq!((refused.status, &refused.json["code"]), (403, &"forbidden".into()));
    assert_eq!(refused.json["scope"], "tenant:status");
    let refused = admin.send(&control, "PATCH", &path_of(&own), &json!({"plan": "team"})).await;
    assert_eq!((refused.status, &refused.json["scope"]), (403, &"tenant:plan".into()));
    for path in ["/api/v1/admin/tenants", "/api/v1/admin/tokens", "/api/v1/admin/policies"] {
        assert_eq!(admin.get(&control, path).await.status, 403, "{path}");
    }
    assert_eq!(control.get(&path_of(&own)).await.json, own, "nothing was changed");
}

async fn scopes_take_away_and_never_give(on: Backend) {
    let control = Control::start(on).await;
    let own = control.create(&acme()).await;
    let body = json!({"role": "tenant-admin", "name": "t", "scopes": ["usage:read"]});
    let scoped = token(&control, &own, &body).await;
    control.usage.set(0, 0);
    assert_eq!(scoped.get(&control, &scoped.path("usage")).await.status, 200);
    let refused = scoped.get(&control, &scoped.path("tokens")).await;
    assert_eq!((refused.status, &refused.json["scope"]), (403, &"tokens:read".into()));
    let beyond = json!({"role": "tenant-admin", "name": "t", "scopes": ["platform:manage"]});
    let refused = control.json("POST", &scoped.path("tokens"), &beyond).await;
    assert_eq!(refused.bad_fields(), ["scopes[0]"]);
}

async fn a_service_token_names_its_scopes_and_all_bad_fields_are_named_at_once(on: Backend) {
    let control = Control::start(on).await;
    let own = control.create(&acme()).await;
    let path = format!("/api/v1/tenants/{}/tokens", own["id"].as_str().expect("an id"));
    let bare = control.json("POST", &path, &json!({"role": "service", "name": "s"})).await;
    assert_eq!(bare.bad_fields(), ["scopes"]);
    let bad = json!({
        "role": "admin", "name": "", "expires_at": "2023-01-01T00:00:00Z", "scopes": ["x"], "y": 1,
    });
    let bad = control.json("POST", &path, &bad).await;
    assert_eq!(bad.bad_fields(), ["role", "name", "expires_at", "scopes[0]", "y"]);
}

async fn nobody_issues_a_token_that_may_do_more_than_itself(on: Backend) {
    let control = Control::start(on).await;
    let own = control.create(&acme()).await;
    let admin = tenant_admin(&control, &own).await;
    let parent = json!({"role": "parent-admin", "name": "p"});
    let refused = admin.send(&control, "POST", &admin.path("tokens"), &parent).await;
    assert_eq!(refused.status, 403, "{}", refused.text);
    let service = json!({"role": "service", "name": "s", "scopes": ["usage:report"]});
    let issued = admin.send(&control, "POST", &admin.path("tokens"), &service).await;
    assert_eq!(issued.status, 201, "{}", issued.text);
    let limited = json!({"role": "tenant-admin", "name": "l", "scopes": ["tokens:manage"]});
    let limited = token(&control, &own, &limited).await;
    let full = json!({"role": "tenant-admin", "name": "f"});
    let refused = limited.send(&control, "POST", &limited.path("tokens"), &full).await;
    assert_eq!(refused.status, 403, "{}", refused.text);
}

async fn nobody_renews_or_revokes_a_token_that_may_do_more_than_itself(on: Backend) {
    let control = Control::start(on).await;
    let own = control.create(&acme()).await;
    let parent = token(&control, &own, &json!({"role": "parent-admin", "name": "p"})).await;
    let admin = tenant_admin(&control, &own).await;
    let narrow = json!({
        "role": "tenant-admin", "name": "n", "scopes": ["tokens:read", "tokens:manage"],
    });
    let narrow = token(&control, &own, &narrow).await;
    let listed = admin.get(&control, &admin.path("tokens")).await;
    let id_of = |name: &str| {
        let items = listed.json["items"].as_array().expect("items");
        let found = items.iter().find(|item| item["name"] == name).expect("it is listed");
        found["id"].as_str().expect("an id").to_owned()
    };
    for (by, name) in [(&narrow, "t"), (&narrow, "p"), (&admin, "p")] {
        let path = by.path(&format!("tokens/{}", id_of(name)));
        let renewed = by.send(&control, "POST", &format!("{path}/rotate"), &json!({})).await;
        assert_eq!(renewed.status, 403, "{name}: {}", renewed.text);
        let revoked = by.send(&control, "DELETE", &path, &Value::Null).await;
        assert_eq!(revoked.status, 403, "{name}: {}", revoked.text);
    }
    assert_eq!(parent.get(&control, &path_of(&own)).await.status, 200);
    // Rights below the tenant count too, whatever the scopes say of the tenant itself.
    for scopes in [json!(["tenant:plan"]), json!(["tenant:read", "usage:read"])] {
        let below = json!({"role": "parent-admin", "name": "b", "scopes": scopes});
        let refused = admin.send(&control, "POST", &admin.path("tokens"), &below).await;
        assert_eq!(refused.status, 403, "{}", refused.text);
    }
    let platform = json!({"role": "admin", "name": "ci", "scopes": ["platform:manage"]});
    let platform = control.json("POST", "/api/v1/admin/tokens", &platform).await;
    let text = platform.json["token"].as_str().expect("a token");
    let full = json!({"role": "admin", "name": "x"});
    let refused = control.as_token(text, "POST", "/api/v1/admin/tokens", &full).await;
    assert_eq!(refused.status, 403, "{}", refused.text);
}

async fn an_idempotency_key_is_the_callers_own(on: Backend) {
    let control = Control::start(on).await;
    let mut created = Vec::new();
    for name in ["one", "two"] {
        let parent = control.create(&tenant(name)).await;
        let admin = token(&control, &parent, &json!({"role": "parent-admin", "name": "p"})).await;
        let mut child = tenant(&format!("child-of-{name}"));
        child["parent_tenant_id"] = parent["id"].clone();
        let request = axum::http::Request::post("/api/v1/admin/tenants")
            .header("authorization", format!("Bearer {}", admin.text))
            .header("content-type", "application/json")
            .header("idempotency-key", "1")
            .body(axum::body::Body::from(child.to_string()));
        let answer = control.send(request.expect("a request")).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        created.push(answer.json["slug"].clone());
    }
    assert_eq!(created, ["child-of-one", "child-of-two"]);
}

async fn a_parent_admin_creates_and_changes_plans_below_itself_only(on: Backend) {
    let control = Control::start(on).await;
    let parent = control.create(&acme()).await;
    let sibling = control.create(&tenant("sibling")).await;
    let admin = token(&control, &parent, &json!({"role": "parent-admin", "name": "p"})).await;
    let create = async |slug: &str, under: &Value| {
        let mut body = tenant(slug);
        body["parent_tenant_id"] = under.clone();
        admin.send(&control, "POST", "/api/v1/admin/tenants", &body).await
    };
    let child = create("child", &parent["id"]).await;
    assert_eq!(child.status, 201, "{}", child.text);
    let grandchild = create("grandchild", &child.json["id"]).await;
    assert_eq!(grandchild.status, 201, "{}", grandchild.text);
    assert_eq!(create("stolen", &sibling["id"]).await.status, 404);
    assert_eq!(create("alone", &Value::Null).await.status, 403);
    let plan = json!({"plan": "developer"});
    let patch = async |tenant: &Value, body: &Value| {
        admin.send(&control, "PATCH", &path_of(tenant), body).await.status
    };
    assert_eq!(patch(&grandchild.json, &plan).await, 200);
    assert_eq!(patch(&grandchild.json, &json!({"display_name": "x"})).await, 403);
    assert_eq!(patch(&parent, &plan).await, 403);
    assert_eq!(patch(&sibling, &plan).await, 404);
    let listed = admin.get(&control, "/api/v1/admin/tenants").await;
    let mut slugs: Vec<_> = listed.json["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|tenant| tenant["slug"].as_str().expect("a slug"))
        .collect();
    slugs.sort_unstable();
    assert_eq!(slugs, ["acme-corp", "child", "grandchild"]);
}

async fn a_revoked_token_is_refused_at_once_and_a_rotated_one_after_its_overlap(on: Backend) {
    let control = Control::start(on).await;
    let own = control.create(&acme()).await;
    let admin = tenant_admin(&control, &own).await;
    let listed = admin.get(&control, &admin.path("tokens")).await;
    let id = listed.json["items"][0]["id"].as_str().expect("an id").to_owned();
    let rotate = admin.path(&format!("tokens/{id}/rotate"));
    let new = admin.send(&control, "POST", &rotate, &json!({"overlap_s": 10})).await;
    assert_eq!(new.status, 201, "{}", new.text);
    assert_eq!(new.json["rotated_from"], id.as_str());
    let new = Token {
        tenant: admin.tenant.clone(),
        text: new.json["token"].as_str().expect("a token").to_owned(),
    };
    assert_eq!(admin.get(&control, &admin.path("tokens")).await.status, 200);
    control.clock.advance_ms(10_000);
    assert_eq!(admin.get(&control, &admin.path("tokens")).await.status, 401);
    let listed = new.get(&control, &new.path("tokens")).await;
    assert_eq!(listed.status, 200);
    let items = listed.json["items"].as_array().expect("items");
    let rotated = items.iter().find(|item| item["rotated_from"] == id.as_str());
    let id = rotated.expect("the new one")["id"].as_str().expect("an id").to_owned();
    let revoke = new.path(&format!("tokens/{id}"));
    assert_eq!(new.send(&control, "DELETE", &revoke, &Value::Null).await.status, 204);
    assert_eq!(new.get(&control, &new.path("tokens")).await.status, 401);
}

async fn an_operators_token_does_everything(on: Backend) {
    let control = Control::start(on).await;
    let own = control.create(&acme()).await;
    let body = json!({"role": "admin", "name": "ci"});
    let issued = control.json("POST", "/api/v1/admin/tokens", &body).await;
    assert_eq!(issued.status, 201, "{}", issued.text);
    let text = issued.json["token"].as_str().expect("a token");
    let suspend = format!("{}/suspend", path_of(&own));
    let suspended = control.as_token(text, "POST", &suspend, &json!({})).await;
    assert_eq!(suspended.status, 200, "{}", suspended.text);
    let id = issued.json["id"].as_str().expect("an id");
    let chain = format!("/api/v1/tenants/{}/audit", own["id"].as_str().expect("an id"));
    let chain = control.get(&chain).await;
    let last = chain.json["items"].as_array().expect("items").last().cloned();
    assert_eq!(last.expect("an entry")["actor"], format!("token:{id}"));
    let revoke = format!("/api/v1/admin/tokens/{id}");
    assert_eq!(control.with(("DELETE", &revoke), &[], "").await.status, 204);
    assert_eq!(control.as_token(text, "GET", &path_of(&own), &Value::Null).await.status, 401);
}

async fn a_parent_admin_manages_tokens_below_itself_and_gives_no_right_that_it_lacks(on: Backend) {
    let control = Control::start(on).await;
    control.usage.set(1, 1);
    let family = async |slug: &str, under: Option<&Value>| {
        let mut body = tenant(slug);
        body["parent_tenant_id"] = under.map_or(Value::Null, |under| under["id"].clone());
        control.create(&body).await
    };
    let root = family("top-of-all", None).await;
    let parent = family("parent-of-two", Some(&root)).await;
    let child = family("child-of-one", Some(&parent)).await;
    let grandchild = family("grandchild", Some(&child)).await;
    let sibling = family("sibling-of-it", Some(&root)).await;
    let admin = token(&control, &parent, &json!({"role": "parent-admin", "name": "p"})).await;
    let tokens = |of: &Value| format!("/api/v1/tenants/{}/tokens", of["id"].as_str().expect("id"));
    let scoped = |role: &str, scopes: &[&str]| json!({"role": role, "name": "t", "scopes": scopes});
    let useful = scoped("tenant-admin", &["tenant:read", "usage:read", "billing:read"]);
    for below in [&child, &grandchild] {
        let issued = admin.send(&control, "POST", &tokens(below), &useful).await;
        assert_eq!(issued.status, 201, "{}", issued.text);
        let text = issued.json["token"].as_str().expect("a token");
        let usage = format!("{}/usage", tokens(below).trim_end_matches("/tokens"));
        assert_eq!(control.as_token(text, "GET", &usage, &Value::Null).await.status, 200);
        let listed = admin.get(&control, &tokens(below)).await;
        assert_eq!(listed.json["items"][0]["id"], issued.json["id"], "{}", listed.text);
        let one = format!("{}/{}", tokens(below), issued.json["id"].as_str().expect("an id"));
        assert_eq!(admin.send(&control, "DELETE", &one, &Value::Null).await.status, 204);
        assert_eq!(control.as_token(text, "GET", &usage, &Value::Null).await.status, 401);
    }
    // What it may not do below, nobody gets from it: not by the role, not by a scope.
    for (beyond, lacking) in [
        (json!({"role": "tenant-admin", "name": "t"}), "keys:read"),
        (scoped("tenant-admin", &["usage:read", "keys:manage"]), "keys:manage"),
        (scoped("tenant-admin", &["audit:read"]), "audit:read"),
        (scoped("service", &["usage:report"]), "usage:report"),
        (scoped("parent-admin", &["billing:manage"]), "billing:manage"),
    ] {
        let refused = admin.send(&control, "POST", &tokens(&child), &beyond).await;
        assert_eq!((refused.status, &refused.json["scope"]), (403, &lacking.into()), "{beyond}");
    }
    let narrow = scoped("parent-admin", &["tokens:manage", "usage:read"]);
    let narrow = token(&control, &parent, &narrow).await;
    let refused = narrow.send(&control, "POST", &tokens(&child), &useful).await;
    assert_eq!((refused.status, &refused.json["scope"]), (403, &"tenant:read".into()));
    // A token that may do more, it neither renews nor revokes; its own tenant's are not its.
    let full = json!({"role": "tenant-admin", "name": "full"});
    let full = control.json("POST", &tokens(&child), &full).await.json["id"].clone();
    let full = format!("{}/{}", tokens(&child), full.as_str().expect("an id"));
    assert_eq!(admin.send(&control, "DELETE", &full, &Value::Null).await.status, 403);
    let rotate = format!("{full}/rotate");
    assert_eq!(admin.send(&control, "POST", &rotate, &Value::Null).await.status, 403);
    assert_eq!(admin.send(&control, "POST", &tokens(&parent), &useful).await.status, 403);
    for outside in [&root, &sibling] {
        for method in ["GET", "POST"] {
            let answer = admin.send(&control, method, &tokens(outside), &useful).await;
            assert_eq!(answer.status, 404, "{method} {}", answer.text);
        }
    }
}
