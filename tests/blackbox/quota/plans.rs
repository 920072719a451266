//! Plans that change in the middle of a window.

use std::path::Path;

use serde_json::{Value, json};

use crate::actors::{TenantActor, World, WorldOptions};

/// Calls a month of the small plan and of the larger one.
const DEVELOPER: u64 = 3;
const TEAM: u64 = 5;

/// A world whose plans are used up soon.
async fn small_plans() -> World {
    let prepare = |policies: &Path| {
        let file = policies.join("plans.toml");
        let text = std::fs::read_to_string(&file).expect("text");
        let quota = "max_api_calls_per_month = ";
        let text = text
            .replace(&format!("{quota}10000\n"), &format!("{quota}{DEVELOPER}\n"))
            .replace(&format!("{quota}100000\n"), &format!("{quota}{TEAM}\n"));
        std::fs::write(&file, text).expect("a file");
    };
    World::with(WorldOptions { config: String::new(), prepare: Some(Box::new(prepare)) }).await
}

async fn patch(world: &World, tenant: &TenantActor, patch: Value) {
    let path = format!("/api/v1/admin/tenants/{}", tenant.id);
    world.admin("PATCH", &path, Some(patch)).await.expect(200);
}

async fn used(world: &World, tenant: &TenantActor) -> Value {
    world.usage(tenant).await["current_usage"]["api_calls_this_month"].clone()
}

/// Sends until it is refused; how many were served.
async fn served(tenant: &TenantActor) -> u64 {
    let mut served = 0;
    while tenant.get("/").await.status == 200 {
        served += 1;
    }
    tenant.get("/").await.expect(429);
    served
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_when_all_is_used_serves_the_next_request_and_resets_nothing() {
    let world = small_plans().await;
    let tenant = world.tenant("grower", "developer", "us").await;
    assert_eq!(served(&tenant).await, DEVELOPER);
    patch(&world, &tenant, json!({"plan": "team"})).await;
    tenant.get("/").await.expect(200);
    assert_eq!(served(&tenant).await, TEAM - DEVELOPER - 1);
    assert_eq!(used(&world, &tenant).await, TEAM);
    assert_eq!(world.arrivals() as u64, TEAM);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_downgrade_below_what_is_used_refuses_and_un_serves_nothing() {
    let world = small_plans().await;
    let tenant = world.tenant("shrinker", "team", "us").await;
    for _ in 0..4 {
        tenant.get("/").await.expect(200);
    }
    patch(&world, &tenant, json!({"plan": "developer"})).await;
    assert_eq!(served(&tenant).await, 0);
    assert_eq!(used(&world, &tenant).await, 4, "what was served stays served");
    patch(&world, &tenant, json!({"plan": "team"})).await;
    assert_eq!(served(&tenant).await, TEAM - 4, "and is not served again");
}
