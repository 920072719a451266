//! Metering rules: what backends say by their answers is what the usage API shows.

use serde_json::{Value, json};

use crate::actors::{
    ADMIN_TOKEN, Client, EdgeProcess, Origin, World, WorldOptions, eventually, prepare_policies,
};

/// Users by status, storage and projects by a field.
const RULES: &str = r#"
[[route]]
name = "metered"
path = "/metered/**"

[[route.meter]]
metric = "users"
on_status = "201"
delta = 1

[[route.meter]]
metric = "projects"
header = "x-projects-delta"
strip = false

[[route.meter]]
metric = "storage"
header = "x-storage-delta-bytes"
"#;

fn with_rules(policies: &std::path::Path) {
    let file = policies.join("routes.toml");
    let routes = std::fs::read_to_string(&file).expect("routes.toml");
    // What stands above the first route holds for all routes.
    let routes = routes.replacen("[[route]]", &format!("{RULES}\n[[route]]"), 1);
    std::fs::write(&file, routes).expect("a file");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_answer_reports_is_shown_and_its_field_is_not() {
    let options = WorldOptions { prepare: Some(Box::new(with_rules)), ..WorldOptions::default() };
    let mut world = World::with(options).await;
    let acme = world.tenant("acme", "enterprise", "us").await;
    let says = |what: &'static str| [("x-origin-do", what)];
    for _ in 0..3 {
        acme.send("POST", "/metered/users", &says("status=201"), "").await.expect(201);
    }
    acme.send("POST", "/metered/users", &says("status=409"), "").await.expect(409);
    let reports = says("header=x-storage-delta-bytes:3145728;header=x-projects-delta:5");
    let reply = acme.send("PUT", "/metered/file", &reports, "").await.expect(200);
    assert_eq!(reply.header("x-storage-delta-bytes"), "");
    assert_eq!(reply.header("x-projects-delta"), "5");
    let freed = says("header=x-projects-delta:-2");
    acme.send("DELETE", "/metered/file", &freed, "").await.expect(200);
    let shown = |usage: &Value| {
        let usage = &usage["current_usage"];
        (usage["users_count"].clone(), usage["projects_count"].clone())
    };
    eventually("the levels are shown", || async {
        (shown(&world.usage(&acme).await) == (json!(3), json!(3))).then_some(())
    })
    .await;
    world.stop().await;
    world.resume().await;
    assert_eq!(shown(&world.usage(&acme).await), (json!(3), json!(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_reported_level_is_lost_or_doubled_by_kill_9() {
    let origin = Origin::start("any").await;
    let dir = tempfile::tempdir().expect("a folder");
    prepare_policies(dir.path(), &origin);
    with_rules(&dir.path().join("policies"));
    let mut edge = EdgeProcess::serve(dir.path()).await;
    let create = json!({
        "organization_name": "K", "slug": "killed", "admin_email": "k@k.example",
        "plan": "enterprise", "data_residency": "us",
    });
    let created = admin(&edge, "POST", "/api/v1/admin/tenants", create.to_string()).await;
    let usage = format!("/api/v1/tenants/{}/usage", created["id"].as_str().expect("an id"));
    let mut told = 0;
    for round in 0..4 {
        // Killed at another moment of the journal's life each time.
        for _ in 0..20 + 15 * round {
            let request = Client::request("POST", "/metered/users", "killed.localhost")
                .header("x-origin-do", "status=201")
                .body(Default::default());
            let request = request.expect("a request");
            told += usize::from(edge.edge.send(request).await.status.as_u16() == 201);
        }
        edge.kill().await;
        edge = EdgeProcess::serve(dir.path()).await;
        eventually("every answer is counted", || async {
            let shown = admin(&edge, "GET", &usage, String::new()).await;
            (shown["current_usage"]["users_count"] == told).then_some(())
        })
        .await;
    }
    assert!(told > 100, "{told}");
    // Whatever comes later, nothing is counted again.
    edge.kill().await;
    let edge = EdgeProcess::serve(dir.path()).await;
    let shown = admin(&edge, "GET", &usage, String::new()).await;
    assert_eq!(shown["current_usage"]["users_count"], told);
}

async fn admin(edge: &EdgeProcess, method: &str, path: &str, body: String) -> Value {
    let request = Client::request(method, path, "control.test")
        .header("authorization", format!("Bearer {ADMIN_TOKEN}"))
        .header("content-type", "application/json");
    let request = request.body(http_body_util::Full::new(body.into())).expect("a request");
    let reply = edge.control.send(request).await;
    assert!(reply.status.is_success(), "{}", reply.text());
    reply.json()
}
