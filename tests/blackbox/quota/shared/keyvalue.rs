//! Key-value data of a policy over two edges: one count for both, apart for every tenant, and
//! an error of the contract while Redis is gone.

use std::path::Path;

use crate::{
    actors::{Site, TenantActor, guest, prepare},
    policy::{declare, link},
};

/// What it answers, beside the count, when the data is not to be had: 500 and the case of the
/// contract's error.
const UNAVAILABLE: u16 = 502;

/// Answers 200 and how often it was called, by its data.
fn counting() -> Vec<u8> {
    let imports = r#"(import "leanvibe:policy/keyvalue@0.1.0" "increment"
        (func $increment (param i32 i32 i64 i32 i64 i32)))"#;
    let body = "(call $increment (i32.const 200) (i32.const 1) (i64.const 1)
            (i32.const 0) (i64.const 0) (i32.const 1024))
        (i32.store8 (i32.const 68) (i32.const 2))
        (i32.store16 (i32.const 72)
          (if (result i32) (i32.load8_u (i32.const 1024))
            (then (i32.add (i32.const 500) (i32.load8_u (i32.const 1032))))
            (else (i32.add (i32.const 200) (i32.load (i32.const 1032))))))
        (i32.const 64)";
    guest(imports, "k", body)
}

async fn counts(site: &Site, tenant: &TenantActor, edges: &[usize]) -> Vec<u16> {
    let mut found = Vec::new();
    for edge in edges {
        found.push(tenant.at(site.edge(*edge)).get("/").await.status.as_u16());
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn two_edges_count_together_and_apart_for_every_tenant() {
    let site = Site::with(prepare(|policies: &Path| {
        declare(policies, "count", &counting(), "grants = [\"keyvalue\"]\n");
        link(policies, "one", "count", "");
        link(policies, "two", "count", "");
    }))
    .await;
    for slug in ["one", "two"] {
        let tenant = site.tenant(slug, "team").await;
        // Waiting for the tenant asked each edge some times.
        let first = counts(&site, &tenant, &[0]).await[0];
        assert!(first > 200 && first < 300, "{first}");
        let next = counts(&site, &tenant, &[1, 0, 1]).await;
        assert_eq!(next, [first + 1, first + 2, first + 3], "{slug}");
    }
    let one = site.tenant("three", "team").await;
    assert_eq!(counts(&site, &one, &[0]).await, [200], "without the policy nothing is counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_a_policy_gets_the_contracts_error_and_the_request_goes_on() {
    let site = Site::with(prepare(|policies: &Path| {
        declare(policies, "count", &counting(), "grants = [\"keyvalue\"]\n");
        link(policies, "one", "count", "");
    }))
    .await;
    let tenant = site.tenant("one", "team").await;
    let known = counts(&site, &tenant, &[0]).await[0];
    assert!(known > 200 && known < 300, "{known}");
    site.redis.kill();
    // The lease at hand still admits; of the policy's data only the error is known.
    assert_eq!(counts(&site, &tenant, &[0, 0, 0]).await, [UNAVAILABLE; 3]);
}
