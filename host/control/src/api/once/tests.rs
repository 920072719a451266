use axum::{body::Body, http::Request};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    api::endpoints,
    testing::{Answer, Backend, Control, acme, id_of, on_both, path_of, tenant},
};

on_both![
    every_kind_of_creation_happens_once_and_is_answered_alike,
    requests_at_once_with_one_key_have_one_effect,
    a_key_with_another_request_is_refused_and_changes_nothing,
    a_refusal_is_not_kept_so_the_request_may_succeed_later,
    a_key_is_its_callers_and_its_tenants,
    a_key_that_is_no_key_is_refused,
    a_request_that_took_effect_without_an_answer_is_never_done_again,
    a_key_is_forgotten_after_a_day,
    every_post_documents_the_header,
];

const JSON: (&str, &str) = ("content-type", "application/json");
const DAY_MS: u64 = 86_400_000;

async fn send(control: &Control, path: &str, key: &str, body: &Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    control.with(("POST", path), &[JSON, ("idempotency-key", key)], &body).await
}

async fn entries(control: &Control, tenant: &Value) -> usize {
    let chain = format!("/api/v1/tenants/{}/audit?limit=200", id_of(tenant));
    control.get(&chain).await.json["items"].as_array().expect("items").len()
}

async fn every_kind_of_creation_happens_once_and_is_answered_alike(on: Backend) {
    let control = Control::start(on).await;
    control.usage.set(0, 0);
    let acme = control.create(&acme()).await;
    let own = path_of(&acme);
    let of_tenant = own.replace("/admin/", "/");
    let at = "2024-02-01T00:00:00Z";
    for (path, body) in [
        (format!("{own}/keys"), Value::Null),
        (format!("{of_tenant}/tokens"), json!({ "role": "tenant-admin", "name": "ops" })),
        (format!("{of_tenant}/alerts/webhook-secret"), Value::Null),
        (format!("{own}/plan-changes"), json!({ "plan": "team", "effective_at": at })),
        (
            format!("{of_tenant}/usage/claims"),
            json!({ "metric": "users", "delta": 1, "id": "one" }),
        ),
        (format!("{own}/suspend"), Value::Null),
        (format!("{own}/resume"), Value::Null),
    ] {
        let before = entries(&control, &acme).await;
        let first = send(&control, &path, "key-1", &body).await;
        // One path is one tenant's namespace of keys, so each has a key of its own.
        let key = format!("key of {path}").replace(' ', "-");
        let (first, key) = match first.status {
            422 => (send(&control, &path, &key, &body).await, key.as_str()),
            _ => (first, "key-1"),
        };
        assert!((200..300).contains(&first.status), "{path}: {} {}", first.status, first.text);
        assert!(first.headers.get("idempotent-replayed").is_none(), "{path}");
        let again = send(&control, &path, key, &body).await;
        assert_eq!((again.status, &again.text), (first.status, &first.text), "{path}");
        assert_eq!(again.headers["idempotent-replayed"], "true", "{path}");
        for name in ["etag", "location", "content-type", "cache-control"] {
            assert_eq!(again.headers.get(name), first.headers.get(name), "{path} {name}");
        }
        assert_eq!(entries(&control, &acme).await, before + 1, "{path}");
    }
    let platform = json!({ "role": "admin", "name": "second" });
    let first = send(&control, "/v1/admin/tokens", "key-1", &platform).await;
    let again = send(&control, "/api/v1/admin/tokens", "key-1", &platform).await;
    assert_eq!((first.status, &again.text), (201, &first.text), "both spellings are one path");
    let listed = control.get("/api/v1/admin/tokens").await;
    assert_eq!(listed.json["items"].as_array().expect("items").len(), 1);
}

async fn requests_at_once_with_one_key_have_one_effect(on: Backend) {
    let control = Control::start(on).await;
    let acme = control.create(&acme()).await;
    let path = format!("{}/keys", path_of(&acme));
    let answers = join_all((0..8).map(|_| send(&control, &path, "k", &Value::Null))).await;
    for answer in &answers {
        assert_eq!((answer.status, &answer.text), (201, &answers[0].text));
    }
    let listed = control.get(&path).await;
    assert_eq!(listed.json["items"].as_array().expect("items").len(), 1, "{}", listed.text);
    let create = tenant("only-once");
    let path = "/api/v1/admin/tenants";
    let answers = join_all((0..8).map(|_| send(&control, path, "k", &create))).await;
    for answer in &answers {
        assert_eq!((answer.status, &answer.text), (201, &answers[0].text));
    }
}

