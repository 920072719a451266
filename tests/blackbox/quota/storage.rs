//! Storage, users and projects on the request path: room before the body, settled by the
//! answer, never lost and never doubled.

use std::path::Path;

use serde_json::{Value, json};

use crate::actors::{
    ADMIN_TOKEN, Backend, Client, EdgeProcess, Origin, RawClient, Reply, TenantActor, World,
    eventually, on_both, prepare_policies,
};

on_both![
    of_two_uploads_that_fit_only_singly_exactly_one_is_stored,
    a_refused_upload_is_neither_asked_for_nor_forwarded_nor_charged,
    a_chunked_upload_is_cut_off_where_the_quota_ends,
    a_client_that_hangs_up_gives_its_room_back,
    what_the_backend_reports_is_counted_once_and_deletes_credit,
    of_fifty_creations_at_once_for_the_last_user_one_passes,
    what_a_killed_edge_reserved_stays_counted_until_the_backend_reports,
];

/// Bytes of the quota of every tenant here.
const QUOTA: u64 = 1 << 20;

const ROUTES: &str = r#"
[[route]]
name = "stored"
path = "/stored/**"
storage = "body"

[[route.meter]]
metric = "storage"
header = "x-storage-delta-bytes"

[[route]]
name = "people"
methods = ["POST"]
path = "/people"
claims = "users"

[[route]]
name = "people-gone"
methods = ["DELETE"]
path = "/people/*"

[[route.meter]]
metric = "users"
on_status = "204"
delta = -1
"#;

pub fn with_routes(policies: &Path) {
    let file = policies.join("routes.toml");
    let routes = std::fs::read_to_string(&file).expect("routes.toml");
    // What stands above the first route holds for all routes.
    let routes = routes.replacen("[[route]]", &format!("{ROUTES}\n[[route]]"), 1);
    std::fs::write(&file, routes).expect("a file");
}

/// A tenant with one MB and three users.
async fn tenant(world: &World) -> TenantActor {
    let quotas = json!({ "max_storage_mb": 1, "max_users": 3 });
    let tenant = world.tenant("acme", "team", "us").await;
    let path = format!("/api/v1/admin/tenants/{}", tenant.id);
    world.admin("PATCH", &path, Some(json!({ "quota_overrides": quotas }))).await.expect(200);
    tenant
}

async fn start(on: Backend) -> (World, TenantActor) {
    let world = on.world_of(Box::new(with_routes)).await;
    let tenant = tenant(&world).await;
    (world, tenant)
}

/// What is used and what is set aside, in bytes and users as the usage API has them.
fn figures(usage: &Value) -> (u64, u64, u64) {
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    (
        number(&usage["current_usage"]["storage_used_mb"]),
        number(&usage["current_usage"]["users_count"]),
        number(&usage["reserved"]["storage_bytes"]) + number(&usage["reserved"]["users"]),
    )
}

async fn await_figures(world: &World, tenant: &TenantActor, want: (u64, u64, u64)) {
    let what = format!("usage is {want:?}");
    eventually(&what, || async { (figures(&world.usage(tenant).await) == want).then_some(()) })
        .await;
}

async fn report(world: &World, tenant: &TenantActor, levels: Value) {
    let path = format!("/api/v1/tenants/{}/usage/levels", tenant.id);
    world.admin("PUT", &path, Some(levels)).await.expect(200);
}

/// What the origin is to do.
fn says(wish: &str) -> [(&str, &str); 1] {
    [("x-origin-do", wish)]
}

fn body(bytes: u64) -> String {
    "x".repeat(usize::try_from(bytes).expect("small"))
}

/// Sends; again while the store is too slow to say, which a busy disk may make it.
async fn send(
    tenant: &TenantActor,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Reply {
    eventually("the store answers in time", || async {
        let reply = tenant.send(method, path, headers, body).await;
        Some(reply).filter(|reply| reply.status != 503)
    })
    .await
}

async fn of_two_uploads_that_fit_only_singly_exactly_one_is_stored(on: Backend) {
    let (world, tenant) = start(on).await;
    let large = body(QUOTA / 2 + 1);
    let slow = [("x-origin-do", "delay=300")];
    let upload = || send(&tenant, "PUT", "/stored/a", &slow, &large);
    let (one, two) = tokio::join!(upload(), upload());
    let mut statuses = [one.status.as_u16(), two.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 413]);
    assert_eq!(world.arrivals(), 1);
    await_figures(&world, &tenant, (1, 0, 0)).await;
    send(&tenant, "PUT", "/stored/b", &[], &body(QUOTA / 2 - 1)).await.expect(200);
    send(&tenant, "PUT", "/stored/c", &[], "x").await.expect(413);
}

