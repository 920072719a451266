//! The control API, as an operator uses it.

mod alerts;
mod cli;
mod guide;
mod lifecycle;
mod postgres;
mod publishing;
mod roles;

use serde_json::{Value, json};

use crate::actors::{Client, World};

#[tokio::test(flavor = "multi_thread")]
async fn the_guides_create_gives_the_guides_answer() {
    let world = World::start().await;
    let reply = world
        .admin(
            "POST",
            "/api/v1/admin/tenants",
            Some(json!({
                "organization_name": "Acme Corporation", "display_name": "Acme Corp",
                "slug": "acme-corp", "admin_email": "admin@acme-corp.com", "plan": "enterprise",
                "data_residency": "us", "parent_tenant_id": null,
            })),
        )
        .await
        .expect(201);
    let body = reply.json();
    for (field, want) in [
        ("organization_name", "Acme Corporation"),
        ("slug", "acme-corp"),
        ("status", "trial"),
        ("plan", "enterprise"),
        ("data_residency", "us"),
        ("created_at", "2026-03-15T12:00:00Z"),
        ("trial_ends_at", "2026-04-14T12:00:00Z"),
    ] {
        assert_eq!(body[field], want, "{field}");
    }
    assert_eq!(
        body["quotas"].to_string(),
        r#"{"max_users":999999,"max_projects":999999,"max_api_calls_per_month":999999999,"max_storage_mb":1048576,"max_ai_requests_per_day":10000,"max_concurrent_sessions":100}"#
    );
    let id = body["id"].as_str().expect("an id");
    assert!(uuid_like(id), "{id}");
    let read = world.admin("GET", &format!("/api/v1/admin/tenants/{id}"), None).await.expect(200);
    assert_eq!(read.json()["slug"], "acme-corp");
    let list = world.admin("GET", "/v1/admin/tenants", None).await.expect(200).json();
    assert!(list.to_string().contains(id), "the guide's other spelling works: {list}");
}

fn uuid_like(text: &str) -> bool {
    text.len() == 36 && text.chars().filter(|c| *c == '-').count() == 4
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_field_is_named_at_once() {
    let world = World::start().await;
    let reply = world
        .admin(
            "POST",
            "/api/v1/admin/tenants",
            Some(json!({
                "organization_name": "", "slug": "Bad_Slug", "admin_email": "nobody",
                "plan": "platinum", "data_residency": "mars", "colour": "blue",
            })),
        )
        .await
        .expect(422);
    assert_eq!(reply.header("content-type"), "application/problem+json");
    let fields: Vec<String> = reply.json()["errors"]
        .as_array()
        .expect("errors")
        .iter()
        .map(|error| error["field"].as_str().unwrap_or_default().to_owned())
        .collect();
    for field in ["organization_name", "slug", "admin_email", "plan", "data_residency", "colour"] {
        assert!(fields.iter().any(|f| f == field), "{field} in {fields:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_creates_of_one_slug_give_one_tenant() {
    let world = World::start().await;
    let creates = (0..100).map(|_| {
        world.admin(
            "POST",
            "/api/v1/admin/tenants",
            Some(json!({
                "organization_name": "A", "slug": "same", "admin_email": "a@a.example",
                "plan": "team", "data_residency": "us",
            })),
        )
    });
    let mut statuses: Vec<u16> = Vec::new();
    for reply in futures_join(creates).await {
        statuses.push(reply.status.as_u16());
    }
    assert_eq!(statuses.iter().filter(|s| **s == 201).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|s| **s == 409).count(), 99, "{statuses:?}");
}

async fn futures_join<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut pending: Vec<_> = futures.map(|f| (Box::pin(f), None)).collect();
    std::future::poll_fn(|cx| {
        let mut all = true;
        for (future, output) in &mut pending {
            if output.is_none() {
                match future.as_mut().poll(cx) {
                    std::task::Poll::Ready(value) => *output = Some(value),
                    std::task::Poll::Pending => all = false,
                }
            }
        }
        if all { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    pending.into_iter().map(|(_, output)| output.expect("all are ready")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_has_the_guides_shape() {
    let world = World::start().await;
    let acme = world.tenant("acme", "team", "us").await;
    for _ in 0..5 {
        acme.get("/").await.expect(200);
    }
    let usage = world.usage(&acme).await;
    assert_eq!(usage["tenant_id"], acme.id.as_str());
    assert_eq!(usage["current_usage"]["api_calls_this_month"], 5);
    assert_eq!(usage["quotas"]["max_api_calls_per_month"], 100_000);
    assert_eq!(usage["utilization_percentages"]["api_calls"], json!(0.005));
    assert_eq!(usage["last_calculated_at"], "2026-03-15T12:00:00Z");
    for part in [
        "users_count",
        "projects_count",
        "storage_used_mb",
        "ai_requests_today",
        "concurrent_sessions",
    ] {
        assert_eq!(usage["current_usage"][part], 0, "{part}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_admin_token_nothing_is_told() {
    let world = World::start().await;
    let acme = world.tenant("acme", "team", "us").await;
    let key = world.key(&acme).await;
    for path in ["/api/v1/admin/tenants", "/v1/admin/tenants", "/api/v1/admin/policies"] {
        for token in [None, Some("wrong".to_owned()), Some(key.clone())] {
            let mut request = Client::request("GET", path, "control.test");
            if let Some(token) = &token {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            let reply =
                world.control().send(request.body(Default::default()).expect("a request")).await;
            let reply = reply.expect(401);
            assert_eq!(reply.code(), "unauthenticated");
            assert!(!reply.text().contains("acme"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_are_served() {
    let world = World::start().await;
    let acme = world.tenant("acme", "team", "us").await;
    acme.get("/").await.expect(200);
    world.admin("GET", "/livez", None).await.expect(200);
    world.admin("GET", "/readyz", None).await.expect(200);
    let metrics = world.admin("GET", "/metrics", None).await.expect(200).text();
    let requests: Vec<&str> =
        metrics.lines().filter(|line| line.contains("requests_total{")).collect();
    assert!(!requests.is_empty(), "{metrics}");
    assert!(!metrics.contains(&acme.id), "no tenant as a label");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_repeats_the_answer() {
    let world = World::start().await;
    let send = |body: Value| {
        let request = Client::request("POST", "/api/v1/admin/tenants", "control.test")
            .header("authorization", format!("Bearer {}", crate::actors::ADMIN_TOKEN))
            .header("content-type", "application/json")
            .header("idempotency-key", "once");
        world.control().send(request.body(body.to_string().into()).expect("a request"))
    };
    let body = json!({
        "organization_name": "A", "slug": "one", "admin_email": "a@a.example", "plan": "team",
        "data_residency": "us",
    });
    let first = send(body.clone()).await.expect(201).json();
    let again = send(body.clone()).await.expect(201).json();
    assert_eq!(first, again);
    let mut other = body;
    other["slug"] = json!("two");
    let refused = send(other).await;
    assert!(matches!(refused.status.as_u16(), 409 | 422), "{refused:?}");
}
