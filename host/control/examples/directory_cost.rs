//! Prints what the directory of 100,000 tenants with a key each costs on a private
//! PostgreSQL: the start of a process, a change, and its way to another process.

#![allow(clippy::expect_used, clippy::print_stdout, missing_docs, reason = "a measurement")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use control::{
    Actor, Store,
    store::{NewTenant, TenantPatch},
};
use model::clock::SystemClock;

const CHANGES: usize = 200;

const FILL: &str = "
    INSERT INTO edge.tenant (id, slug, organization_name, display_name, admin_email, plan,
        data_residency, status, created_at, version)
    SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(t), 12, '0'))::uuid, 't' || t,
        'Tenant ' || t, 'Tenant ' || t, 'admin@example.com', 'team', 'eu', 'active', 0, 1
    FROM generate_series(1, 100000) t;
    INSERT INTO edge.api_key (tenant_id, id, hash, created_at)
    SELECT id, 'key' || slug, sha256(slug::bytea), 0 FROM edge.tenant;
    ANALYZE edge.tenant, edge.api_key;";

#[tokio::main]
async fn main() {
    let cluster = services::postgres();
    let url = cluster.database();
    let open =
        || async { Store::open(&url, Arc::new(SystemClock::default())).await.expect("a store") };
    open().await.close().await;
    cluster.superuser(&url, FILL);
    let begun = Instant::now();
    let here = open().await;
    println!("start with {} tenants: {:?}", here.tenant_count(), begun.elapsed());
    let there = open().await;
    let (mut own, mut others) = (Vec::new(), Vec::new());
    for n in 0..CHANGES {
        let mut directory = there.directory();
        let begun = Instant::now();
        let tenant = here.create_tenant(&Actor::Program, new(n)).await.expect("a tenant");
        own.push(begun.elapsed());
        let known = directory.wait_for(|held| held.record(tenant.id).is_some());
        drop(known.await.expect("a store"));
        others.push(begun.elapsed());
    }
    println!("a create, published here: {}", spread(own));
    println!("a create, published there: {}", spread(others));
    let id = here.directory().borrow().records().next().expect("a tenant").tenant.id;
    let begun = Instant::now();
    let changes: Vec<_> = (0..CHANGES)
        .map(|n| {
            let store = Arc::clone(if n % 2 == 0 { &here } else { &there });
            let plan = Some(format!("plan{n}"));
            let patch = TenantPatch { plan, ..TenantPatch::default() };
            tokio::spawn(async move { store.patch_tenant(&Actor::Program, id, patch, None).await })
        })
        .collect();
    for change in changes {
        change.await.expect("a task").expect("a change");
    }
    println!("{CHANGES} changes by two processes at once: {:?}", begun.elapsed());
}

fn new(n: usize) -> NewTenant {
    NewTenant {
        slug: format!("new-{n}").parse().expect("a slug"),
        organization_name: "New".to_owned(),
        display_name: None,
        admin_email: "a@b.example".to_owned(),
        plan: "team".to_owned(),
        data_residency: Some("eu".to_owned()),
        home_region: None,
        parent: None,
        quota_anchor: None,
    }
}

fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
    format!("p50 {:?}, p99 {:?}", at(50), at(99))
}
