//! While the database is away: what each plan wants of uploads then, on a PostgreSQL that the
//! test stops and starts.

use std::path::Path;

use services::Postgres;

use super::storage::with_routes;
use crate::actors::{TenantActor, World, WorldOptions, eventually};

/// Bytes of an upload: a megabyte, as usage shows them.
const UPLOAD: usize = 1 << 20;

/// The plan `team` lets calls and uploads through; every other plan says nothing, and refuses.
fn of_team(policies: &Path) {
    with_routes(policies);
    let file = policies.join("plans.toml");
    let text = std::fs::read_to_string(&file).expect("a file");
    let team = "max_concurrent_sessions = 10\n";
    assert!(text.contains(team), "the plan team");
    let loss = "[plan.on_authority_loss]\napi_calls = \"allow\"\nstorage = \"allow\"\n";
    std::fs::write(file, text.replacen(team, &format!("{team}\n{loss}"), 1)).expect("a file");
}

async fn put(tenant: &TenantActor) -> u16 {
    tenant.send("PUT", "/stored/a", &[], &"x".repeat(UPLOAD)).await.status.as_u16()
}

async fn stored_mb(world: &World, tenant: &TenantActor) -> u64 {
    let usage = world.usage(tenant).await;
    usage["current_usage"]["storage_used_mb"].as_u64().expect("a figure")
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_without_a_database_pass_where_the_plan_allows_it_and_are_counted_later() {
    let postgres = Postgres::start();
    let config =
        format!("[store]\nurl = \"{}\"\n[quota]\nadmit_wait_ms_max = 2000", postgres.database());
    let world = World::with(WorldOptions { config, prepare: Some(Box::new(of_team)) }).await;
    let open = world.tenant("open", "team", "us").await;
    let strict = world.tenant("strict", "developer", "us").await;
    for tenant in [&open, &strict] {
        eventually("both are served", || async { (put(tenant).await == 200).then_some(()) }).await;
    }
    eventually("what was stored is counted", || async {
        let counted = (stored_mb(&world, &open).await, stored_mb(&world, &strict).await);
        (counted == (1, 1)).then_some(())
    })
    .await;
    postgres.stop();
    let arrived = world.arrivals();
    assert_eq!(put(&open).await, 200);
    assert_eq!(put(&open).await, 200);
    assert_eq!(put(&strict).await, 503);
    assert_eq!(world.arrivals(), arrived + 2, "what is refused never arrives");
    postgres.resume();
    eventually("the journal reaches the database", || async {
        let reply = world.admin("GET", &format!("/api/v1/tenants/{}/usage", open.id), None).await;
        (reply.status == 200 && reply.json()["current_usage"]["storage_used_mb"] == 3).then_some(())
    })
    .await;
    eventually("and room is set aside again", || async {
        (put(&strict).await == 200).then_some(())
    })
    .await;
    assert_eq!(stored_mb(&world, &open).await, 3, "counted once");
    let metrics = world.admin("GET", "/metrics", None).await.expect(200).text();
    assert!(metrics.contains("\nedge_uploads_unreserved_total 2\n"), "{metrics}");
    let released = "edge_reservations_total{event=\"unavailable\",metric=\"storage\"}";
    assert!(metrics.lines().any(|line| line.starts_with(released)), "{metrics}");
}
