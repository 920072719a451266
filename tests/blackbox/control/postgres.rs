//! The product on PostgreSQL instead of SQLite.

use serde_json::json;

use crate::{
    actors::{World, WorldOptions},
    quota::limited,
};

/// The options of a world on the database of a URL.
fn on(url: &str) -> WorldOptions {
    WorldOptions { config: format!("[store]\nurl = \"{url}\""), prepare: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_quota_is_exact_on_postgresql_and_a_restart_keeps_its_count() {
    let url = services::postgres().database();
    let mut world = World::with(on(&url)).await;
    let tenant = limited(&world, "stored", 10, 100).await;
    for _ in 0..4 {
        tenant.get("/").await.expect(200);
    }
    assert_eq!(world.usage(&tenant).await["current_usage"]["api_calls_this_month"], 4);
    world.stop().await;
    world.resume().await;
    let again = tenant.at(world.edge());
    for _ in 0..6 {
        again.get("/").await.expect(200);
    }
    again.get("/").await.expect(429);
    assert_eq!(world.arrivals(), 10, "exactly the quota reached an origin");
    let usage = world.usage(&tenant).await;
    assert_eq!(usage["current_usage"]["api_calls_this_month"], 10);
    assert_eq!(usage["utilization_percentages"]["api_calls"], json!(100.0));
    assert!(!world.dir.path().join("data/edge.db").exists(), "nothing is in a file");
    let granted = "SELECT granted - credited FROM edge.quota_window WHERE metric = 'api_calls'";
    assert_eq!(services::postgres().superuser(&url, granted), "10");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_edge_on_one_postgresql_is_refused_in_one_line() {
    let url = services::postgres().database();
    let keys = tempfile::tempdir().expect("a folder");
    let with_keys = || WorldOptions {
        config: format!("{}\n[data]\nkeys_dir = \"{}\"", on(&url).config, keys.path().display()),
        prepare: None,
    };
    let _first = World::with(with_keys()).await;
    let refused = World::start_error(with_keys()).await;
    assert!(refused.contains("another edge process"), "{refused}");
    assert_eq!(refused.lines().count(), 1, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_with_other_keys_than_the_databases_is_refused_in_one_line() {
    let url = services::postgres().database();
    let mut first = World::with(on(&url)).await;
    first.stop().await;
    let refused = World::start_error(on(&url)).await;
    assert!(refused.contains("data.keys_dir"), "{refused}");
    assert_eq!(refused.lines().count(), 1, "{refused}");
}
