//! The authority fails, hangs, or loses its answers: leases go on, then 503, then recovery
//! by itself; never a refusal for good, never a token too many.

use std::{sync::atomic::Ordering, time::Duration};

use model::gate::{Denial, UsageSource};

use crate::bench::{API, Bench, NOON, is_exhausted, spend, spend_all, take, tenant, wait_until};

fn is_unavailable(denial: Denial) -> bool {
    matches!(denial, Denial::Unavailable { retry_after_s: 1..=5 })
}

#[tokio::test]
async fn a_lease_outlives_the_authority_and_then_the_answer_is_503() {
    let bench = Bench::new().await;
    let tenant = tenant(100, 0);
    let meter = bench.meter(&tenant);
    spend(&meter, API, NOON, 1).await;
    bench.authority.cut.store(true, Ordering::SeqCst);
    let (admitted, denial) = spend_all(&meter, API, NOON).await;
    assert_eq!(admitted, 7, "the rest of the tranche of 8");
    assert!(is_unavailable(denial), "{denial:?}");
    assert_eq!(bench.metric("quota_authority_up"), 0.0);
    bench.authority.cut.store(false, Ordering::SeqCst);
    wait_until(|| bench.metric("quota_authority_up") == 1.0).await;
    assert_eq!(spend_all(&meter, API, NOON).await.0, 92);
    bench.audit().await;
}

#[tokio::test]
async fn a_hanging_authority_costs_a_request_its_longest_wait_and_the_next_nothing() {
    let bench = Bench::with(|config| {
        config.admit_wait_ms_max = 100;
    })
    .await;
    bench.authority.stuck.store(true, Ordering::SeqCst);
    let (one, other) = (tenant(100, 0), tenant(100, 0));
    let meter = bench.meter(&one);
    assert!(is_unavailable(take(&meter, API, NOON).await.unwrap_err()));
    wait_until(|| bench.metric("quota_authority_up") == 0.0).await;
    let at_once = std::sync::Arc::clone(&meter).take(API, NOON);
    assert!(matches!(at_once, model::gate::Take::Denied(denial) if is_unavailable(denial)));
    let meter = bench.meter(&other);
    assert!(is_unavailable(take(&meter, API, NOON).await.unwrap_err()));
}

#[tokio::test]
async fn a_hanging_call_is_given_up_and_tried_again() {
    let bench = Bench::with(|config| {
        config.admit_wait_ms_max = 100;
        config.authority_timeout_ms = 1_000;
    })
    .await;
    bench.authority.stuck.store(true, Ordering::SeqCst);
    let tenant = tenant(50, 0);
    let meter = bench.meter(&tenant);
    assert!(is_unavailable(take(&meter, API, NOON).await.unwrap_err()));
    bench.authority.stuck.store(false, Ordering::SeqCst);
    wait_until(|| bench.metric("quota_authority_up") == 1.0).await;
    let mut admitted = 0;
    while admitted < 50 {
        admitted += spend_all(&meter, API, NOON).await.0;
        // A slow commit may be an outage too, here; let the keeper go on.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(bench.api_charged(tenant.id()).await, 50);
    bench.audit().await;
}

#[tokio::test]
async fn tranches_whose_answers_were_lost_come_back() {
    let bench = Bench::new().await;
    let tenant = tenant(100, 0);
    let meter = bench.meter(&tenant);
    spend(&meter, API, NOON, 1).await;
    bench.authority.deaf.store(true, Ordering::SeqCst);
    let (admitted, denial) = spend_all(&meter, API, NOON).await;
    assert_eq!(admitted, 7);
    assert!(is_unavailable(denial), "{denial:?}");
    // Several attempts fail; the first of them debited a tranche.
    let calls = bench.authority.calls();
    wait_until(|| bench.authority.calls() > calls + 3).await;
    bench.authority.deaf.store(false, Ordering::SeqCst);
    wait_until(|| bench.metric("quota_authority_up") == 1.0).await;
    let (admitted, denial) = spend_all(&meter, API, NOON).await;
    assert_eq!(admitted, 92);
    assert!(is_exhausted(denial));
    assert_eq!(bench.metric("quota_tranches_abandoned_total"), 1.0);
    assert_eq!(bench.api_charged(tenant.id()).await, 100);
    bench.audit().await;
}

#[tokio::test]
async fn usage_without_the_authority_is_an_error_not_a_guess() {
    let bench = Bench::with(|config| config.authority_timeout_ms = 1_000).await;
    let tenant = tenant(100, 0);
    bench.charged(tenant.id()).await;
    bench.authority.cut.store(true, Ordering::SeqCst);
    assert!(bench.quota.usage(tenant.id(), Default::default()).await.is_err());
    bench.authority.stuck.store(true, Ordering::SeqCst);
    let answer = tokio::time::timeout(
        Duration::from_secs(20),
        bench.quota.usage(tenant.id(), Default::default()),
    );
    assert!(answer.await.expect("bounded").is_err());
}

#[tokio::test]
async fn a_plan_that_allows_it_is_served_without_a_token_while_nobody_can_say() {
    let bench = Bench::with(|config| config.admit_wait_ms_max = 50).await;
    let tenant = crate::bench::allowing(100);
    let meter = bench.meter(&tenant);
    spend(&meter, API, NOON, 3).await;
    bench.authority.cut.store(true, Ordering::SeqCst);
    // What is at hand is spent first; nothing is refused afterwards.
    spend(&meter, API, NOON, 40).await;
    assert!(bench.metric("quota_unaccounted_total") >= 40.0 - 8.0);
    bench.authority.cut.store(false, Ordering::SeqCst);
    let charged = bench.api_charged(tenant.id()).await;
    assert!((3..=11).contains(&charged), "{charged}");
    bench.audit().await;
}
