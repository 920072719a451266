//! What breaks, and what stands: kill -9, restarts, taken ports, signals.

use std::time::Duration;

use serde_json::json;

use crate::actors::{
    ADMIN_TOKEN, Client, EdgeProcess, Origin, Reply, World, WorldOptions, binary, eventually,
    prepare_policies,
};

/// Longest that a supervisor waits for the next word.
const SUPERVISOR_WAIT: Duration = Duration::from_secs(30);

async fn api(client: Client, method: &str, path: &str, body: serde_json::Value) -> Reply {
    let request = Client::request(method, path, "control.test")
        .header("authorization", format!("Bearer {ADMIN_TOKEN}"))
        .header("content-type", "application/json");
    client.send(request.body(body.to_string().into()).expect("a request")).await
}

async fn call(edge: Client, slug: &str) -> Option<u16> {
    let request =
        Client::request("GET", "/", &format!("{slug}.localhost")).body(Default::default());
    edge.try_send(request.expect("a request")).await.ok().map(|reply| reply.status.as_u16())
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_never_lets_more_through_than_the_plan_allows() {
    let dir = tempfile::tempdir().expect("a folder");
    let origin = Origin::start("us-east-1").await;
    prepare_policies(dir.path(), &origin);
    let limit = 60;

    let mut process = EdgeProcess::serve(dir.path()).await;
    let body = json!({
        "organization_name": "K", "slug": "killed", "admin_email": "k@k.example", "plan": "team",
        "data_residency": "us",
    });
    let created =
        api(process.control, "POST", "/api/v1/admin/tenants", body).await.expect(201).json();
    let path = format!("/api/v1/admin/tenants/{}", created["id"].as_str().expect("an id"));
    let quotas = json!({"quota_overrides": {"max_api_calls_per_month": limit}});
    api(process.control, "PATCH", &path, quotas).await.expect(200);
    eventually("the quota is in force", || async {
        let request = Client::request("GET", "/", "killed.localhost").body(Default::default());
        let reply = process.edge.send(request.expect("a request")).await;
        reply.header("ratelimit-policy").contains(&format!("q={limit}")).then_some(())
    })
    .await;

    for life in 0..4 {
        let edge = process.edge;
        let load = tokio::spawn(async move { while call(edge, "killed").await.is_some() {} });
        let mark = origin.arrivals();
        eventually("some requests pass, or the quota is used up", || async {
            let enough = origin.arrivals() >= mark + 5 || call(edge, "killed").await == Some(429);
            enough.then_some(())
        })
        .await;
        process.kill().await;
        load.await.expect("the load ends with the process");
        assert!(origin.arrivals() <= limit, "life {life}: {} arrivals", origin.arrivals());
        process = EdgeProcess::serve(dir.path()).await;
    }
    // What no life spent is still there: the lease file was inherited each time.
    eventually("the quota is used up", || async {
        (call(process.edge, "killed").await == Some(429)).then_some(())
    })
    .await;
    let arrived = origin.arrivals();
    assert!(arrived <= limit, "{arrived} arrivals of {limit}");
    // In-flight requests of the killed lives stay charged though they may not have left:
    // one a life at most, by the one load task and the one probe beside it.
    assert!(arrived + 8 >= limit, "{arrived} of {limit}: quota was wasted");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_drains_and_exits_0() {
    let dir = tempfile::tempdir().expect("a folder");
    let origin = Origin::start("us-east-1").await;
    prepare_policies(dir.path(), &origin);
    let mut process = EdgeProcess::serve(dir.path()).await;
    let body = json!({
        "organization_name": "D", "slug": "drained", "admin_email": "d@d.example", "plan": "team",
        "data_residency": "us",
    });
    api(process.control, "POST", "/api/v1/admin/tenants", body).await.expect(201);
    let edge = process.edge;
    eventually("it serves", || async { (call(edge, "drained").await == Some(200)).then_some(()) })
        .await;
    let before = origin.arrivals();
    let slow = tokio::spawn(async move {
        let request =
            Client::request("GET", "/", "drained.localhost").header("x-origin-do", "delay=700");
        edge.try_send(request.body(Default::default()).expect("a request")).await
    });
    eventually("the slow request is in flight", || async {
        (origin.arrivals() > before).then_some(())
    })
    .await;
    process.signal("TERM").await;
    let answered = slow.await.expect("no panic").expect("the exchange in flight is finished");
    assert_eq!(answered.status, 200);
    let status = process.child.wait().await.expect("an end");
    assert_eq!(status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_reloads_the_policies() {
    let dir = tempfile::tempdir().expect("a folder");
    let origin = Origin::start("us-east-1").await;
    prepare_policies(dir.path(), &origin);
    let process =
        EdgeProcess::serve_with(dir.path(), &[("LEANVIBE_EDGE__POLICIES__WATCH", "false")]).await;
    let plans = dir.path().join("policies/plans.toml");
    let text = std::fs::read_to_string(&plans).expect("text");
    std::fs::write(&plans, text.replace("100000", "100001")).expect("a file");
    process.signal("HUP").await;
    eventually("the plan changed", || async {
        let body = json!({
            "organization_name": "H", "slug": "hup", "admin_email": "h@h.example", "plan": "team",
            "data_residency": "us",
        });
        api(process.control, "POST", "/api/v1/admin/tenants", body).await;
        let list = api(process.control, "GET", "/api/v1/admin/tenants", json!({})).await.text();
        list.contains("100001").then_some(())
    })
    .await;
}

/// What a supervisor is told next, without the lines that are only for people.
async fn told(supervisor: &tokio::net::UnixDatagram) -> Vec<String> {
    let mut datagram = vec![0; 4096];
    let read = tokio::time::timeout(SUPERVISOR_WAIT, supervisor.recv(&mut datagram)).await;
    let length = read.expect("the supervisor is told").expect("a datagram");
    let text = std::str::from_utf8(&datagram[..length]).expect("text");
    text.lines().filter(|line| !line.starts_with("STATUS=")).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_is_told_of_readiness_reloads_and_the_end() {
    let dir = tempfile::tempdir().expect("a folder");
    let origin = Origin::start("us-east-1").await;
    prepare_policies(dir.path(), &origin);
    let socket = dir.path().join("notify");
    let supervisor = tokio::net::UnixDatagram::bind(&socket).expect("a socket");
    let socket = socket.display().to_string();
    let mut process = EdgeProcess::serve_with(dir.path(), &[("NOTIFY_SOCKET", &socket)]).await;
    assert_eq!(told(&supervisor).await, ["READY=1"]);
    process.signal("HUP").await;
    let reloading = told(&supervisor).await;
    assert_eq!(reloading.first().map(String::as_str), Some("RELOADING=1"));
    assert!(reloading.iter().any(|line| line.starts_with("MONOTONIC_USEC=")), "{reloading:?}");
    assert_eq!(told(&supervisor).await, ["READY=1"]);
    process.signal("TERM").await;
    assert_eq!(told(&supervisor).await, ["STOPPING=1"]);
    assert_eq!(process.child.wait().await.expect("an end").code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_one_clear_line() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = taken.local_addr().expect("an address");
    for section in ["edge", "control"] {
        let options =
            WorldOptions { config: format!("[{section}]\nlisten = \"{addr}\""), prepare: None };
        let error = World::start_error(options).await;
        assert!(error.contains(&addr.to_string()), "{section}: {error}");
        assert_eq!(error.lines().count(), 1, "{section}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_data_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let origin = Origin::start("us-east-1").await;
    prepare_policies(dir.path(), &origin);
    let _first = EdgeProcess::serve(dir.path()).await;
    let second = tokio::process::Command::new(binary())
        .arg("serve")
        .env("LEANVIBE_EDGE__EDGE__LISTEN", "127.0.0.1:0")
        .env("LEANVIBE_EDGE__CONTROL__LISTEN", "127.0.0.1:0")
        .env("LEANVIBE_EDGE__POLICIES__DIR", dir.path().join("policies"))
        .env("LEANVIBE_EDGE__DATA__DIR", dir.path().join("data"))
        .output()
        .await
        .expect("a process");
    assert_eq!(second.status.code(), Some(1));
    let error = String::from_utf8_lossy(&second.stderr);
    assert_eq!(
        error.lines().filter(|line| line.starts_with("leanvibe-edge:")).count(),
        1,
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_folder_with_typos_stops_the_start_with_every_problem() {
    let options = WorldOptions {
        config: String::new(),
        prepare: Some(Box::new(|policies| {
            let plans = policies.join("plans.toml");
            let text = std::fs::read_to_string(&plans).expect("text");
            std::fs::write(&plans, text.replacen("max_users", "max_usres", 1)).expect("a file");
            std::fs::write(policies.join("flags.json"), "{\"flags\": 3}").expect("a file");
            std::fs::write(
                policies.join("routes.toml"),
                "[[route]]\nname = \"x\"\npath = \"nope\"\n",
            )
            .expect("a file");
        })),
    };
    let error = World::start_error(options).await;
    for part in ["plans.toml: plan[0].quotas.max_usres", "flags.json", "routes.toml: route[0].path"]
    {
        assert!(error.contains(part), "{part} in {error}");
    }
}
