//! Several edges on one database: what one is given, all of them run.

use std::path::Path;

use super::{plugins_of, push, push_next};
use crate::actors::responder;
use crate::actors::{World, WorldOptions, eventually};

/// An edge on a database, a Redis and keys that it shares.
async fn edge(url: &str, keys: &Path, name: &str) -> World {
    let redis = services::redis().url();
    let config = format!(
        "[store]\nurl = \"{url}\"\n[quota]\nurl = \"{redis}\"\nedge = \"{name}-{}\"\n\
         [data]\nkeys_dir = \"{}\"\n",
        std::process::id(),
        keys.display()
    );
    World::with(WorldOptions { config, prepare: None }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_edge_follows_every_activation_and_rollback() {
    let url = services::postgres().database();
    let keys = tempfile::tempdir().expect("a folder");
    let first = edge(&url, keys.path(), "first").await;
    let second = edge(&url, keys.path(), "second").await;
    let acme = first.tenant("acme", "team", "us").await;
    let there = acme.at(second.edge());
    let seen = async |status: u16| {
        eventually("the second edge follows", || async {
            (there.get("/").await.status == status).then_some(())
        })
        .await;
    };
    push(first.control(), &acme, "gate", &responder(418)).await;
    seen(418).await;
    push_next(second.control(), &acme, "gate", &responder(451)).await;
    seen(451).await;
    eventually("so does the first", || async { (acme.get("/").await.status == 451).then_some(()) })
        .await;
    let rollback = format!("{}/gate/rollback", plugins_of(&acme));
    first.admin("POST", &rollback, None).await.expect(200);
    seen(418).await;
}
