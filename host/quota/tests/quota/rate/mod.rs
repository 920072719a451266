//! Rates that edges share: what they admit together, on a real Redis and on a simulated
//! one whose clock and delays a test decides.

mod redis;
mod simulated;
mod store;

use std::sync::{Arc, atomic::Ordering};

use model::{
    clock::Clock,
    limiter::{Limiter, Taken, Verdict},
    rate::Rate,
    snapshot::TenantEntry,
    tenant::TenantId,
};
use prometheus::Registry;
use quota::{RateStore, Rates};
use uuid::Uuid;

use self::redis::Redis;
use crate::bench;

/// A tenant under a rate; the same id at every edge.
fn tenant(id: Uuid, rate: Rate) -> TenantEntry {
    bench::entry(TenantId(id), 1, 1).under(Some(rate))
}

/// One edge of several.
fn edge(name: &str, store: Arc<dyn RateStore>, clock: Arc<dyn Clock>) -> Arc<Rates> {
    let runtime = tokio::runtime::Handle::current();
    Rates::shared(clock, store, name, runtime, &Registry::new()).unwrap()
}

/// Takes one of a tenant's rate.
async fn take(rates: &Rates, tenant: &TenantEntry) -> Verdict {
    match rates.of_tenant(tenant).unwrap().take(1) {
        Taken::Now(verdict) => verdict,
        Taken::Later(verdict) => verdict.await,
    }
}

/// No span between two admissions holds more than the rate allows. Each admission is given
/// by a time before and one after it, in any unit of `per_s` a second.
fn assert_within(rate: Rate, admitted: &[(u64, u64)], per_s: u64) {
    for (first, (before, _)) in admitted.iter().enumerate() {
        for (count, (_, after)) in admitted[first..].iter().enumerate() {
            let span = after.saturating_sub(*before);
            let most = u64::from(rate.burst()) * per_s + u64::from(rate.per_second()) * span;
            let count = count as u64 + 1;
            assert!(count * per_s <= most, "{count} in {span} from {before} on, under {rate:?}");
        }
    }
}

#[test]
fn one_process_keeps_a_tenants_rate_by_itself_and_follows_a_change() {
    let clock = Arc::new(model::clock::ManualClock::default());
    let rates = Rates::alone(Arc::clone(&clock) as _);
    let id = Uuid::new_v4();
    let slow = tenant(id, Rate::new(1, 3).unwrap());
    let run = |tenant: &TenantEntry| match rates.of_tenant(tenant).unwrap().take(1) {
        Taken::Now(verdict) => verdict,
        Taken::Later(_) => panic!("nobody is asked"),
    };
    assert_eq!([0; 4].map(|_| run(&slow).allowed), [true, true, true, false]);
    let fast = tenant(id, Rate::new(1, 5).unwrap());
    assert_eq!([0; 3].map(|_| run(&fast).allowed), [true, true, false], "no new burst");
    assert!(!run(&slow).allowed, "an old snapshot brings no old rate back");
    assert_eq!(run(&slow).rate, Rate::new(1, 5).unwrap());
    assert!(rates.of_tenant(&bench::tenant(1, 1)).is_none(), "no rate, no bucket");
}

#[tokio::test]
async fn the_script_hands_out_what_is_earned_and_no_more() {
    let redis = Redis::start();
    // One in a thousand seconds, ten at most: time plays no part.
    let ask = |edge: &str, least: u32, want: u32| {
        let arguments = ["1000000000000", "10000000000000"].map(Box::from);
        let [interval, most] = arguments;
        let [least, want] = [least, want].map(|n| n.to_string().into());
        let arguments = [interval, most, least, want, edge.into(), "10000".into()];
        let keys = ["r:{1}:1:plan", "r:{1}:1:plan:edges"].map(Box::from);
        redis.ask_now(quota::RateAsk { keys, arguments }).unwrap()
    };
    let first = ask("a", 1, 100);
    assert_eq!((first.granted, first.left, first.edges, first.wait_ms), (5, 5, 1, 0));
    let second = ask("b", 1, 100);
    assert_eq!((second.granted, second.left, second.edges), (2, 3, 2), "a quarter of 5");
    assert_eq!(ask("a", 3, 3).granted, 3, "the least, as long as it is there");
    let none = ask("a", 1, 100);
    assert_eq!((none.granted, none.left), (0, 0));
    assert!((900_000..=1_000_000).contains(&none.wait_ms), "{none:?}");
    assert!((1_900_000..=2_000_000).contains(&ask("a", 2, 2).wait_ms));
}

