//! Tokens kept aside for the time in which nobody answers: spent then only, never more than
//! were debited, and back when their window, their limit or their process ends.

use std::{num::NonZeroU32, sync::atomic::Ordering};

use model::{
    clock::Clock as _,
    gate::{Denial, UsageSource as _},
    ledger::{Authority as _, WindowKey},
    loss::OnLoss,
    plan::Plan,
    quota::Metric,
    snapshot::TenantEntry,
    window::Window,
};

use crate::bench::{
    API, Bench, NOON, entry, is_exhausted, spend, spend_all, take, tenant, wait_until,
};

/// A tenant of whose calls every edge keeps some.
pub(crate) fn keeping(api: u64, kept: u32) -> TenantEntry {
    keeps(tenant(api, 0), kept)
}

fn keeps(mut entry: TenantEntry, kept: u32) -> TenantEntry {
    let mut plan = Plan::clone(&entry.plan);
    plan.on_authority_loss.api_calls = OnLoss::Overdraft(NonZeroU32::new(kept).unwrap());
    entry.plan = plan.into();
    entry
}

fn kept(bench: &Bench, tenant: &TenantEntry) -> u64 {
    bench.quota.at_edge(tenant.id()).iter().map(|quota| quota.kept).sum()
}

/// Granted and not credited in the window that held at noon.
async fn held(bench: &Bench, tenant: &TenantEntry) -> u64 {
    let window = Window::of(Metric::ApiCalls, NOON, Default::default()).unwrap();
    let key = WindowKey { tenant: tenant.id(), metric: Metric::ApiCalls, window };
    let accounts = bench.authority.store.accounts(vec![key]).await.unwrap();
    let account = accounts[0].unwrap();
    account.granted - account.credited
}

