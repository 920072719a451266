use axum::{body::Body, http::Request};
use model::{
    access::{Right, Rights, Role},
    plan::Plan,
};
use serde_json::{Value, json};
use std::sync::Arc;

use crate::{
    store::{Actor, NewToken},
    testing::{Answer, Backend, Control, TOKEN, acme, id_of, on_both, tenant},
};

on_both![
    one_form_makes_a_plugin_that_decides_and_the_next_a_version_that_does,
    a_version_that_fails_is_taken_back_by_one_call,
    a_form_is_refused_with_every_bad_part,
    a_component_beyond_its_plan_is_refused_while_it_arrives,
    a_tenant_manages_its_own_plugins_a_parent_looks_and_a_program_does_what_its_scope_says,
    the_operator_uploads_for_plans_and_the_platform,
    a_config_that_the_version_does_not_accept_is_not_stored,
    what_is_downloaded_is_what_was_uploaded,
];

const WASM: &[u8] = b"\0asm one";
const BOUNDARY: &str = "b0undary";

/// A form of parts.
fn form(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, bytes) in parts {
        let head =
            format!("--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    body
}

async fn send(control: &Control, token: &str, path: &str, parts: &[(&str, &[u8])]) -> Answer {
    let request = Request::post(path)
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", format!("multipart/form-data; boundary={BOUNDARY}"));
    control.send(request.body(Body::from(form(parts))).expect("a request")).await
}

/// The plugin `geo` in every scope: that of a tenant, of the plan `team` and of the platform.
pub(in crate::api) async fn geo_in_every_scope(control: &Control, id: &str) {
    let tenant = format!("/api/v1/tenants/{id}/plugins");
    for path in [&*tenant, "/api/v1/admin/plans/team/plugins", "/api/v1/admin/plugins"] {
        let made = send(control, TOKEN, path, &[("name", b"geo"), ("component", WASM)]).await;
        assert_eq!(made.status, 201, "{path}: {}", made.text);
    }
}

async fn world(on: Backend) -> (Control, String) {
    let control = Control::start(on).await;
    let id = id_of(&control.create(&acme()).await);
    (control, format!("/api/v1/tenants/{id}/plugins"))
}

fn code(answer: &Answer) -> (u16, &str) {
    (answer.status, answer.json["code"].as_str().unwrap_or_default())
}

async fn one_form_makes_a_plugin_that_decides_and_the_next_a_version_that_does(on: Backend) {
    let (control, path) = world(on).await;
    let manifest = json!({"capabilities": ["telemetry"], "limits": {"deadline_ms": 5}});
    let manifest = manifest.to_string();
    let parts: [(&str, &[u8]); 4] = [
        ("name", b"geo"),
        ("component", WASM),
        ("manifest", manifest.as_bytes()),
        ("activate", b"true"),
    ];
    let made = send(&control, TOKEN, &path, &parts).await;
    assert_eq!(made.status, 201, "{}", made.text);
    assert_eq!(made.json["active_version"], 1);
    assert_eq!(made.json["policy"], "tenant/geo");
    let version = &made.json["versions"][0];
    assert_eq!(version["manifest"]["limits"], json!({"deadline_ms": 5}));
    assert_eq!(version["log"], json!(["GET / continue"]));
    let taken = send(&control, TOKEN, &path, &parts).await;
    assert_eq!(code(&taken), (409, "plugin-exists"));

    let geo = format!("{path}/geo");
    let versions = format!("{geo}/versions");
    let next: [(&str, &[u8]); 1] = [("component", b"\0asm 2")];
    let added = send(&control, TOKEN, &versions, &next).await;
    assert_eq!((added.status, &added.json["number"]), (201, &2.into()), "{}", added.text);
    assert_eq!(added.json["state"], "draft");
    let digest = added.json["sha256"].as_str().expect("a digest").to_owned();
    let same = send(&control, TOKEN, &versions, &next).await;
    assert_eq!(same.status, 200, "it is there already");
    let activate = format!("{geo}/activate");
    let active = control.json("POST", &activate, &json!({"version": digest[..12]})).await;
    assert_eq!((active.status, &active.json["active_version"]), (200, &2.into()));
    let states: Vec<_> = [0, 1].map(|n| active.json["versions"][n]["state"].clone()).into();
    assert_eq!(states, ["active", "retired"]);
    let unknown = control.json("POST", &activate, &json!({"version": 9})).await;
    assert_eq!(unknown.bad_fields(), ["version"]);
    for (path, items) in [(path.clone(), 1), (format!("{geo}/versions"), 2)] {
        let listed = control.get(&path).await.json["items"].as_array().expect("items").len();
        assert_eq!(listed, items, "{path}");
    }
    let by_digest = control.get(&format!("{geo}/versions/{digest}")).await;
    assert_eq!(by_digest.json["number"], 2);
    assert_eq!(control.get(&format!("{geo}/versions/{}", &digest[..11])).await.status, 404);
}

async fn a_version_that_fails_is_taken_back_by_one_call(on: Backend) {
    let (control, path) = world(on).await;
    let first: [(&str, &[u8]); 3] = [("name", b"geo"), ("component", WASM), ("activate", b"true")];
    send(&control, TOKEN, &path, &first).await;
    let geo = format!("{path}/geo");
    let rollback = format!("{geo}/rollback");
    assert_eq!(code(&control.post(&rollback).await), (409, "plugin-nothing-before"));
    let next: [(&str, &[u8]); 2] = [("component", b"\0asm 2"), ("activate", b"true")];
    send(&control, TOKEN, &format!("{geo}/versions"), &next).await;
    let back = control.post(&rollback).await;
    assert_eq!((back.status, &back.json["active_version"]), (200, &1.into()), "{}", back.text);
    assert_eq!(back.json["versions"][0]["state"], "rolled-back");
    let history = control.get(&format!("{geo}/history")).await;
    let steps = history.json["items"].as_array().expect("items");
    let steps: Vec<_> = steps.iter().map(|step| (&step["action"], &step["to"])).collect();
    let want =
        [("rollback", 1), ("activate", 2), ("activate", 1)].map(|(a, n)| (a.into(), n.into()));
    assert_eq!(steps, want.iter().map(|(a, n): &(Value, Value)| (a, n)).collect::<Vec<_>>());
    let off = control.json("PATCH", &geo, &json!({"enabled": false})).await;
    assert_eq!((off.status, &off.json["enabled"]), (200, &false.into()));
    assert_eq!(control.store.directory().borrow().plugins.len(), 0);
    let gone = control.with(("DELETE", &geo), &[], "").await;
    assert_eq!(gone.status, 204);
    assert_eq!(control.get(&geo).await.status, 404);
}

async fn a_form_is_refused_with_every_bad_part(on: Backend) {
    let (control, path) = world(on).await;
    let manifest = json!({
        "on_failure": "maybe", "origins": ["https://a.example/path"], "limits": {"fuel": 1},
        "capabilities": "all",
    });
    let manifest = manifest.to_string();
    let parts: [(&str, &[u8]); 6] = [
        ("name", b"Geo!"),
        ("manifest", manifest.as_bytes()),
        ("config", b"[]"),
        ("signature", b"c2hvcnQ="),
        ("activate", b"yes"),
        ("colour", b"red"),
    ];
    let refused = send(&control, TOKEN, &path, &parts).await;
    let mut fields = refused.bad_fields();
    fields.sort_unstable();
    let want = [
        "activate",
        "colour",
        "component",
        "config",
        "manifest.capabilities",
        "manifest.limits.fuel",
        "manifest.on_failure",
        "manifest.origins[0]",
        "name",
        "signature",
    ];
    assert_eq!(fields, want);
    let no_wasm = send(&control, TOKEN, &path, &[("name", b"geo"), ("component", b"PK")]).await;
    assert_eq!(code(&no_wasm), (422, "plugin-not-wasm"));
    let twice: [(&str, &[u8]); 2] = [("name", b"geo"), ("name", b"geo")];
    assert_eq!(send(&control, TOKEN, &path, &twice).await.bad_fields(), ["name"]);
    let json = control.json("POST", &path, &json!({"name": "geo"})).await;
    assert_eq!(code(&json), (415, "unsupported-media-type"));
    let cut = Request::post(&path)
        .header("authorization", format!("Bearer {TOKEN}"))
        .header("content-type", format!("multipart/form-data; boundary={BOUNDARY}"))
        .body(Body::from(form(&[("component", WASM)])[..60].to_vec()));
    assert_eq!(control.send(cut.expect("a request")).await.status, 400);
    assert_eq!(control.get(&path).await.json["items"], json!([]));
}

async fn a_component_beyond_its_plan_is_refused_while_it_arrives(on: Backend) {
    let (control, path) = world(on).await;
    control.catalog.send_modify(|catalog| {
        let mut changed = (**catalog).clone();
        for plan in changed.plans.values_mut() {
            let mut small = Plan::clone(plan);
            small.plugins.component_bytes_max = 1_000;
            small.plugins.plugins_max = 1;
            *plan = Arc::new(small);
        }
        *catalog = Arc::new(changed);
    });
    let mut component = b"\0asm".to_vec();
    component.resize(1_001, 0);
    let large = send(&control, TOKEN, &path, &[("name", b"geo"), ("component", &component)]).await;
    assert_eq!(code(&large), (413, "plugin-too-large"));
    assert!(large.json["detail"].as_str().is_some_and(|text| text.contains("1000")));
    component.pop();
    let fits = send(&control, TOKEN, &path, &[("name", b"geo"), ("component", &component)]).await;
    assert_eq!(fits.status, 201, "{}", fits.text);
    let second = send(&control, TOKEN, &path, &[("name", b"geo-2"), ("component", WASM)]).await;
    assert_eq!(code(&second), (409, "too-many"));
    let huge = Request::post(&path)
        .header("authorization", format!("Bearer {TOKEN}"))
        .header("content-type", format!("multipart/form-data; boundary={BOUNDARY}"))
        .header("content-length", "1073741824")
        .body(Body::empty());
    let huge = control.send(huge.expect("a request")).await;
    assert_eq!(code(&huge), (413, "plugin-too-large"), "before a byte of it was read");
}

async fn a_tenant_manages_its_own_plugins_a_parent_looks_and_a_program_does_what_its_scope_says(
    on: Backend,
) {
    let (control, _) = world(on).await;
    let parent = id_of(&control.create(&tenant("parent")).await);
    let mut child = tenant("child");
    child["parent_tenant_id"] = json!(parent);
    let child = id_of(&control.create(&child).await);
    let token = async |role, tenant, scopes| {
        let new =
            NewToken { tenant: Some(tenant), role, scopes, name: "t".to_owned(), expires_at: None };
        let issued = control.store.issue_token(&Actor::Operator, new).await.expect("a token");
        issued.text.expose().to_owned()
    };
    let path = format!("/api/v1/tenants/{child}/plugins");
    let read_only = Rights::of(&[Right::PluginsRead]);
    let own = token(Role::TenantAdmin, child, None).await;
    let above = token(Role::ParentAdmin, parent, None).await;
    let reads = token(Role::Service, child, Some(read_only)).await;
    let writes = token(Role::Service, child, Some(Rights::of(&[Right::PluginsManage]))).await;
    let foreign = token(Role::TenantAdmin, parent, None).await;
    for (n, (token, status)) in
        [(&own, 201), (&above, 201), (&reads, 403), (&writes, 201), (&foreign, 404)]
            .into_iter()
            .enumerate()
    {
        let name = format!("plugin-{n}");
        let parts: [(&str, &[u8]); 2] = [("name", name.as_bytes()), ("component", WASM)];
        let answer = send(&control, token, &path, &parts).await;
        assert_eq!(answer.status, status, "{n}: {}", answer.text);
    }
    for (token, status) in [(&own, 200), (&above, 200), (&reads, 200), (&foreign, 404)] {
        let answer = control.as_token(token, "GET", &path, &Value::Null).await;
        assert_eq!(answer.status, status, "{}", answer.text);
    }
    for platform in ["/api/v1/admin/plugins", "/api/v1/admin/plans/team/plugins"] {
        let parts: [(&str, &[u8]); 2] = [("name", b"x"), ("component", WASM)];
        assert_eq!(send(&control, &own, platform, &parts).await.status, 403, "{platform}");
    }
}

async fn the_operator_uploads_for_plans_and_the_platform(on: Backend) {
    let (control, _) = world(on).await;
    for (path, policy) in [
        ("/api/v1/admin/plugins", "platform/geo"),
        ("/api/v1/admin/plans/team/plugins", "plan/geo"),
    ] {
        let parts: [(&str, &[u8]); 3] =
            [("name", b"geo"), ("component", WASM), ("activate", b"true")];
        let made = send(&control, TOKEN, path, &parts).await;
        assert_eq!((made.status, &made.json["policy"]), (201, &policy.into()), "{}", made.text);
    }
    let plugins = Arc::clone(&control.store.directory().borrow().plugins);
    assert_eq!(plugins.len(), 2);
    let nowhere = control.get("/api/v1/admin/plans/none/plugins").await;
    assert_eq!(nowhere.status, 404);
}

async fn a_config_that_the_version_does_not_accept_is_not_stored(on: Backend) {
    let (control, path) = world(on).await;
    let parts: [(&str, &[u8]); 3] =
        [("name", b"geo"), ("component", WASM), ("config", b"{\"reject\": 1}")];
    let refused = send(&control, TOKEN, &path, &parts).await;
    assert_eq!(code(&refused), (422, "plugin-rejects-config"));
    send(&control, TOKEN, &path, &parts[..2]).await;
    let config = format!("{path}/geo/config");
    let held = control.get(&config).await;
    assert_eq!(
        (&held.json["order"], &held.headers["etag"]),
        (&100.into(), &"\"1\"".parse().expect("a tag"))
    );
    let set = json!({"config": {"country": "DE"}, "order": -5, "on_failure": "open"});
    let stale = [("content-type", "application/json"), ("if-match", "\"7\"")];
    let mismatch = control.with(("PUT", &config), &stale, &set.to_string()).await;
    assert_eq!(mismatch.status, 412);
    let done = control.json("PUT", &config, &set).await;
    assert_eq!((done.status, &done.json["version"]), (200, &2.into()), "{}", done.text);
    let no = control.json("PUT", &config, &json!({"config": {"reject": true}})).await;
    assert_eq!(code(&no), (422, "plugin-rejects-config"));
    let bad = json!({"config": [], "order": 1.5, "on_failure": "shut", "colour": 1});
    let bad = control.json("PUT", &config, &bad).await;
    assert_eq!(bad.bad_fields(), ["config", "order", "on_failure", "colour"]);
    assert_eq!(control.get(&config).await.json["config"], json!({"country": "DE"}));
}

async fn what_is_downloaded_is_what_was_uploaded(on: Backend) {
    let (control, path) = world(on).await;
    send(&control, TOKEN, &path, &[("name", b"geo"), ("component", WASM)]).await;
    let file = control.get(&format!("{path}/geo/versions/1/component")).await;
    assert_eq!((file.status, file.text.as_bytes()), (200, WASM));
    assert_eq!(file.headers["content-type"], "application/wasm");
    assert_eq!(control.get(&format!("{path}/geo/versions/2/component")).await.status, 404);
    assert_eq!(control.get(&format!("{path}/no/versions/1/component")).await.status, 404);
}