#[tokio::test]
async fn edges_on_one_redis_admit_together_what_the_rate_allows() {
    let redis = Redis::start();
    let rate = Rate::new(400, 200).unwrap();
    let (id, zero) = (Uuid::new_v4(), tokio::time::Instant::now());
    let edges = ["a", "b", "c"].map(|name| {
        let (store, clock) = (redis.connect(), Arc::new(model::clock::SystemClock::default()));
        (edge(name, store, clock), tenant(id, rate))
    });
    let works = edges.map(|(rates, tenant)| async move {
        let mut admitted = Vec::new();
        let now = || u64::try_from(zero.elapsed().as_nanos()).unwrap();
        // Until it has seen the burst end and the rate go on.
        let mut refused = 0;
        while refused < 400 {
            let before = now();
            if take(&rates, &tenant).await.allowed {
                admitted.push((before, now()));
            } else {
                refused += 1;
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        }
        admitted
    });
    let [a, b, c] = works;
    let (a, b, c) = tokio::join!(a, b, c);
    assert!(!a.is_empty() && !b.is_empty() && !c.is_empty(), "each edge gets some");
    let mut all = [a, b, c].concat();
    all.sort_unstable();
    assert!(all.len() > 200, "more than a burst was earned: {}", all.len());
    assert_within(rate, &all, 1_000_000_000);
}

#[tokio::test]
async fn a_busy_edge_asks_rarely_and_its_refusals_ask_nobody() {
    let redis = Redis::start();
    let clock = Arc::new(model::clock::ManualClock::default());
    let store = redis.connect();
    let rates = edge("a", Arc::clone(&store) as _, Arc::clone(&clock) as _);
    let tenant = tenant(Uuid::new_v4(), Rate::new(1_000, 100_000).unwrap());
    for _ in 0..20 {
        for _ in 0..400 {
            assert!(take(&rates, &tenant).await.allowed);
        }
        clock.advance_ms(100);
        tokio::task::yield_now().await;
    }
    let calls = store.calls.load(Ordering::SeqCst);
    assert!(calls <= 8_000 / 64, "{calls} calls for 8000 admissions");
    let poor = self::tenant(Uuid::new_v4(), Rate::new(1, 2).unwrap());
    while take(&rates, &poor).await.allowed {}
    let calls = store.calls.load(Ordering::SeqCst);
    for _ in 0..1_000 {
        let refused = take(&rates, &poor).await;
        assert!(!refused.allowed && refused.wait_ms > 0);
    }
    assert_eq!(store.calls.load(Ordering::SeqCst), calls);
}

#[tokio::test]
async fn without_the_store_an_edge_goes_by_its_share_with_nothing_saved_up() {
    let redis = Redis::start();
    let clock = Arc::new(model::clock::ManualClock::default());
    let (store, id) = (redis.connect(), Uuid::new_v4());
    let rate = Rate::new(10, 100).unwrap();
    let here = edge("a", Arc::clone(&store) as _, Arc::clone(&clock) as _);
    let there = edge("b", redis.connect(), Arc::clone(&clock) as _);
    for rates in [&there, &here] {
        assert!(take(rates, &tenant(id, rate)).await.allowed);
    }
    store.away.store(true, Ordering::SeqCst);
    // What is lent by now is good for a second.
    clock.advance_ms(1_000);
    let tenant = tenant(id, rate);
    let refused = take(&here, &tenant).await;
    assert_eq!((refused.allowed, refused.wait_ms), (false, 200), "two edges: one in 200 ms");
    let mut admitted = 0;
    for _ in 0..100 {
        clock.advance_ms(100);
        admitted += u32::from(take(&here, &tenant).await.allowed);
    }
    assert_eq!(admitted, 50, "its half of ten seconds");
    store.away.store(false, Ordering::SeqCst);
    clock.advance_ms(1_000);
    assert!(take(&here, &tenant).await.allowed, "and the store is asked again");
}

#[tokio::test]
async fn a_request_that_gives_up_waiting_leaves_the_bucket_in_order() {
    let redis = Redis::start();
    let clock = Arc::new(model::clock::ManualClock::default());
    let rates = edge("a", redis.connect(), clock);
    let tenant = tenant(Uuid::new_v4(), Rate::new(1, 50).unwrap());
    for _ in 0..5 {
        let Taken::Later(waiting) = rates.of_tenant(&tenant).unwrap().take(1) else {
            panic!("nothing is at hand")
        };
        drop(waiting);
    }
    assert!(take(&rates, &tenant).await.allowed);
}
