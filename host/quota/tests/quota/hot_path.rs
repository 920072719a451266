//! Many threads on one meter: what is admitted is the limit, to the token.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use model::{gate::Meter, quota::Metric};

use crate::bench::{AI, API, Bench, NOON, is_exhausted, spend_all, take, tenant};

const THREADS: u64 = 8;

/// Runs requests on threads with runtimes of their own, like the proxy's workers.
fn on_threads<F>(
    meter: &Arc<dyn Meter>,
    work: impl Fn(Arc<dyn Meter>, u64) -> F + Clone + Send + Sync + 'static,
) where
    F: Future<Output = ()>,
{
    let threads: Vec<_> = (0..THREADS)
        .map(|number| {
            let (meter, work) = (Arc::clone(meter), work.clone());
            thread::spawn(move || {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(work(meter, number));
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn threads_together_are_admitted_exactly_the_limit() {
    let bench = Bench::new().await;
    for limit in [0, 1, 2, 5, 8, 9, 100, 1_000, 10_000] {
        let tenant = tenant(limit, 0);
        let meter = bench.meter(&tenant);
        let admitted = Arc::new(AtomicU64::new(0));
        let sum = Arc::clone(&admitted);
        let threaded = Arc::clone(&meter);
        tokio::task::spawn_blocking(move || {
            on_threads(&threaded, move |meter, _| {
                let sum = Arc::clone(&sum);
                async move {
                    let (admitted, denial) = spend_all(&meter, API, NOON).await;
                    assert!(is_exhausted(denial), "{denial:?}");
                    sum.fetch_add(admitted, Ordering::SeqCst);
                }
            });
        })
        .await
        .unwrap();
        assert_eq!(admitted.load(Ordering::SeqCst), limit);
        assert_eq!(bench.api_charged(tenant.id()).await, limit);
        assert_eq!(meter.status(Metric::ApiCalls, NOON).unwrap().remaining, 0);
    }
    bench.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refunds_between_takes_are_served_again_and_nothing_more() {
    let bench = Bench::new().await;
    let limit = 2_000;
    let tenant = tenant(limit, 0);
    let meter = bench.meter(&tenant);
    let charged = Arc::new(AtomicU64::new(0));
    let sum = Arc::clone(&charged);
    let threaded = Arc::clone(&meter);
    tokio::task::spawn_blocking(move || {
        on_threads(&threaded, move |meter, number| {
            let sum = Arc::clone(&sum);
            async move {
                for request in 0_u64.. {
                    match take(&meter, API, NOON).await {
                        Ok(permit) => match (request + number) % 3 {
                            0 => drop(permit),
                            1 => permit.spend().refund(),
                            _ => {
                                drop(permit.spend());
                                sum.fetch_add(1, Ordering::SeqCst);
                            }
                        },
                        Err(denial) => {
                            assert!(is_exhausted(denial), "{denial:?}");
                            break;
                        }
                    }
                }
            }
        });
    })
    .await
    .unwrap();
    // A thread may have given up while another was about to refund: serve what came back.
    loop {
        let (admitted, _) = spend_all(&meter, API, NOON).await;
        charged.fetch_add(admitted, Ordering::SeqCst);
        let seen = charged.load(Ordering::SeqCst);
        assert!(seen <= limit, "{seen} of {limit}");
        if bench.api_charged(tenant.id()).await == limit && seen == limit {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    bench.audit().await;
}

#[tokio::test]
async fn the_second_metric_is_taken_with_the_first_or_not_at_all() {
    let bench = Bench::new().await;
    let tenant = tenant(100, 3);
    let meter = bench.meter(&tenant);
    let (admitted, denial) = spend_all(&meter, API.union(AI), NOON).await;
    assert_eq!(admitted, 3);
    assert!(matches!(denial, model::gate::Denial::Exhausted(s) if s.metric == Metric::AiRequests));
    let usage = bench.charged(tenant.id()).await;
    assert_eq!((usage.api_calls_this_month, usage.ai_requests_today), (3, 3));
    let (admitted, _) = spend_all(&meter, API, NOON).await;
    assert_eq!(admitted, 97, "a refused AI request gave its API call back");
    bench.audit().await;
}

#[tokio::test]
async fn a_denial_asks_nobody() {
    let bench = Bench::with(|config| config.report_interval_ms = 3_600_000).await;
    let tenant = tenant(5, 0);
    let meter = bench.meter(&tenant);
    spend_all(&meter, API, NOON).await;
    let calls = bench.authority.calls();
    for _ in 0..1_000 {
        let now = Arc::clone(&meter).take(API, NOON);
        assert!(matches!(now, model::gate::Take::Denied(denial) if is_exhausted(denial)));
    }
    assert_eq!(bench.authority.calls(), calls);
    assert_eq!(bench.metric("quota_denied_total"), 1_001.0);
}

#[tokio::test]
async fn a_refund_after_exhaustion_is_served_at_once() {
    let bench = Bench::new().await;
    let tenant = tenant(5, 0);
    let meter = bench.meter(&tenant);
    let permit = take(&meter, API, NOON).await.unwrap();
    let (admitted, _) = spend_all(&meter, API, NOON).await;
    assert_eq!(admitted, 4);
    permit.spend().refund();
    let (admitted, _) = spend_all(&meter, API, NOON).await;
    assert_eq!(admitted, 1);
    assert_eq!(bench.api_charged(tenant.id()).await, 5);
}

#[tokio::test]
async fn the_status_counts_down() {
    let bench = Bench::new().await;
    let tenant = tenant(1_000, 0);
    let meter = bench.meter(&tenant);
    for used in 1..=1_000 {
        drop(take(&meter, API, NOON).await.unwrap().spend());
        let status = meter.status(Metric::ApiCalls, NOON).unwrap();
        assert_eq!(status.limit, 1_000);
        assert!(status.remaining <= 1_000 - used, "a lower estimate");
    }
    assert_eq!(meter.status(Metric::Users, NOON), None);
}

#[tokio::test]
async fn steady_traffic_asks_the_authority_once_per_hundred_and_more() {
    let bench = Bench::with(|config| config.report_interval_ms = 3_600_000).await;
    let tenant = tenant(100_000, 0);
    let meter = bench.meter(&tenant);
    spend_all(&meter, API, NOON).await;
    let opened = bench.metric("quota_tranches_opened_total");
    assert!(opened <= 160.0, "{opened} tranches for 100,000 requests");
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_that_come_together_share_commits_and_idle_ones_cost_no_record() {
    let bench = Bench::with(|config| config.lease_records = 1_024).await;
    let idle: Vec<_> = (0..20_000).map(|_| bench.meter(&tenant(5, 5))).collect();
    let busy: Vec<_> = (0..500).map(|_| bench.meter(&tenant(5, 5))).collect();
    let requests: Vec<_> = busy
        .iter()
        .map(|meter| {
            let meter = Arc::clone(meter);
            tokio::spawn(async move { drop(take(&meter, API, NOON).await.unwrap().spend()) })
        })
        .collect();
    for request in requests {
        request.await.unwrap();
    }
    assert_eq!(bench.metric("quota_tranches_opened_total"), 500.0);
    let opens = bench.calls("open");
    assert!(opens <= 100.0, "{opens} commits for 500 tenants");
    assert_eq!(idle.len(), 20_000);
    bench.audit().await;
}