async fn until_held(bench: &Bench, tenant: &TenantEntry, tokens: u64) {
    for _ in 0..1_000 {
        if held(bench, tenant).await == tokens {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{} tokens are held, not {tokens}", held(bench, tenant).await);
}

#[tokio::test]
async fn what_is_kept_is_spent_when_nobody_answers_and_only_then() {
    let bench = Bench::new().await;
    let tenant = keeping(100, 5);
    let meter = bench.meter(&tenant);
    spend(&meter, API, NOON, 1).await;
    wait_until(|| kept(&bench, &tenant) == 5).await;
    assert_eq!(bench.metric("quota_overdrawn_total"), 0.0);
    bench.authority.cut.store(true, Ordering::SeqCst);
    let (admitted, denial) = spend_all(&meter, API, NOON).await;
    assert_eq!(admitted, 7 + 5, "the rest of the tranche of 8, and what was kept");
    assert!(matches!(denial, Denial::Unavailable { .. }), "{denial:?}");
    assert_eq!(bench.metric("quota_overdrawn_total"), 5.0);
    bench.authority.cut.store(false, Ordering::SeqCst);
    wait_until(|| bench.metric("quota_authority_up") == 1.0).await;
    let (admitted, denial) = spend_all(&meter, API, NOON).await;
    assert_eq!(admitted, 100 - 1 - 12);
    assert!(is_exhausted(denial), "{denial:?}");
    assert_eq!(bench.api_charged(tenant.id()).await, 100);
    bench.audit().await;
}

#[tokio::test]
async fn what_is_kept_is_no_part_of_what_others_may_have() {
    let bench = Bench::new().await;
    let tenant = keeping(100, 30);
    let meter = bench.meter(&tenant);
    spend(&meter, API, NOON, 1).await;
    wait_until(|| kept(&bench, &tenant) == 30).await;
    let (admitted, denial) = spend_all(&meter, API, NOON).await;
    assert_eq!(admitted, 69);
    assert!(is_exhausted(denial), "{denial:?}");
    assert_eq!(bench.api_charged(tenant.id()).await, 70);
    bench.audit().await;
}

#[tokio::test]
async fn a_kept_token_that_is_refunded_may_be_spent_again() {
    let bench = Bench::new().await;
    let tenant = keeping(100, 1);
    let meter = bench.meter(&tenant);
    spend(&meter, API, NOON, 8).await;
    wait_until(|| kept(&bench, &tenant) == 1).await;
    bench.authority.cut.store(true, Ordering::SeqCst);
    let mut last = None;
    while let Ok(permit) = take(&meter, API, NOON).await {
        last = Some(permit.spend());
    }
    assert_eq!(kept(&bench, &tenant), 0, "the last one was a kept one");
    last.unwrap().refund();
    assert_eq!(kept(&bench, &tenant), 1);
    drop(take(&meter, API, NOON).await.unwrap().spend());
    assert!(take(&meter, API, NOON).await.is_err());
    bench.authority.cut.store(false, Ordering::SeqCst);
    wait_until(|| bench.metric("quota_authority_up") == 1.0).await;
    bench.audit().await;
}

#[tokio::test]
async fn what_was_not_spent_comes_back_when_the_window_is_over() {
    let bench = Bench::new().await;
    let tenant = keeping(100, 20);
    let meter = bench.meter(&tenant);
    spend(&meter, API, NOON, 3).await;
    wait_until(|| kept(&bench, &tenant) == 20).await;
    let window = Window::of(Metric::ApiCalls, NOON, Default::default()).unwrap();
    bench.clock.advance_ms(window.end.ms_since(bench.clock.now()) + 1);
    wait_until(|| kept(&bench, &tenant) == 0).await;
    until_held(&bench, &tenant, 3).await;
    bench.audit().await;
}

#[tokio::test]
async fn a_limit_that_falls_and_another_size_end_what_was_kept() {
    let bench = Bench::new().await;
    let large = keeping(100, 20);
    let id = large.id();
    spend(&bench.meter(&large), API, NOON, 1).await;
    wait_until(|| kept(&bench, &large) == 20).await;
    let small = keeps(entry(id, 50, 0), 20);
    let meter = bench.meter(&small);
    assert_eq!(kept(&bench, &large), 0, "at once");
    wait_until(|| kept(&bench, &small) == 20).await;
    let less = keeps(entry(id, 50, 0), 4);
    bench.meter(&less);
    wait_until(|| kept(&bench, &less) == 4).await;
    let (admitted, denial) = spend_all(&meter, API, NOON).await;
    assert!(is_exhausted(denial), "{denial:?}");
    assert_eq!(admitted, 50 - 1 - 4);
    bench.audit().await;
}

#[tokio::test]
async fn a_clean_stop_gives_back_what_was_kept() {
    let bench = Bench::new().await;
    let tenant = keeping(100, 20);
    spend(&bench.meter(&tenant), API, NOON, 3).await;
    wait_until(|| kept(&bench, &tenant) == 20).await;
    bench.quota.shutdown().await;
    assert_eq!(held(&bench, &tenant).await, 3);
    bench.audit().await;
}

#[tokio::test]
async fn a_kill_does_not_waste_what_was_kept() {
    let bench = Bench::new().await;
    let tenant = keeping(100, 20);
    let meter = bench.meter(&tenant);
    spend(&meter, API, NOON, 3).await;
    wait_until(|| kept(&bench, &tenant) == 20).await;
    bench.authority.cut.store(true, Ordering::SeqCst);
    let (admitted, _) = spend_all(&meter, API, NOON).await;
    assert_eq!(admitted, 5 + 20);
    drop(meter);
    let bench = Bench::start(bench.crash().await, |_| {}).await;
    assert_eq!(held(&bench, &tenant).await, 28, "all of it was spent");
    let (admitted, denial) = spend_all(&bench.meter(&entry(tenant.id(), 100, 0)), API, NOON).await;
    assert_eq!(admitted, 72);
    assert!(is_exhausted(denial), "{denial:?}");
    bench.audit().await;
}

#[tokio::test]
async fn a_reserve_whose_answer_was_lost_is_drawn_once_more_and_wastes_nothing() {
    let bench = Bench::new().await;
    let plain = tenant(100, 0);
    spend(&bench.meter(&plain), API, NOON, 1).await;
    bench.authority.deaf.store(true, Ordering::SeqCst);
    let keeping = keeps(entry(plain.id(), 100, 0), 10);
    bench.meter(&keeping);
    // The debit is made, and its answer lost.
    until_held(&bench, &keeping, 18).await;
    bench.authority.deaf.store(false, Ordering::SeqCst);
    wait_until(|| kept(&bench, &keeping) == 10).await;
    until_held(&bench, &keeping, 18).await;
    bench.audit().await;
}
