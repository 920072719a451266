//! What time does to a tenant, as the edge serves it; and how well it is.

use std::sync::Arc;

use model::clock::{Clock, UnixMs};
use serde_json::{Value, json};

use crate::actors::{Client, TenantActor, World, WorldOptions, eventually};

const HOUR_MS: u64 = 3_600_000;
const TRIAL_MS: u64 = model::tenant::TRIAL_DAYS * 24 * HOUR_MS;

fn path(tenant: &TenantActor) -> String {
    format!("/api/v1/admin/tenants/{}", tenant.id)
}

async fn read(world: &World, tenant: &TenantActor) -> Value {
    world.admin("GET", &path(tenant), None).await.expect(200).json()
}

/// The time in some hours, as the API takes it.
fn in_hours(world: &World, hours: u64) -> String {
    let now: UnixMs = world.clock.now();
    now.plus_ms(hours * HOUR_MS).rfc3339()
}

/// Waits until the edge serves the tenant under a quota of calls.
async fn has_quota(tenant: &TenantActor, calls: u64) {
    let shown = format!("q={calls};");
    eventually(&format!("a quota of {calls}"), || async {
        let reply = tenant.get("/").await.expect(200);
        reply.header("ratelimit-policy").contains(&shown).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_override_begins_and_ends_at_its_dates_without_anybody_asking() {
    let world = World::start().await;
    let acme = world.tenant("acme", "team", "us").await;
    let list = json!({"overrides": [{
        "metric": "max_api_calls_per_month", "value": 123_456, "reason": "a campaign",
        "effective_from": in_hours(&world, 1), "effective_until": in_hours(&world, 2),
    }]});
    let overrides = format!("{}/overrides", path(&acme));
    let set = world.admin("PUT", &overrides, Some(list)).await.expect(200).json();
    assert_eq!(set["in_force"], json!({}));
    has_quota(&acme, 100_000).await;
    world.clock.advance_ms(HOUR_MS);
    has_quota(&acme, 123_456).await;
    assert_eq!(read(&world, &acme).await["quotas"]["max_api_calls_per_month"], 123_456);
    world.clock.advance_ms(HOUR_MS);
    has_quota(&acme, 100_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_changes_at_its_time_and_the_edge_serves_its_features() {
    let world = World::start().await;
    let solo = world.tenant("solo", "developer", "uk").await;
    solo.get("/sso/login").await.expect(403);
    let changes = format!("{}/plan-changes", path(&solo));
    let asked = json!({"plan": "team", "effective_at": in_hours(&world, 1)});
    world.admin("POST", &changes, Some(asked)).await.expect(201);
    solo.get("/sso/login").await.expect(403);
    world.clock.advance_ms(HOUR_MS);
    eventually("the plan has changed", || async {
        (solo.get("/sso/login").await.status == 200).then_some(())
    })
    .await;
    let list = world.admin("GET", &changes, None).await.expect(200).json();
    assert_eq!(list["items"][0]["state"], "applied");
    let tenant = read(&world, &solo).await;
    assert_eq!((&tenant["plan"], &tenant["plan_version"]), (&"team".into(), &1.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_ends_at_the_edge_at_once_and_in_the_status_soon() {
    let world = World::start().await;
    let acme = world.tenant("acme", "team", "us").await;
    acme.get("/").await.expect(200);
    world.clock.advance_ms(TRIAL_MS);
    assert_eq!(acme.get("/").await.expect(403).code(), "trial-expired");
    let over = eventually("the tenant is suspended", || async {
        let tenant = read(&world, &acme).await;
        (tenant["status"] == "suspended").then_some(tenant)
    })
    .await;
    assert_eq!(over["suspend_reason"], "trial_expired");
    world.admin("PATCH", &path(&acme), Some(json!({"status": "active"}))).await.expect(200);
    acme.get("/").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_goes_on_as_developer_where_that_is_configured() {
    let config = "[control]\ntrial_end = \"developer\"".to_owned();
    let world = World::with(WorldOptions { config, prepare: None }).await;
    let acme = world.tenant("acme", "team", "us").await;
    world.clock.advance_ms(TRIAL_MS);
    eventually("the tenant goes on", || async {
        (acme.get("/").await.status == 200).then_some(())
    })
    .await;
    let tenant = read(&world, &acme).await;
    assert_eq!((&tenant["status"], &tenant["plan"]), (&"active".into(), &"developer".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_of_a_tenant_has_the_guides_shape() {
    let world = World::start().await;
    let acme = world.tenant("acme", "team", "us").await;
    let path = format!("/health/tenant/{}", acme.id);
    let health = world.admin("GET", &path, None).await.expect(200).json();
    assert_eq!(health["tenant_id"], acme.id.as_str());
    assert_eq!(health["status"], "healthy", "{health}");
    for check in ["database_connection", "cache_availability", "quota_status", "billing_status"] {
        assert_eq!(health["checks"][check]["status"], "healthy", "{check}: {health}");
    }
    let open = Client::request("GET", &path, "control.test").body(Default::default());
    world.control().send(open.expect("a request")).await.expect(401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_edge_says_so() {
    let mut world = World::start().await;
    let acme = world.tenant("acme", "team", "us").await;
    let control = world.control();
    let ready = || async {
        let request = Client::request("GET", "/readyz", "control.test").body(Default::default());
        control.send(request.expect("a request")).await
    };
    assert_eq!(ready().await.expect(200).json()["status"], "ready");
    let before = world.arrivals();
    let hanging = {
        let acme = Arc::new(acme);
        tokio::spawn(async move { acme.send("GET", "/", &[("x-origin-do", "hang")], "").await })
    };
    eventually("an exchange is in flight", || async { (world.arrivals() > before).then_some(()) })
        .await;
    let running = world.running.take().expect("the program runs");
    let stopping = tokio::spawn(running.stop());
    eventually("it drains", || async {
        let reply = ready().await;
        (reply.status == 503).then(|| assert_eq!(reply.json()["status"], "draining"))
    })
    .await;
    // The client goes away, and with it what the stop waits for.
    hanging.abort();
    stopping.await.expect("no panic").expect("a clean stop");
}