async fn a_key_with_another_request_is_refused_and_changes_nothing(on: Backend) {
    let control = Control::start(on).await;
    let path = "/api/v1/admin/tenants";
    assert_eq!(send(&control, path, "k", &tenant("one")).await.status, 201);
    let other = send(&control, path, "k", &tenant("two")).await;
    assert_eq!((other.status, &other.json["code"]), (422, &json!("idempotency-key-reused")));
    let elsewhere = json!({ "role": "admin", "name": "second" });
    assert_eq!(send(&control, "/api/v1/admin/tokens", "k", &elsewhere).await.status, 422);
    assert_eq!(control.get(path).await.json["items"].as_array().expect("items").len(), 1);
}

async fn a_refusal_is_not_kept_so_the_request_may_succeed_later(on: Backend) {
    let control = Control::start(on).await;
    let mut small = tenant("small-one");
    small["plan"] = "developer".into();
    let small = control.create(&small).await;
    let path = format!("/api/v1/tenants/{}/usage/claims", id_of(&small));
    let claim = json!({ "metric": "users", "delta": 2, "id": "two" });
    let refused = send(&control, &path, "k", &claim).await;
    assert_eq!(refused.status, 403, "{}", refused.text);
    control.patch(&small, &json!({ "plan": "enterprise" })).await;
    let taken = send(&control, &path, "k", &claim).await;
    assert_eq!(taken.status, 201, "{}", taken.text);
    assert!(taken.headers.get("idempotent-replayed").is_none());
}

async fn a_key_is_its_callers_and_its_tenants(on: Backend) {
    let control = Control::start(on).await;
    let (one, two) = (control.create(&tenant("one")).await, control.create(&tenant("two")).await);
    let mut keys = Vec::new();
    for tenant in [&one, &two] {
        let answer = send(&control, &format!("{}/keys", path_of(tenant)), "k", &Value::Null).await;
        assert!(answer.headers.get("idempotent-replayed").is_none());
        keys.push(answer.text);
    }
    let path = format!("{}/tokens", path_of(&one).replace("/admin/", "/"));
    let new = json!({ "role": "tenant-admin", "name": "ops" });
    let token = control.json("POST", &path, &new).await.json["token"].clone();
    let request = Request::post(format!("{}/keys", path_of(&one)))
        .header("authorization", format!("Bearer {}", token.as_str().expect("a token")))
        .header("idempotency-key", "k");
    let answer = control.send(request.body(Body::empty()).expect("a request")).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    assert!(!keys.contains(&answer.text), "another caller's key is another key");
}

async fn a_key_that_is_no_key_is_refused(on: Backend) {
    let control = Control::start(on).await;
    let long = "k".repeat(256);
    for bad in ["", "two words", long.as_str()] {
        let answer = send(&control, "/api/v1/admin/tenants", bad, &tenant("one")).await;
        assert_eq!(answer.bad_fields(), ["Idempotency-Key"], "{bad:?}");
    }
    let twice = [JSON, ("idempotency-key", "a"), ("idempotency-key", "b")];
    let body = tenant("one").to_string();
    let answer = control.with(("POST", "/api/v1/admin/tenants"), &twice, &body).await;
    assert_eq!(answer.bad_fields(), ["Idempotency-Key"]);
}

async fn a_request_that_took_effect_without_an_answer_is_never_done_again(on: Backend) {
    let control = Control::start(on).await;
    let acme = control.create(&acme()).await;
    let path = format!("{}/keys", path_of(&acme));
    assert_eq!(send(&control, &path, "k", &Value::Null).await.status, 201);
    control.store.lose_answers().await;
    let again = send(&control, &path, "k", &Value::Null).await;
    assert_eq!((again.status, &again.json["code"]), (409, &json!("idempotency-answer-missing")));
    let listed = control.get(&path).await;
    assert_eq!(listed.json["items"].as_array().expect("items").len(), 1);
}

async fn a_key_is_forgotten_after_a_day(on: Backend) {
    let control = Control::start(on).await;
    let acme = control.create(&acme()).await;
    let path = format!("{}/keys", path_of(&acme));
    let first = send(&control, &path, "k", &Value::Null).await;
    control.clock.advance_ms(DAY_MS - 1);
    assert_eq!(send(&control, &path, "k", &Value::Null).await.text, first.text);
    control.clock.advance_ms(1);
    let later = send(&control, &path, "k", &Value::Null).await;
    assert!(later.status == 201 && later.text != first.text, "{}", later.text);
    control.clock.advance_ms(DAY_MS);
    control.store.forget_old_requests().await.expect("forgotten");
}

async fn every_post_documents_the_header(on: Backend) {
    let control = Control::start(on).await;
    let document = control.get("/api/v1/openapi.json").await.json;
    let posts = endpoints().into_iter().filter(|e| e.method == "POST" && e.right.is_some());
    for endpoint in posts {
        let path = format!("/api/v1{}", endpoint.path);
        let parameters = document["paths"][&path]["post"]["parameters"].as_array().expect("some");
        let named = parameters.iter().any(|parameter| parameter["name"] == "Idempotency-Key");
        assert!(named, "{path}");
    }
}