async fn a_refused_upload_is_neither_asked_for_nor_forwarded_nor_charged(on: Backend) {
    let (world, tenant) = start(on).await;
    report(&world, &tenant, json!({ "storage_bytes": QUOTA - 10 })).await;
    let head = format!(
        "PUT /stored/a HTTP/1.1\r\nHost: {}\r\nContent-Length: 1073741824\r\n\
         Expect: 100-continue\r\n\r\n",
        tenant.host
    );
    let answer = eventually("the store answers in time", || async {
        let mut client = RawClient::connect(world.edge_addr()).await;
        client.write(&head).await;
        let answer = client.read_to_end().await;
        Some(answer).filter(|answer| !answer.starts_with("HTTP/1.1 503 "))
    })
    .await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer:?}");
    assert!(!answer.to_ascii_lowercase().contains("\r\nretry-after:"), "{answer}");
    let problem = answer.split_once("\r\n\r\n").expect("a body").1;
    let problem: Value = serde_json::from_str(problem).expect("JSON");
    assert_eq!(problem["title"], "Storage quota exceeded");
    assert_eq!(problem["available_actions"], json!(["delete_files", "upgrade_plan"]));
    assert_eq!((&problem["current_usage_mb"], &problem["quota_limit_mb"]), (&json!(1), &json!(1)));
    assert_eq!(problem["upgrade_options"], json!(["developer", "team", "enterprise"]));
    assert_eq!(world.arrivals(), 0);
    let usage = world.usage(&tenant).await;
    assert_eq!(usage["current_usage"]["api_calls_this_month"], 0);
    assert_eq!(usage.get("reserved"), None);
    // Reading, and storing what still fits, goes on.
    tenant.get("/stored/a").await.expect(200);
    send(&tenant, "PUT", "/stored/a", &[], &body(10)).await.expect(200);
}

