//! Concurrent sessions, as the shipped declarations count them: by a cookie, on all routes.

use std::path::Path;

use http_body_util::Full;
use serde_json::{Value, json};

use crate::actors::{
    ADMIN_TOKEN, Client, EdgeProcess, Origin, Reply, TenantActor, World, WorldOptions, eventually,
    prepare_policies,
};

/// What the shipped `routes.toml` reads sessions from.
const COOKIE: &str = "session_id";
/// Ms between two heartbeats.
const HEARTBEAT_MS: u64 = model::sessions::HEARTBEAT_MS;

async fn visit(tenant: &TenantActor, session: &str) -> Reply {
    try_visit(tenant, session).await.expect("an answer")
}

/// A visit whose answer may be cut, as those in flight of an evicted session are.
async fn try_visit(tenant: &TenantActor, session: &str) -> anyhow::Result<Reply> {
    let cookie = format!("theme=dark; {COOKIE}={session}");
    tenant.try_send("GET", "/", &[("cookie", &cookie)], "").await
}

async fn alive(world: &World, tenant: &TenantActor) -> Value {
    world.usage(tenant).await["current_usage"]["concurrent_sessions"].clone()
}

async fn allow(world: &World, tenant: &TenantActor, sessions: u64) {
    let path = format!("/api/v1/admin/tenants/{}", tenant.id);
    let quotas = json!({"quota_overrides": {"max_concurrent_sessions": sessions}});
    world.admin("PATCH", &path, Some(quotas)).await.expect(200);
    let snapshots = world.running.as_ref().expect("running").snapshots.clone();
    eventually("the quota is in force", || async {
        let snapshot = snapshots.borrow();
        let entry = snapshot.tenant_by_slug(&tenant.slug)?;
        (entry.quotas.max_concurrent_sessions == sessions).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_login_on_the_developer_plan_gets_429_and_usage_shows_two() {
    let world = World::start().await;
    let tenant = world.tenant("solo", "developer", "us").await;
    for session in ["laptop", "phone", "laptop"] {
        visit(&tenant, session).await.expect(200);
    }
    let refused = visit(&tenant, "tablet").await.expect(429);
    assert_eq!(refused.header("retry-after"), "5");
    assert_eq!(refused.header("content-type"), "application/problem+json");
    let problem = refused.json();
    assert_eq!(problem["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!(problem["title"], "Concurrent session quota exceeded");
    assert_eq!(problem["violated-policies"], json!(["concurrent-sessions"]));
    assert_eq!(problem["retry_after"], 5);
    assert_eq!(problem["quota_limit"], 2);
    assert_eq!(problem["upgrade_options"], json!(["team", "enterprise"]));
    tenant.get("/").await.expect(200);
    visit(&tenant, "phone").await.expect(200);
    let usage = world.usage(&tenant).await;
    assert_eq!(usage["current_usage"]["concurrent_sessions"], 2);
    assert_eq!(usage["utilization_percentages"]["concurrent_sessions"], 100.0);
    assert_eq!(usage["current_usage"]["api_calls_this_month"], 5, "the refused one is not charged");
    assert_eq!(world.arrivals(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logout_frees_its_slot_before_it_is_answered() {
    let world = World::start().await;
    let tenant = world.tenant("leaver", "developer", "us").await;
    let cookie = format!("{COOKIE}=laptop");
    let logout = async |wish: &str| {
        let fields = [("cookie", cookie.as_str()), ("x-origin-do", wish)];
        tenant.send("POST", "/api/v1/auth/logout", &fields, "").await
    };
    for session in ["laptop", "phone"] {
        visit(&tenant, session).await.expect(200);
    }
    logout("status=500").await.expect(500);
    visit(&tenant, "tablet").await.expect(429);
    logout("").await.expect(200);
    assert_eq!(alive(&world, &tenant).await, 1);
    visit(&tenant, "tablet").await.expect(200);
    visit(&tenant, "laptop").await.expect(429);
    logout("").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_keep_sessions_between_requests_and_without_them_slots_are_free() {
    let world = World::start().await;
    let tenant = world.tenant("reader", "developer", "us").await;
    for session in ["laptop", "phone"] {
        visit(&tenant, session).await.expect(200);
    }
    let renewed = async || {
        let metrics = world.admin("GET", "/metrics", None).await.text();
        let series = "edge_session_renewals_total{outcome=\"renewed\"} ";
        let line = metrics.lines().find_map(|line| line.strip_prefix(series));
        line.and_then(|count| count.parse::<u64>().ok()).expect("a count")
    };
    for _ in 0..4 {
        let before = renewed().await;
        world.clock.advance_ms(HEARTBEAT_MS);
        eventually("both are renewed", || async { (renewed().await >= before + 2).then_some(()) })
            .await;
    }
    assert_eq!(alive(&world, &tenant).await, 2, "longer than a registry keeps the dead");
    visit(&tenant, "tablet").await.expect(429);
    // An edge that stood still for so long has lost them, and everybody may come anew.
    world.clock.advance_ms(model::sessions::TTL_MS);
    visit(&tenant, "tablet").await.expect(200);
    visit(&tenant, "laptop").await.expect(200);
    visit(&tenant, "phone").await.expect(429);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raised_quota_admits_at_once_and_a_lowered_one_ends_nobody() {
    let world = World::start().await;
    let tenant = world.tenant("grower", "developer", "us").await;
    for session in ["laptop", "phone"] {
        visit(&tenant, session).await.expect(200);
    }
    visit(&tenant, "tablet").await.expect(429);
    allow(&world, &tenant, 3).await;
    visit(&tenant, "tablet").await.expect(200);
    allow(&world, &tenant, 1).await;
    for session in ["laptop", "phone", "tablet"] {
        visit(&tenant, session).await.expect(200);
    }
    visit(&tenant, "watch").await.expect(429);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_logins_at_once_get_exactly_the_quota() {
    let world = World::start().await;
    let tenant = world.tenant("rush", "team", "us").await;
    let mut logins = Vec::new();
    for number in 0..40 {
        let tenant = tenant.clone();
        logins.push(tokio::spawn(async move {
            visit(&tenant, &format!("s{number}")).await.status.as_u16()
        }));
    }
    let mut statuses = Vec::new();
    for login in logins {
        statuses.push(login.await.expect("no panic"));
    }
    let count = |status| statuses.iter().filter(|got| **got == status).count();
    assert_eq!((count(200), count(429)), (10, 30), "{statuses:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_session_makes_room_where_the_declarations_say_so() {
    let prepare = |policies: &Path| {
        let file = policies.join("routes.toml");
        let text = std::fs::read_to_string(&file).expect("text");
        let rule = format!("session = {{ from = \"cookie:{COOKIE}\" }}");
        assert!(text.contains(&rule));
        let evicting = format!("session = {{ from = \"cookie:{COOKIE}\", evict_oldest = true }}");
        std::fs::write(&file, text.replacen(&rule, &evicting, 1)).expect("a file");
    };
    let options = WorldOptions { config: String::new(), prepare: Some(Box::new(prepare)) };
    let world = World::with(options).await;
    let tenant = world.tenant("mover", "developer", "us").await;
    for session in ["laptop", "phone", "tablet"] {
        visit(&tenant, session).await.expect(200);
    }
    assert_eq!(alive(&world, &tenant).await, 2);
    world.clock.advance_ms(HEARTBEAT_MS);
    eventually("the oldest hears of it with its heartbeat", || async {
        let reply = try_visit(&tenant, "laptop").await.ok()?;
        (reply.status == 429).then_some(())
    })
    .await;
    visit(&tenant, "phone").await.expect(200);
    visit(&tenant, "tablet").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_edge_leaves_no_session_behind() {
    let dir = tempfile::tempdir().expect("a folder");
    let origin = Origin::start("us-east-1").await;
    prepare_policies(dir.path(), &origin);
    let mut process = EdgeProcess::serve(dir.path()).await;
    let body = json!({
        "organization_name": "K", "slug": "killed", "admin_email": "k@k.example",
        "plan": "developer", "data_residency": "us",
    });
    let request = Client::request("POST", "/api/v1/admin/tenants", "control.test")
        .header("authorization", format!("Bearer {ADMIN_TOKEN}"))
        .header("content-type", "application/json")
        .body(Full::new(body.to_string().into()));
    process.control.send(request.expect("a request")).await.expect(201);
    let visit = async |edge: Client, session: &str| {
        let request = Client::request("GET", "/", "killed.localhost")
            .header("cookie", format!("{COOKIE}={session}"))
            .body(Full::default());
        edge.send(request.expect("a request")).await.status.as_u16()
    };
    for life in 0..2 {
        let (one, two) = (format!("{life}-one"), format!("{life}-two"));
        eventually("the edge knows the tenant", || async {
            (visit(process.edge, &one).await == 200).then_some(())
        })
        .await;
        assert_eq!(visit(process.edge, &two).await, 200);
        assert_eq!(visit(process.edge, "third").await, 429);
        process.kill().await;
        process = EdgeProcess::serve(dir.path()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_cannot_be_read_keeps_the_edge_from_starting() {
    let prepare = |policies: &Path| {
        let file = policies.join("routes.toml");
        let text = std::fs::read_to_string(&file).expect("text");
        let broken = text.replacen(&format!("cookie:{COOKIE}"), "cookies", 1);
        std::fs::write(&file, broken).expect("a file");
    };
    let options = WorldOptions { config: String::new(), prepare: Some(Box::new(prepare)) };
    let error = World::start_error(options).await;
    assert!(error.contains("session.from") && error.contains("cookie:NAME"), "{error}");
}
