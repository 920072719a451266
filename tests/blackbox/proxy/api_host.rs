//! The control API on `api.<base domain>` of the data plane, as the product guide calls it.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::json;

use crate::actors::{ADMIN_TOKEN, Client, World, WorldOptions, eventually};

const HOST: &str = "api.localhost";

/// A request to the shared host with a bearer token.
fn request(method: &str, path: &str, token: &str, body: &str) -> Request<Full<Bytes>> {
    let request = Client::request(method, path, HOST)
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json");
    request.body(Full::new(Bytes::from(body.to_owned()))).expect("a request")
}

fn tenant(slug: &str) -> String {
    json!({
        "organization_name": "Acme Corporation", "display_name": "Acme Corp", "slug": slug,
        "admin_email": "admin@acme-corp.com", "plan": "enterprise", "data_residency": "us",
    })
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guides_calls_work_on_the_data_planes_port_over_both_protocols() {
    let world = World::start().await;
    let create = |slug| request("POST", "/v1/admin/tenants", ADMIN_TOKEN, &tenant(slug));
    let over_h1 = world.edge().send(create("first-corp")).await.expect(201).json();
    let over_h2 = world.edge().send_h2(create("other-corp")).await.expect(201).json();
    assert_eq!((&over_h1["slug"], &over_h2["slug"]), (&"first-corp".into(), &"other-corp".into()));
    let path = format!("/api/v1/admin/tenants/{}", over_h1["id"].as_str().expect("an id"));
    let read = world.edge().send_h2(request("GET", &path, ADMIN_TOKEN, "")).await.expect(200);
    assert_eq!(read.json(), world.admin("GET", &path, None).await.expect(200).json());
    assert!(!read.header("x-request-id").is_empty());
    // A tenant that was made there is served there.
    eventually("the edge serves the tenant", || async {
        let request = Client::request("GET", "/", "first-corp.localhost").body(Default::default());
        let reply = world.edge().send(request.expect("a request")).await;
        reply.status.is_success().then_some(())
    })
    .await;
    let bad = world.edge().send(request("POST", "/v1/admin/tenants", ADMIN_TOKEN, "{}")).await;
    assert!(bad.expect(422).json()["errors"].as_array().is_some_and(|errors| errors.len() > 2));
    let long = format!("{{\"slug\":\"{}\"}}", "x".repeat(2 << 20));
    let long = world.edge().send(request("POST", "/v1/admin/tenants", ADMIN_TOKEN, &long)).await;
    long.expect(413);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_else_of_the_control_listener_is_reachable_there() {
    let world = World::start().await;
    let acme = world.tenant("acme", "enterprise", "us").await;
    let key = world.key(&acme).await;
    for (path, token, status) in [
        ("/metrics", ADMIN_TOKEN, 401),
        ("/livez", ADMIN_TOKEN, 401),
        ("/readyz", ADMIN_TOKEN, 401),
        ("/v1/../metrics", ADMIN_TOKEN, 401),
        ("/v1/%2e%2e/metrics", ADMIN_TOKEN, 400),
        ("/v1/metrics", ADMIN_TOKEN, 404),
        ("/v1/admin/tenants", "wrong", 401),
        ("/api/v1/admin/tenants", "", 401),
        // A tenant's own API, on the same host and the same path.
        ("/v1/admin/tenants", &key, 200),
    ] {
        let reply = world.edge().send(request("GET", path, token, "")).await;
        assert_eq!(reply.status.as_u16(), status, "{path}: {}", reply.text());
        assert!(!reply.text().contains("edge_requests_total"), "{path}");
    }
    assert_eq!(world.arrivals(), 1, "the key's request is the only one that is forwarded");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_can_be_kept_to_the_control_listener() {
    let options = WorldOptions { config: "[edge]\napi_host = false".into(), prepare: None };
    let world = World::with(options).await;
    let reply = world.edge().send(request("GET", "/v1/admin/tenants", ADMIN_TOKEN, "")).await;
    assert_eq!(reply.expect(401).code(), "unauthenticated");
    world.admin("GET", "/v1/admin/tenants", None).await.expect(200);
}
