//! Upload, activate, roll back, switch off; and many swaps under load.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use http_body_util::Full;
use serde_json::{Value, json};

use super::{plugins_of, post_form, push, push_next};
use crate::actors::{
    ADMIN_TOKEN, Client, EdgeProcess, Origin, Reply, World, guest, prepare_policies, responder,
};

/// Swaps of the test under load.
const SWAPS: usize = 300;
/// KiB that the memory may grow over the later two thirds of them: one version has some
/// tens, so a leak of each would show.
const GROWTH_KIB_MAX: u64 = 16 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn an_uploaded_version_decides_for_its_tenant_alone_and_a_rollback_takes_it_back() {
    let world = World::start().await;
    let acme = world.tenant("acme", "team", "us").await;
    let other = world.tenant("other", "team", "us").await;
    let made = push(world.control(), &acme, "gate", &responder(418)).await;
    assert_eq!(made["versions"][0]["hooks"], json!(["request-hook"]));
    acme.get("/").await.expect(418);
    other.get("/").await.expect(200);
    push_next(world.control(), &acme, "gate", &responder(451)).await;
    acme.get("/").await.expect(451);
    let gate = format!("{}/gate", plugins_of(&acme));
    world.admin("POST", &format!("{gate}/rollback"), None).await.expect(200);
    acme.get("/").await.expect(418);
    world.admin("PATCH", &gate, Some(json!({"enabled": false}))).await.expect(200);
    acme.get("/").await.expect(200);
    world.admin("PATCH", &gate, Some(json!({"enabled": true}))).await.expect(200);
    acme.get("/").await.expect(418);
    world.admin("DELETE", &gate, None).await.expect(204);
    acme.get("/").await.expect(200);
    other.get("/").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rust_component_runs_with_the_config_that_it_was_uploaded_with() {
    let world = World::start().await;
    let acme = world.tenant("acme", "developer", "us").await;
    let dist = concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins/dist/custom-integrations.wasm");
    let wasm = std::fs::read(dist).expect("plugins/dist; use `make plugins`");
    let config = json!({"request": [{"set_header": {"name": "x-source", "value": "mine"}}]});
    let config = config.to_string();
    let parts: [(&str, &[u8]); 4] = [
        ("name", b"steps"),
        ("component", &wasm),
        ("config", config.as_bytes()),
        ("activate", b"true"),
    ];
    post_form(world.control(), &plugins_of(&acme), &parts).await.expect(201);
    acme.get("/").await.expect(200);
    let seen = world.origin("us-east-1").last();
    assert_eq!(seen.header("x-source"), "mine");
    let bad = json!({"config": {"no-such-key": 1}});
    let path = format!("{}/steps/config", plugins_of(&acme));
    let refused = world.admin("PUT", &path, Some(bad)).await.expect(422);
    assert_eq!(refused.code(), "plugin-rejects-config");
    let next = json!({"config": {"request": [{"set_header": {"name": "x-source", "value": "2"}}]}});
    world.admin("PUT", &path, Some(next)).await.expect(200);
    acme.get("/").await.expect(200);
    assert_eq!(world.origin("us-east-1").last().header("x-source"), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_plugins_run_for_their_plan_or_for_everybody_and_a_restart_keeps_them() {
    let mut world = World::start().await;
    let team = world.tenant("team-one", "team", "us").await;
    let developer = world.tenant("dev-one", "developer", "us").await;
    let wasm = responder(418);
    let parts: [(&str, &[u8]); 3] = [("name", b"all"), ("component", &wasm), ("activate", b"true")];
    let of_plan = "/api/v1/admin/plans/team/plugins";
    post_form(world.control(), of_plan, &parts).await.expect(201);
    team.get("/").await.expect(418);
    developer.get("/").await.expect(200);
    world.stop().await;
    world.resume().await;
    team.at(world.edge()).get("/").await.expect(418);
    let wasm = responder(451);
    let parts: [(&str, &[u8]); 3] =
        [("name", b"closed"), ("component", &wasm), ("activate", b"true")];
    post_form(world.control(), "/api/v1/admin/plugins", &parts).await.expect(201);
    developer.at(world.edge()).get("/").await.expect(451);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_version_follows_its_on_failure_rule() {
    let world = World::start().await;
    let acme = world.tenant("acme", "team", "us").await;
    // Passes the probe, which has no such host, and traps on live requests of a long path.
    let trap = guest(
        r#"(import "leanvibe:policy/request@0.1.0" "path-with-query" (func $path (param i32)))"#,
        "",
        "(call $path (i32.const 128)) \
         (if (i32.gt_u (i32.load (i32.const 132)) (i32.const 60)) (then unreachable)) \
         (i32.const 64)",
    );
    push(world.control(), &acme, "brittle", &trap).await;
    let long = format!("/{}", "x".repeat(80));
    acme.get("/").await.expect(200);
    assert_eq!(acme.get(&long).await.expect(503).code(), "policy-unavailable");
    let path = format!("{}/brittle/config", plugins_of(&acme));
    let open = json!({"config": {}, "on_failure": "open"});
    world.admin("PUT", &path, Some(open)).await.expect(200);
    acme.get(&long).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_swaps_under_load_fail_no_request_and_leave_no_version_behind() {
    // A process of its own: other tests do not grow it.
    let dir = tempfile::tempdir().expect("a folder");
    let origin = Origin::start("all").await;
    prepare_policies(dir.path(), &origin);
    let edge = EdgeProcess::serve(dir.path()).await;
    let process = edge.child.id().expect("a living process");
    let tenant = json!({
        "organization_name": "S", "slug": "swapped", "admin_email": "s@s.example",
        "plan": "enterprise", "data_residency": "us",
    });
    call(edge.control, "/api/v1/admin/tenants", tenant).await.expect(201);
    let path = "/api/v1/admin/plugins";
    let (one, two) = (responder(418), responder(451));
    let first: [(&str, &[u8]); 2] = [("name", b"swap"), ("component", &one)];
    post_form(edge.control, path, &first).await.expect(201);
    let second: [(&str, &[u8]); 2] = [("component", &two), ("activate", b"true")];
    post_form(edge.control, &format!("{path}/swap/versions"), &second).await.expect(201);
    let (stop, data) = (Arc::new(AtomicBool::new(false)), edge.edge);
    let stopped = Arc::clone(&stop);
    let load = tokio::spawn(async move {
        let mut seen = [0_u64; 2];
        while !stopped.load(Ordering::SeqCst) {
            match get(data).await {
                418 => seen[0] += 1,
                451 => seen[1] += 1,
                other => panic!("answered {other}"),
            }
        }
        seen
    });
    let mut early = 0;
    for swap in 0..SWAPS {
        let version = swap % 2 + 1;
        let body = json!({"version": version});
        call(edge.control, &format!("{path}/swap/activate"), body).await.expect(200);
        assert_eq!(get(data).await, if version == 1 { 418 } else { 451 });
        if swap == SWAPS / 3 {
            early = resident_kib(process);
        }
    }
    stop.store(true, Ordering::SeqCst);
    let seen = load.await.expect("no panic");
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
    let late = resident_kib(process);
    assert!(late < early + GROWTH_KIB_MAX, "{early} KiB became {late} KiB");
}

/// The status that the tenant `swapped` gets.
async fn get(edge: Client) -> u16 {
    let request = Client::request("GET", "/", "swapped.localhost").body(Default::default());
    edge.send(request.expect("a request")).await.status.as_u16()
}

/// Posts JSON to the control API.
async fn call(control: Client, path: &str, body: Value) -> Reply {
    let request = Client::request("POST", path, "control.test")
        .header("authorization", format!("Bearer {ADMIN_TOKEN}"))
        .header("content-type", "application/json")
        .body(Full::new(body.to_string().into()));
    control.send(request.expect("a request")).await
}

/// Anonymous memory of a process.
fn resident_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("procfs");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("RssAnon");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}
