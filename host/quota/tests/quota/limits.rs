//! Limits that change and windows that end.

use std::sync::Arc;

use model::{
    clock::{Clock, UnixMs},
    gate::Take,
    quota::Metric,
};

use crate::bench::{
    AI, API, Bench, NOON, entry, is_exhausted, spend, spend_all, take, tenant, wait_until,
};

const DAY_MS: u64 = 86_400_000;

#[tokio::test]
async fn a_raised_limit_is_served_at_once_without_a_reset() {
    let bench = Bench::new().await;
    let tenant = tenant(5, 0);
    let meter = bench.meter(&tenant);
    assert_eq!(spend_all(&meter, API, NOON).await.0, 5);
    let meter = bench.meter(&entry(tenant.id(), 12, 0));
    assert_eq!(spend_all(&meter, API, NOON).await.0, 7);
    assert_eq!(bench.api_charged(tenant.id()).await, 12);
    bench.audit().await;
}

#[tokio::test]
async fn a_lowered_limit_admits_nothing_above_it_from_the_next_take_on() {
    let bench = Bench::new().await;
    let tenant = tenant(1_000, 0);
    let meter = bench.meter(&tenant);
    spend(&meter, API, NOON, 20).await;
    let meter = bench.meter(&entry(tenant.id(), 25, 0));
    assert_eq!(spend_all(&meter, API, NOON).await.0, 5);
    let meter = bench.meter(&entry(tenant.id(), 10, 0));
    let (admitted, denial) = spend_all(&meter, API, NOON).await;
    assert_eq!(admitted, 0);
    assert!(is_exhausted(denial));
    assert_eq!(bench.api_charged(tenant.id()).await, 25, "what was charged stays charged");
    let meter = bench.meter(&entry(tenant.id(), 30, 0));
    assert_eq!(spend_all(&meter, API, NOON).await.0, 5);
    bench.audit().await;
}

#[tokio::test]
async fn tokens_at_hand_are_not_spent_under_a_lowered_limit() {
    let bench = Bench::new().await;
    let tenant = tenant(1_000, 0);
    let meter = bench.meter(&tenant);
    spend(&meter, API, NOON, 2).await;
    let more = Arc::clone(&meter).take(API, NOON);
    assert!(matches!(more, Take::Granted(_)), "tokens are at hand");
    drop(more);
    let meter = bench.meter(&entry(tenant.id(), 2, 0));
    assert!(matches!(Arc::clone(&meter).take(API, NOON), Take::Wait(_)));
    assert_eq!(spend_all(&meter, API, NOON).await.0, 0);
}

#[tokio::test]
async fn an_old_snapshot_does_not_bring_its_limit_back() {
    let bench = Bench::new().await;
    let old = tenant(1_000, 0);
    let new = entry(old.id(), 5, 0);
    let meter = bench.meter(&new);
    let same = bench.meter(&old);
    assert_eq!(spend_all(&same, API, NOON).await.0, 5);
    assert_eq!(meter.status(Metric::ApiCalls, NOON).unwrap().limit, 5);
}

#[tokio::test]
async fn a_new_day_starts_a_new_window_and_the_month_goes_on() {
    let bench = Bench::new().await;
    let tenant = tenant(100, 4);
    let meter = bench.meter(&tenant);
    let both = API.union(AI);
    assert_eq!(spend_all(&meter, both, bench.clock.now()).await.0, 4);
    bench.clock.advance_ms(DAY_MS);
    assert_eq!(spend_all(&meter, both, bench.clock.now()).await.0, 4);
    let usage = bench.charged(tenant.id()).await;
    assert_eq!((usage.api_calls_this_month, usage.ai_requests_today), (8, 4));
    bench.clock.advance_ms(31 * DAY_MS);
    assert_eq!(spend_all(&meter, API, bench.clock.now()).await.0, 100);
    bench.audit().await;
}

#[tokio::test]
async fn a_token_of_the_old_day_is_not_refunded_into_the_new_one() {
    let bench = Bench::new().await;
    let tenant = tenant(100, 4);
    let meter = bench.meter(&tenant);
    let mut old = Vec::new();
    for _ in 0..3 {
        old.push(take(&meter, AI, bench.clock.now()).await.unwrap().spend());
    }
    bench.clock.advance_ms(DAY_MS);
    let now = bench.clock.now();
    spend(&meter, AI, now, 1).await;
    for charge in old {
        charge.refund();
    }
    assert_eq!(spend_all(&meter, AI, now).await.0, 3);
    assert_eq!(bench.metric("quota_expired_refunds_total"), 3.0);
    assert_eq!(bench.charged(tenant.id()).await.ai_requests_today, 4);
    bench.audit().await;
}

#[tokio::test]
async fn a_lease_ends_with_its_window_to_the_millisecond() {
    let bench = Bench::new().await;
    let tenant = tenant(100, 50);
    let meter = bench.meter(&tenant);
    spend(&meter, AI, NOON, 2).await;
    let midnight = meter.status(Metric::AiRequests, NOON).unwrap().window.end;
    let last = UnixMs(midnight.0 - 1);
    assert!(matches!(Arc::clone(&meter).take(AI, last), Take::Granted(_)));
    assert!(matches!(Arc::clone(&meter).take(AI, midnight), Take::Wait(_)));
}

#[tokio::test]
async fn a_refund_after_the_lease_was_sealed_is_credited_while_the_window_is_open() {
    let bench = Bench::with(|config| config.report_interval_ms = 20).await;
    let tenant = tenant(20, 0);
    let meter = bench.meter(&tenant);
    let mut charges = Vec::new();
    for _ in 0..20 {
        charges.push(take(&meter, API, NOON).await.unwrap().spend());
    }
    assert!(is_exhausted(take(&meter, API, NOON).await.unwrap_err()));
    // Tranches are at most 8 here: most of these charges are of sealed leases.
    for charge in charges.drain(..6) {
        charge.refund();
    }
    let mut again = 0;
    for _ in 0..200 {
        again += spend_all(&meter, API, NOON).await.0;
        if again == 6 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(again, 6);
    assert_eq!(bench.metric("quota_late_refunds_total"), 6.0);
    assert_eq!(bench.api_charged(tenant.id()).await, 20);
    bench.audit().await;
}

#[tokio::test]
async fn an_idle_lease_goes_back_and_its_record_is_used_again() {
    let bench = Bench::with(|config| {
        config.idle_return_ms = 1_000;
        config.lease_records = 2;
    })
    .await;
    for _ in 0..5 {
        let tenant = tenant(1_000, 0);
        let meter = bench.meter(&tenant);
        spend(&meter, API, NOON, 3).await;
        wait_until(|| {
            bench.clock.advance_ms(50);
            bench.metric("quota_lease_records") > 0.0
        })
        .await;
        wait_until(|| {
            bench.clock.advance_ms(50);
            bench.metric("quota_lease_records") == 0.0
        })
        .await;
        assert_eq!(bench.api_charged(tenant.id()).await, 3);
    }
    bench.audit().await;
}
