//! Rates over two edges: what a plan, or an operator for a policy, allows a second is for
//! all edges together.
//!
//! The bound is checked from outside: of requests sent in a span, no more than `burst +
//! per_second × span` are let through, the span taken from before the first was sent until
//! after the last was answered. So a slow machine makes a test weaker, and never fails it.

use std::{path::Path, time::Instant};

use crate::{
    actors::{Client, Site, TenantActor, eventually, prepare},
    policy::{declare, link},
    quota::rate::{counting, of_team},
};

/// Clients that ask at once, of each edge.
const CLIENTS: usize = 4;
/// Requests of one client.
const REQUESTS: usize = 30;

/// What was let through at each edge, and what may have been.
struct Passed {
    edges: [u64; 2],
    refused: [u64; 2],
    most: u64,
}

/// Asks both edges at once for more than the rate allows.
async fn hammer(site: &Site, tenant: &TenantActor, per_second: u64, burst: u64) -> Passed {
    let began = Instant::now();
    let client = |edge: Client| {
        let tenant = tenant.at(edge);
        tokio::spawn(async move {
            let (mut passed, mut refused) = (0, 0);
            for _ in 0..REQUESTS {
                match tenant.get("/").await.status.as_u16() {
                    200 => passed += 1,
                    429 => refused += 1,
                    other => panic!("answered with {other}"),
                }
            }
            (passed, refused)
        })
    };
    let clients: Vec<_> =
        (0..2 * CLIENTS).map(|number| (number % 2, client(site.edge(number % 2)))).collect();
    let mut found = Passed { edges: [0; 2], refused: [0; 2], most: 0 };
    for (edge, client) in clients {
        let (passed, refused) = client.await.expect("no panic");
        found.edges[edge] += passed;
        found.refused[edge] += refused;
    }
    let ms = u64::try_from(began.elapsed().as_millis()).expect("a span") + 1;
    found.most = burst + (per_second * ms).div_ceil(1000);
    found
}

impl Passed {
    fn all(&self) -> u64 {
        self.edges.iter().sum()
    }
}

/// Asserts that the store answered each time: an edge that goes by its own share may exceed.
async fn answered(site: &Site) {
    for edge in [0, 1] {
        assert!(site.metric(edge, "rate_store_calls_total").await > 0.0, "edge {edge}");
        assert_eq!(site.metric(edge, "rate_store_failures_total").await, 0.0, "edge {edge}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_edges_let_through_no_more_than_the_plans_rate() {
    let site = Site::with(prepare(|policies: &Path| of_team(policies, 20, 20))).await;
    let tenant = site.tenant("hasty", "team").await;
    // What was saved up may have been taken to find the tenant; then it fills again.
    let before = site.origin.arrivals() as u64;
    let passed = hammer(&site, &tenant, 20, 20).await;
    assert!(passed.all() <= passed.most, "{} of {}", passed.all(), passed.most);
    assert!(passed.all() > 0 && passed.refused.iter().sum::<u64>() > 0);
    assert_eq!(site.origin.arrivals() as u64 - before, passed.all(), "a refused one never arrives");
    answered(&site).await;
    for edge in [0, 1] {
        let here = tenant.at(site.edge(edge));
        eventually("what is earned is let through", || async {
            (here.get("/").await.status == 200).then_some(())
        })
        .await;
    }
    let used = site.usage(0, &tenant).await["api_calls_this_month"].as_u64().expect("a count");
    let arrived = site.origin.arrivals() as u64;
    eventually("the other edge's figures", || async {
        let used = site.usage(1, &tenant).await["api_calls_this_month"].as_u64();
        (used == Some(arrived)).then_some(())
    })
    .await;
    assert!(used <= arrived, "a refusal is not charged");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_limit_of_a_policy_is_one_for_both_edges_and_apart_for_every_tenant() {
    let site = Site::with(prepare(|policies: &Path| {
        let limits = "grants = [\"rate-limit\"]\n\
            [[rate_limit]]\nname = \"login\"\nper_second = 5\nburst = 10\n";
        declare(policies, "count", &counting(), limits);
        link(policies, "one", "count", "");
        link(policies, "two", "count", "");
    }))
    .await;
    let (one, two) = (site.tenant("one", "team").await, site.tenant("two", "team").await);
    for tenant in [&one, &two] {
        let passed = hammer(&site, tenant, 5, 10).await;
        assert!(passed.all() <= passed.most, "{} of {}", passed.all(), passed.most);
        assert!(passed.all() > 0 && passed.refused.iter().sum::<u64>() > 0);
    }
    answered(&site).await;
}
