//! The scripts in a real Redis: the dispatchers' contract, and what only a server can do.

use std::{sync::Arc, time::Duration};

use model::ledger::{Dispatcher as _, DispatcherError, Fence, LeaseAnswer, WindowKey};
use services::{Dump, Fault, FaultProxy, Redis, RedisCluster, RedisOptions};

use super::{RedisLedger, RedisTarget, RedisTls, Servers, link::LinkError};
use crate::contract::{self, Bench};

/// Long enough for every machine that is not broken.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time limit of a call in tests that are not about it.
const CALL: Duration = Duration::from_secs(20);

fn ledger_at(url: &str, tls: RedisTls, limit: Duration) -> Arc<RedisLedger> {
    let target = RedisTarget::parse(url, tls).expect("a target");
    Arc::new(RedisLedger::new(Servers::connect(target, limit).expect("servers")))
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < until, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn answering(ledger: &RedisLedger, key: &WindowKey) -> Fence {
    eventually("the server answers", || ledger.fence(key).is_some()).await;
    ledger.fence(key).expect("a fence")
}

async fn bench_at(url: &str, tls: RedisTls) -> (Bench, Arc<RedisLedger>) {
    let ledger = ledger_at(url, tls, CALL);
    let bench = contract::bench(Arc::clone(&ledger) as _);
    answering(&ledger, &bench.key).await;
    (bench, ledger)
}

async fn bench() -> Bench {
    bench_at(&services::redis().url(), RedisTls::default()).await.0
}

contract::contract!(bench().await);

#[tokio::test]
async fn losing_all_data_loses_the_tranche_and_creates_no_token() {
    let redis = Redis::start(RedisOptions::default());
    let (bench, ledger) = bench_at(&redis.url(), RedisTls::default()).await;
    bench.install(1, 8, 100).await.expect("installed");
    let old = bench.message(0, 3);
    let before = bench.send(old).await;
    assert!(matches!(before, LeaseAnswer::Granted(_)));
    redis.flush();
    assert_eq!(bench.lease(0, 3).await, LeaseAnswer::Next);
    assert_eq!(bench.send(old).await, LeaseAnswer::Next, "nobody knows of the old grant");
    bench.install(2, 8, 92).await.expect("installed");
    let fence = ledger.fence(&bench.key).expect("a fence");
    let of = model::ledger::EpochRef { key: bench.key, epoch: 1 };
    assert_eq!(ledger.close(of, fence).await, Ok(None), "what it does not know it does not tell");
}

#[tokio::test]
async fn a_restart_from_a_dump_is_another_life() {
    let redis = Redis::start(RedisOptions::default());
    let (bench, ledger) = bench_at(&redis.url(), RedisTls::default()).await;
    let before = ledger.fence(&bench.key).expect("a fence");
    bench.install(1, 8, 100).await.expect("installed");
    redis.save();
    redis.restart(Dump::Keep);
    // The call that finds it gone opens the breaker; a probe finds the new life.
    let _ = ledger.lease(bench.message(0, 3)).await;
    eventually("another fence", || ledger.fence(&bench.key).is_some_and(|now| now != before)).await;
    assert_eq!(bench.lease(0, 3).await, LeaseAnswer::Next, "the dump's tokens are not granted");
    bench.install(2, 8, 92).await.expect("installed");
    assert!(matches!(bench.lease(0, 3).await, LeaseAnswer::Granted(_)));
}

#[tokio::test]
async fn a_promoted_replica_is_found_and_does_not_grant_what_its_master_had() {
    let master = Redis::start(RedisOptions::default());
    let replica = master.replica();
    let url = format!("{},127.0.0.1:{}", master.url(), replica.port());
    let (bench, ledger) = bench_at(&url, RedisTls::default()).await;
    let before = ledger.fence(&bench.key).expect("a fence");
    bench.install(1, 80, 100).await.expect("installed");
    master.kill();
    replica.promote();
    let _ = ledger.lease(bench.message(0, 3)).await;
    eventually("another fence", || ledger.fence(&bench.key).is_some_and(|now| now != before)).await;
    assert_eq!(bench.lease(0, 3).await, LeaseAnswer::Next);
}

#[tokio::test]
async fn a_demoted_master_is_left_for_the_new_one() {
    let master = Redis::start(RedisOptions::default());
    let replica = master.replica();
    let url = format!("{},127.0.0.1:{}", master.url(), replica.port());
    let (bench, ledger) = bench_at(&url, RedisTls::default()).await;
    let before = ledger.fence(&bench.key).expect("a fence");
    bench.install(1, 80, 100).await.expect("installed");
    replica.promote();
    master.demote_to(&replica);
    assert_eq!(ledger.lease(bench.message(0, 3)).await, Err(DispatcherError::Unavailable));
    eventually("another fence", || ledger.fence(&bench.key).is_some_and(|now| now != before)).await;
    assert_eq!(bench.lease(0, 3).await, LeaseAnswer::Next);
}

#[tokio::test]
async fn a_server_that_hangs_is_asked_once_and_then_left_alone_until_it_answers() {
    let redis = Redis::start(RedisOptions::default());
    let limit = Duration::from_millis(100);
    let ledger = ledger_at(&redis.url(), RedisTls::default(), limit);
    let bench = contract::bench(Arc::clone(&ledger) as _);
    answering(&ledger, &bench.key).await;
    redis.sigstop();
    let asked = ledger.lease(bench.message(0, 1)).await;
    assert_eq!(asked, Err(DispatcherError::Unavailable));
    assert_eq!(ledger.fence(&bench.key), None, "the breaker is open");
    redis.sigcont();
    answering(&ledger, &bench.key).await;
}

#[tokio::test]
async fn a_lost_answer_is_no_grant_for_anybody_and_the_same_message_brings_it_again() {
    let redis = Redis::start(RedisOptions::default());
    let address = ([127, 0, 0, 1], redis.port()).into();
    let proxy = FaultProxy::start(address);
    let url = format!("redis://127.0.0.1:{}", proxy.port());
    let limit = Duration::from_millis(300);
    let ledger = ledger_at(&url, RedisTls::default(), limit);
    let bench = contract::bench(Arc::clone(&ledger) as _);
    answering(&ledger, &bench.key).await;
    bench.install(1, 80, 0).await.expect("installed");
    let message = bench.message(0, 3);
    proxy.set(Fault::DropReplies);
    assert_eq!(ledger.lease(message).await, Err(DispatcherError::Unavailable));
    proxy.set(Fault::None);
    proxy.drop_connections();
    answering(&ledger, &bench.key).await;
    let LeaseAnswer::Granted(again) = bench.send(message).await else { panic!("no grant") };
    assert_eq!((again.tokens, again.free), (3, 77), "it was granted once");
}

#[tokio::test]
async fn a_cluster_serves_every_family_from_its_own_node() {
    let cluster = RedisCluster::start(RedisOptions::default());
    let ledger = ledger_at(&cluster.url(), RedisTls::default(), CALL);
    let mut fences = std::collections::HashSet::new();
    for _ in 0..24 {
        let bench = contract::bench(Arc::clone(&ledger) as _);
        fences.insert(answering(&ledger, &bench.key).await);
        contract::two_edges_get_a_quarter_each_of_what_is_left(bench).await;
    }
    assert!(fences.len() > 1, "24 families on one of three nodes");
}

#[tokio::test]
async fn tls_and_a_user_with_a_password_are_spoken() {
    let users = vec![
        "edge on >geheim ~q:* &q:* +@all -@dangerous -rename -renamenx -copy -move +info"
            .to_owned(),
    ];
    let options = RedisOptions { tls: true, users, ..RedisOptions::default() };
    let redis = Redis::start(options);
    let tls = RedisTls { ca_pem: Some(Redis::ca_pem().into()), client_pem: None };
    let url = format!("rediss://edge:geheim@127.0.0.1:{}", redis.port());
    let (bench, _ledger) = bench_at(&url, tls).await;
    contract::tokens_come_back_once_and_only_to_their_own_tranche(bench).await;
}

#[tokio::test]
async fn a_right_that_is_missing_for_rates_costs_the_ledger_nothing() {
    let users = vec!["edge on >geheim ~q:* &q:* +@all -@dangerous +info".to_owned()];
    let redis = Redis::start(RedisOptions { users, ..RedisOptions::default() });
    let url = format!("redis://edge:geheim@127.0.0.1:{}", redis.port());
    let target = RedisTarget::parse(&url, RedisTls::default()).expect("a target");
    let servers = Servers::connect(target, CALL).expect("servers");
    let ledger = Arc::new(RedisLedger::new(Arc::clone(&servers)));
    let bench = contract::bench(Arc::clone(&ledger) as _);
    answering(&ledger, &bench.key).await;
    let script = redis::Script::new("return redis.call('GET', KEYS[1])");
    let refused = servers.run(&script, &["r:{x}:y"], &[]).await.map(drop);
    assert!(matches!(refused, Err(LinkError::Forbidden(_))), "{refused:?}");
    assert!(ledger.fence(&bench.key).is_some(), "the breaker is closed");
    contract::tokens_come_back_once_and_only_to_their_own_tranche(bench).await;
}

#[tokio::test]
async fn a_server_without_the_right_to_ledgers_counts_as_away() {
    let users = vec!["edge on >geheim ~r:* &q:* +@all -@dangerous +info".to_owned()];
    let redis = Redis::start(RedisOptions { users, ..RedisOptions::default() });
    let url = format!("redis://edge:geheim@127.0.0.1:{}", redis.port());
    let ledger = ledger_at(&url, RedisTls::default(), CALL);
    let bench = contract::bench(Arc::clone(&ledger) as _);
    answering(&ledger, &bench.key).await;
    assert_eq!(ledger.lease(bench.message(0, 1)).await, Err(DispatcherError::Unavailable));
    let again = ledger.lease(bench.message(0, 1)).await;
    assert_eq!(again, Err(DispatcherError::Unavailable), "and not of something that is wrong");
}
