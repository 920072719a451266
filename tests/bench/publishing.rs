//! How soon a change made at one edge is in force at another, with all tenants in place.
//!
//! Two edges on one PostgreSQL and one Redis. Each time is from the moment when the API's
//! answer at the first edge was read until a request to the second one is answered as the
//! change wants it; requests follow each other without a pause, so a figure is as exact as
//! one request is long. Every change of a kind is of another tenant.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{
    edge,
    scale::{Edge, spread},
    subject::Setup,
};

/// Changes of each kind.
const CHANGES: usize = 200;
/// A change that takes longer is lost: the poll below the push takes 2 s.
const LOST_AFTER: Duration = Duration::from_secs(20);

/// Prints how long creates, changes of plan and suspensions take to the other edge.
pub fn run(setup: &Setup, origin: SocketAddr, store: &str) -> Result<()> {
    let settings = [
        ("STORE__URL", store.to_owned()),
        ("QUOTA__URL", services::redis().url()),
        ("DATA__KEYS_DIR", setup.dir.join("keys").display().to_string()),
    ];
    let here = Edge::start(setup, origin, "here", &settings)?;
    let there = Edge::start(setup, origin, "there", &settings)?;
    let mut tenants = Vec::with_capacity(CHANGES);
    let created = times(|n| {
        let slug = format!("there-{n}");
        tenants.push((here.create(&slug)?, slug.clone()));
        in_force(&there, &slug, "/hello", 200)
    })?;
    let change = |n: usize, method: &str, path: &str, body: &str| -> Result<&str> {
        let (id, slug) = tenants.get(n).context("a tenant")?;
        let what = format!("{method} /api/v1/admin/tenants/{id}{path}");
        let answer = edge::exchange(here.control, &what, body)?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "{what}: {answer}");
        Ok(slug)
    };
    let planned = times(|n| {
        let slug = change(n, "PATCH", "", r#"{"plan":"developer"}"#)?;
        in_force(&there, slug, "/sso/login", 403)
    })?;
    let suspended = times(|n| {
        let slug = change(n, "POST", "/suspend", "{}")?;
        in_force(&there, slug, "/hello", 403)
    })?;
    println!("from the API's answer to the effect at another edge, {CHANGES} changes each:");
    println!("  create:         {}", spread(&created));
    println!("  change of plan: {}", spread(&planned));
    println!("  suspension:     {}", spread(&suspended));
    Ok(())
}

fn times(mut each: impl FnMut(usize) -> Result<Duration>) -> Result<Vec<Duration>> {
    (0..CHANGES).map(&mut each).collect()
}

/// Asks until the answer has that status; how long it took.
fn in_force(edge: &Edge, slug: &str, path: &str, status: u16) -> Result<Duration> {
    let begun = Instant::now();
    while edge.status(slug, path)? != status {
        ensure!(begun.elapsed() < LOST_AFTER, "{slug} does not get {status} at the other edge");
    }
    Ok(begun.elapsed())
}
