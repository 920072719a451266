//! Children that share their parent's calls.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use serde_json::json;

use crate::actors::{TenantActor, World, eventually};

const POOL: u64 = 30;
/// How often the world's clock moves, and by how much.
const TICK: Duration = Duration::from_millis(20);

async fn family(world: &World, shares: Option<serde_json::Value>) -> Vec<TenantActor> {
    let parent = world.tenant("holding", "enterprise", "us").await;
    let mut children = Vec::new();
    for slug in ["north", "south", "west"] {
        let child = json!({
            "slug": slug, "organization_name": slug, "admin_email": "a@b.example",
            "plan": "team", "data_residency": "us", "parent_tenant_id": parent.id,
        });
        children.push(world.create(child).await);
    }
    let mut pool = json!({ "total_calls_per_month": POOL });
    if let Some(shares) = shares {
        pool["child_allocations"] = shares;
    }
    let body = json!({ "resource_sharing": { "shared_api_call_pool": pool } });
    let path = format!("/api/v1/tenants/{}/pools", parent.id);
    world.admin("PUT", &path, Some(body)).await.expect(200);
    let snapshots = world.running.as_ref().expect("running").snapshots.clone();
    for child in &children {
        eventually("the pool is published", || async {
            let snapshot = snapshots.borrow();
            snapshot.tenant_by_slug(&child.slug)?.drawn[0].map(drop)
        })
        .await;
    }
    children.insert(0, parent);
    children
}

#[tokio::test(flavor = "multi_thread")]
async fn children_that_share_a_pool_of_calls_are_served_exactly_the_pool() {
    let world = World::start().await;
    let family = family(&world, None).await;
    // What one child has parked comes back to the others in time.
    let clock = Arc::clone(&world.clock);
    let ticking = tokio::spawn(async move {
        loop {
            tokio::time::sleep(TICK).await;
            clock.advance_ms(TICK.as_millis() as u64);
        }
    });
    let (mut served, mut refused) = (0, 0);
    let mut names = BTreeSet::new();
    while refused < 3 {
        refused = 0;
        for child in &family[1..] {
            let reply = child.get("/").await;
            assert!(matches!(reply.status.as_u16(), 200 | 429), "{reply:?}");
            if reply.status == 200 {
                served += 1;
                names.insert(reply.header("ratelimit-policy"));
            } else {
                // Asked to come back in a second, a child is not refused for good.
                refused += u64::from(reply.header("retry-after") != "1");
                tokio::time::sleep(TICK).await;
                let problem = reply.json();
                assert_eq!(problem["violated-policies"], json!(["monthly-api-pool"]));
                assert_eq!(problem["upgrade_options"], json!([]));
            }
        }
    }
    ticking.abort();
    assert_eq!(served, POOL);
    assert_eq!(world.arrivals() as u64, POOL);
    let shown = format!("\"monthly-api-pool\";q={POOL};w=2678400");
    assert!(names.iter().all(|name| name.contains(&shown)), "{names:?}");
    for child in &family[1..] {
        let usage = world.usage(child).await;
        assert_eq!(usage["pools"]["max_api_calls_per_month"]["limit"], POOL);
        assert_eq!(usage["pools"]["max_api_calls_per_month"]["pool_tenant_id"], family[0].id);
    }
    // What is left of its plan is the owner's own.
    family[0].get("/").await.expect(200);
    let path = format!("/api/v1/tenants/{}/pools", family[0].id);
    let pools = world.admin("GET", &path, None).await.expect(200).json();
    let pool = &pools["resource_sharing"]["shared_api_call_pool"];
    assert_eq!((&pool["used_calls"], &pool["committed_calls"]), (&json!(POOL), &json!(POOL)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guaranteed_share_of_calls_is_there_when_the_rest_is_used_up() {
    let world = World::start().await;
    let shares = json!({
        "north": { "allocated_calls": 12 }, "south": { "guaranteed_calls": 0 },
        "west": { "guaranteed_calls": 0 },
    });
    let family = family(&world, Some(shares)).await;
    let serve = async |child: &TenantActor| {
        let mut served = 0;
        while child.get("/").await.status == 200 {
            served += 1;
        }
        served
    };
    assert_eq!(serve(&family[2]).await, POOL - 12);
    assert_eq!(serve(&family[3]).await, 0);
    assert_eq!(serve(&family[1]).await, 12);
    assert_eq!(world.arrivals() as u64, POOL);
}
