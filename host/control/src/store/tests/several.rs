use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use model::{clock::ManualClock, directory::Directory, secret::Secret};
use services::Postgres;
use tokio::{sync::watch, time::timeout};

use super::{Actor, new, tenant, two_tenants};
use crate::{
    store::{CreateError, Store, TenantPatch},
    testing::{Backend, Database},
};

/// Long enough for every machine that is not broken.
const EVENTUALLY: Duration = Duration::from_secs(60);

async fn eventually(
    directory: &mut watch::Receiver<Arc<Directory>>,
    holds: impl FnMut(&Arc<Directory>) -> bool,
) {
    let waiting = directory.wait_for(holds);
    drop(timeout(EVENTUALLY, waiting).await.expect("in time").expect("a store"));
}

fn has(slug: &str) -> impl FnMut(&Arc<Directory>) -> bool {
    move |directory| directory.records().any(|held| held.tenant.slug.as_str() == slug)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_change_reaches_another_process() {
    let database = Backend::Postgres.database();
    let (here, there) = (database.open().await, database.open().await);
    let mut directory = there.directory();
    let one = tenant(&here, "one").await;
    eventually(&mut directory, |directory| {
        directory.records().any(|record| record.secrets.len() == 3)
    })
    .await;
    let key = here.issue_api_key(&Actor::Program, one.id, None).await.expect("a key");
    eventually(&mut directory, |directory| directory.keys().count() == 1).await;
    here.revoke_api_key(&Actor::Program, one.id, &key.id).await.expect("a revocation");
    eventually(&mut directory, |directory| directory.keys().next().is_none()).await;
    let patch = TenantPatch { plan: Some("free".to_owned()), ..TenantPatch::default() };
    there.patch_tenant(&Actor::Program, one.id, patch, None).await.expect("a patch");
    eventually(&mut here.directory(), |held| {
        held.records().all(|record| record.tenant.plan == "free")
    })
    .await;
    assert_eq!(here.directory().borrow().version, directory.borrow().version);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_nobody_announced_is_found_by_looking() {
    let (database, store, [one, two]) = two_tenants().await;
    let Database::Postgres(url) = &database else { panic!("PostgreSQL") };
    services::postgres().superuser(
        url,
        "UPDATE edge.directory_head SET revision = revision + 1;
         UPDATE edge.tenant SET plan = 'free', revision = (SELECT revision FROM edge.directory_head)
         WHERE slug = 'two'",
    );
    let plan_of = |held: &Directory, id| held.record(id).map(|record| record.tenant.plan.clone());
    let free = Some("free".to_owned());
    eventually(&mut store.directory(), |held| plan_of(held, two) == free).await;
    assert_eq!(plan_of(&store.directory().borrow(), one).as_deref(), Some("team"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_changes_at_once_are_published_as_they_are_stored() {
    let database = Backend::Postgres.database();
    let (here, there) = (database.open().await, database.open().await);
    let slugs: Vec<_> = (0..200).map(|n| format!("t{n}")).collect();
    let both = [&here, &there];
    join_all(
        slugs
            .iter()
            .enumerate()
            .map(|(n, slug)| both[n % 2].create_tenant(&Actor::Program, new(slug))),
    )
    .await;
    for store in both {
        eventually(&mut store.directory(), |held| held.tenants.len() == slugs.len()).await;
    }
    assert_eq!(here.directory().borrow().version, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_creates_of_one_slug_by_two_processes_one_succeeds() {
    let database = Backend::Postgres.database();
    let both = [database.open().await, database.open().await];
    let creates = (0..100).map(|n| both[n % 2].create_tenant(&Actor::Program, new("one")));
    let outcomes = join_all(creates).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    let taken = |outcome: &&Result<_, _>| matches!(outcome, Err(CreateError::SlugTaken(_)));
    assert_eq!(outcomes.iter().filter(taken).count(), 99);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_by_two_processes_lose_nothing_of_each_other() {
    let (database, here, [one, _]) = two_tenants().await;
    let there = database.open().await;
    let both = [&here, &there];
    let before = here.tenant(one).await.expect("a store").expect("a tenant").tenant.version;
    let changes = (0..40).map(|n| {
        let name = format!("name{n}");
        async move { both[n % 2].put_secret(&Actor::Program, one, &name, Secret::new("x")).await }
    });
    join_all(changes).await.into_iter().for_each(|outcome| outcome.expect("a change"));
    let stored = here.tenant(one).await.expect("a store").expect("a tenant");
    assert_eq!(stored.tenant.version, before + 40);
    assert_eq!(stored.secret_names.len(), 43);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_version_never_replaces_a_newer_one() {
    let (database, here, [one, _]) = two_tenants().await;
    let there = database.open().await;
    let mut directory = there.directory();
    let watching = tokio::spawn(async move {
        let (mut last, mut seen) = (0, 0);
        loop {
            let (version, tenant) = {
                let directory = directory.borrow_and_update();
                (directory.version, directory.record(one).map(|held| held.tenant.version))
            };
            assert!(version > last && tenant >= Some(seen), "{version} after {last}");
            (last, seen) = (version, tenant.unwrap_or(0));
            if seen >= 44 {
                return;
            }
            directory.changed().await.expect("a store");
        }
    });
    // Both processes change, and each one also looks all the time.
    let changes = (0..40).map(|n| {
        let store = if n % 2 == 0 { &here } else { &there };
        let (looking, name) = (there.published.catch_up(), format!("name{n}"));
        let change = store.put_secret(&Actor::Program, one, "x", Secret::new(name));
        async move { tokio::join!(change, looking) }
    });
    for (change, looking) in join_all(changes).await {
        change.expect("a change");
        looking.expect("a look");
    }
    timeout(EVENTUALLY, watching).await.expect("in time").expect("no step back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_start_at_once_migrate_once() {
    let database = Backend::Postgres.database();
    let stores = join_all((0..5).map(|_| database.open())).await;
    tenant(&stores[0], "one").await;
    eventually(&mut stores[4].directory(), has("one")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_database_is_away_the_last_directory_stays_and_then_catches_up() {
    let cluster = Postgres::start();
    let url = cluster.database();
    let open =
        || Store::open_with_keys(&url, Arc::new(ManualClock::default()), crate::testing::keys());
    let (here, there) = (open().await.expect("a store"), open().await.expect("a store"));
    tenant(&here, "one").await;
    let mut directory = there.directory();
    eventually(&mut directory, has("one")).await;
    cluster.stop();
    here.create_tenant(&Actor::Program, new("two")).await.expect_err("no database");
    assert_eq!(there.tenant_count(), 1);
    cluster.resume();
    while here.create_tenant(&Actor::Program, new("two")).await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    eventually(&mut directory, has("two")).await;
    assert_eq!(there.tenant_count(), 2);
}