async fn a_chunked_upload_is_cut_off_where_the_quota_ends(on: Backend) {
    let (world, tenant) = start(on).await;
    let head = format!(
        "PUT /stored/a HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
        tenant.host
    );
    let chunk = format!("40000\r\n{}\r\n", body(0x4_0000));
    let mut client = RawClient::connect(world.edge_addr()).await;
    client.write(&head).await;
    for _ in 0..5 {
        client.write(&chunk).await;
    }
    let answer = client.read_to_end().await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert_eq!(world.arrivals(), 0, "no whole request reached an origin");
    await_figures(&world, &tenant, (0, 0, 0)).await;
    let mut client = RawClient::connect(world.edge_addr()).await;
    client.write(&head).await;
    for _ in 0..4 {
        client.write(&chunk).await;
    }
    client.write("0\r\n\r\n").await;
    let answer = client.read_until("\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "to the last byte: {answer}");
    await_figures(&world, &tenant, (1, 0, 0)).await;
}

async fn a_client_that_hangs_up_gives_its_room_back(on: Backend) {
    let (world, tenant) = start(on).await;
    let mut client = RawClient::connect(world.edge_addr()).await;
    let head = format!(
        "PUT /stored/a HTTP/1.1\r\nHost: {}\r\nContent-Length: {QUOTA}\r\n\r\n",
        tenant.host
    );
    client.write(head).await;
    client.write(body(QUOTA / 2)).await;
    await_figures(&world, &tenant, (0, 0, QUOTA)).await;
    let refused = send(&tenant, "PUT", "/stored/b", &[], "x").await.expect(413).json();
    assert_eq!((&refused["current_usage_mb"], &refused["reserved_mb"]), (&json!(0), &json!(1)));
    drop(client);
    await_figures(&world, &tenant, (0, 0, 0)).await;
    send(&tenant, "PUT", "/stored/b", &[], "x").await.expect(200);
}

async fn what_the_backend_reports_is_counted_once_and_deletes_credit(on: Backend) {
    let (world, tenant) = start(on).await;
    let stored = |bytes: i64| format!("header=x-storage-delta-bytes:{bytes}");
    let (whole, gone) = (stored(1 << 20), stored(-(1 << 19)));
    // Ten bytes came, a megabyte was made of them.
    let reply = send(&tenant, "PUT", "/stored/a", &says(&whole), &body(10)).await.expect(200);
    assert_eq!(reply.header("x-storage-delta-bytes"), "");
    await_figures(&world, &tenant, (1, 0, 0)).await;
    send(&tenant, "PUT", "/stored/b", &[], "x").await.expect(413);
    send(&tenant, "DELETE", "/stored/a", &says(&gone), "").await.expect(200);
    eventually("there is room again", || async {
        (send(&tenant, "PUT", "/stored/b", &[], &body(1 << 19)).await.status == 200).then_some(())
    })
    .await;
    send(&tenant, "PUT", "/stored/c", &[], "x").await.expect(413);
    // What is still being settled would come on top of the level that is reported next.
    await_figures(&world, &tenant, (1, 0, 0)).await;
    let failed = says("status=500");
    report(&world, &tenant, json!({ "storage_bytes": 0 })).await;
    for _ in 0..3 {
        send(&tenant, "PUT", "/stored/d", &failed, &body(QUOTA)).await.expect(500);
        await_figures(&world, &tenant, (0, 0, 0)).await;
    }
}

async fn of_fifty_creations_at_once_for_the_last_user_one_passes(on: Backend) {
    let (world, tenant) = start(on).await;
    report(&world, &tenant, json!({ "users": 2 })).await;
    let mut tasks = Vec::new();
    for _ in 0..50 {
        let tenant = tenant.clone();
        tasks.push(tokio::spawn(async move {
            send(&tenant, "POST", "/people", &[("x-origin-do", "status=201")], "{}").await
        }));
    }
    let mut made = 0;
    for task in tasks {
        let reply = task.await.expect("no panic");
        if reply.status == 201 {
            made += 1;
            continue;
        }
        let problem = reply.expect(403);
        assert_eq!(problem.header("retry-after"), "");
        assert_eq!(problem.json()["title"], "User quota exceeded");
        assert_eq!(problem.json()["upgrade_options"], json!(["team", "enterprise"]));
    }
    assert_eq!((made, world.arrivals()), (1, 1));
    await_figures(&world, &tenant, (0, 3, 0)).await;
    // Whoever is refused by the backend is no user, and whoever goes makes room.
    send(&tenant, "DELETE", "/people/7", &says("status=204"), "").await.expect(204);
    await_figures(&world, &tenant, (0, 2, 0)).await;
    send(&tenant, "POST", "/people", &says("status=409"), "{}").await.expect(409);
    await_figures(&world, &tenant, (0, 2, 0)).await;
    send(&tenant, "POST", "/people", &says("status=201"), "{}").await.expect(201);
    await_figures(&world, &tenant, (0, 3, 0)).await;
}

/// A process of its own, on a database that outlives it.
struct Killed {
    dir: tempfile::TempDir,
    url: Option<String>,
    usage: String,
}

impl Killed {
    async fn serve(&self) -> EdgeProcess {
        let url = self.url.as_deref().map(|url| ("LEANVIBE_EDGE__STORE__URL", url));
        EdgeProcess::serve_with(self.dir.path(), url.as_slice()).await
    }

    async fn usage(&self, edge: &EdgeProcess) -> Value {
        admin(edge, "GET", &self.usage, Value::Null).await
    }
}

async fn admin(edge: &EdgeProcess, method: &str, path: &str, body: Value) -> Value {
    let request = Client::request(method, path, "control.test")
        .header("authorization", format!("Bearer {ADMIN_TOKEN}"))
        .header("content-type", "application/json");
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let request = request.body(http_body_util::Full::new(body.into())).expect("a request");
    let reply = edge.control.send(request).await;
    assert!(reply.status.is_success(), "{}", reply.text());
    reply.json()
}

async fn put(edge: &EdgeProcess, bytes: u64) -> u16 {
    let request = Client::request("PUT", "/stored/b", "acme.localhost");
    let body = http_body_util::Full::new(body(bytes).into());
    edge.edge.send(request.body(body).expect("a request")).await.status.as_u16()
}

async fn what_a_killed_edge_reserved_stays_counted_until_the_backend_reports(on: Backend) {
    let origin = Origin::start("any").await;
    let dir = tempfile::tempdir().expect("a folder");
    prepare_policies(dir.path(), &origin);
    with_routes(&dir.path().join("policies"));
    let mut killed = Killed { dir, url: on.url(), usage: String::new() };
    let mut edge = killed.serve().await;
    let new = json!({
        "organization_name": "A", "slug": "acme", "admin_email": "a@a.example", "plan": "team",
        "data_residency": "us",
    });
    let tenant = admin(&edge, "POST", "/api/v1/admin/tenants", new).await;
    let id = tenant["id"].as_str().expect("an id");
    let quotas = json!({ "quota_overrides": { "max_storage_mb": 1 } });
    admin(&edge, "PATCH", &format!("/api/v1/admin/tenants/{id}"), quotas).await;
    killed.usage = format!("/api/v1/tenants/{id}/usage");
    let mut client = RawClient::connect(edge.edge.addr).await;
    let head = "PUT /stored/a HTTP/1.1\r\nHost: acme.localhost\r\nContent-Length: 700000\r\n\r\n";
    client.write(head).await;
    client.write(body(1_000)).await;
    eventually("room is set aside", || async {
        (killed.usage(&edge).await["reserved"]["storage_bytes"] == 700_000).then_some(())
    })
    .await;
    edge.kill().await;
    let edge = killed.serve().await;
    let usage = killed.usage(&edge).await;
    assert_eq!(usage["reserved"]["storage_bytes"], 700_000);
    assert_eq!(usage["reserved"]["unresolved"]["storage_bytes"], 700_000, "at once");
    assert_eq!(put(&edge, 700_000).await, 413);
    assert_eq!(put(&edge, 1_000).await, 200);
    let levels = format!("{}/levels", killed.usage);
    admin(&edge, "PUT", &levels, json!({ "storage_bytes": 1_000 })).await;
    assert_eq!(killed.usage(&edge).await.get("reserved"), None);
    assert_eq!(put(&edge, 700_000).await, 200);
}
