//! A server whose user may not run INFO, fenced by its connections.

use super::*;
use crate::redis::target::RedisFencing;

/// A server that lets its user `edge` do what the README says, but for INFO.
pub(crate) fn secretive() -> Redis {
    let user =
        "edge on >geheim ~q:* ~s:* ~r:* &q:* +@all -@dangerous -rename -renamenx -copy -move";
    Redis::start(RedisOptions { users: vec![user.to_owned()], ..RedisOptions::default() })
}

fn url_of(redis: &Redis) -> String {
    format!("redis://edge:geheim@127.0.0.1:{}", redis.port())
}

fn ledger_of(url: &str) -> Arc<RedisLedger> {
    let target = RedisTarget::parse(url, RedisTls::default()).expect("a target");
    let target = target.fenced(RedisFencing::Connection).expect("no Cluster");
    let servers = Servers::connect(target, CALL).expect("servers");
    let probabilistic = Probabilistic::announce(&prometheus::Registry::new()).expect("metrics");
    Arc::new(RedisLedger::new(servers, Some(probabilistic)))
}

async fn bench_of(redis: &Redis) -> (Bench, Arc<RedisLedger>) {
    let ledger = ledger_of(&url_of(redis));
    let bench = contract::bench(Arc::clone(&ledger) as _);
    answering(&ledger, &bench.key).await;
    (bench, ledger)
}

/// One server and one connection for the whole contract: another would renew the fence.
async fn bench() -> Bench {
    // It lives as long as its process is this one's child.
    let redis = Box::leak(Box::new(secretive()));
    bench_of(redis).await.0
}

contract::contract!(bench().await);

#[tokio::test]
async fn without_the_key_it_is_found_to_hide_what_tells_its_lives_apart() {
    let redis = secretive();
    let target = RedisTarget::parse(&url_of(&redis), RedisTls::default()).expect("a target");
    let (server, reason) = hidden(&target).await.expect("hidden");
    assert!(server.contains(&redis.port().to_string()), "{server}");
    assert!(reason.to_lowercase().contains("noperm") || reason.contains("permission"), "{reason}");
    let open = RedisTarget::parse(&services::redis().url(), RedisTls::default()).expect("a target");
    assert_eq!(hidden(&open).await, None);
    let away = RedisTarget::parse("redis://127.0.0.1:1", RedisTls::default()).expect("a target");
    assert_eq!(hidden(&away).await, None, "nobody knows");
}

#[tokio::test]
async fn whoever_connects_ends_what_was_granted_before_and_the_others_follow() {
    let redis = secretive();
    let (bench, first) = bench_of(&redis).await;
    bench.install(1, 80, 100).await.expect("installed");
    assert!(matches!(bench.lease(0, 3).await, LeaseAnswer::Granted(_)));
    let before = first.fence(&bench.key).expect("a fence");
    let second = ledger_of(&url_of(&redis));
    let now = answering(&second, &bench.key).await;
    assert_ne!(now, before);
    assert_eq!(bench.lease(0, 3).await, LeaseAnswer::Next);
    assert_eq!(first.fence(&bench.key), Some(now), "the answer told it");
    bench.install(2, 80, 20).await.expect("installed");
    assert!(matches!(second.lease(bench.message(1, 3)).await, Ok(LeaseAnswer::Granted(_))));
}

#[tokio::test]
async fn the_sessions_keep_their_fence_when_others_connect_and_rates_need_none() {
    let redis = secretive();
    let target = RedisTarget::parse(&url_of(&redis), RedisTls::default()).expect("a target");
    let target = target.fenced(RedisFencing::Connection).expect("no Cluster");
    let servers = Servers::connect(target, CALL).expect("servers");
    let asks = servers.script("return redis.call('INFO', 'server')");
    let plain = redis::Script::new("return #KEYS");
    let key = "s:{x}:y";
    eventually("the server answers", || servers.of(key).is_some()).await;
    let (_, before) = servers.run(&asks, &[key], &[]).await.expect("an answer");
    let (_, ledgers) = servers.run(&asks, &["q:{x}:y"], &[]).await.expect("an answer");
    assert_ne!(before, ledgers, "each has its own");
    let (_bench, _second) = bench_of(&redis).await;
    let (_, after) = servers.run(&asks, &[key], &[]).await.expect("an answer");
    assert_eq!(after, before);
    let (_, renewed) = servers.run(&asks, &["q:{x}:y"], &[]).await.expect("an answer");
    assert_ne!(renewed, ledgers);
    let (_, keys) = servers.run(&plain, &["r:{x}:y"], &[]).await.expect("an answer");
    assert_eq!(keys, redis::Value::Int(1));
}

#[tokio::test]
async fn a_dump_and_lost_data_are_other_lives_here_too() {
    let redis = secretive();
    let (bench, ledger) = bench_of(&redis).await;
    for loss in ["dump", "flush"] {
        let before = ledger.fence(&bench.key).expect("a fence");
        bench.install(if loss == "dump" { 1 } else { 2 }, 80, 100).await.expect("installed");
        if loss == "dump" {
            redis.save();
            redis.restart(Dump::Keep);
        } else {
            redis.flush();
        }
        // The call that finds it gone opens the breaker; the next connection is another life.
        let asked = ledger.lease(bench.message(0, 3)).await;
        assert!(asked.is_err(), "{loss}: {asked:?}");
        let renewed = || ledger.fence(&bench.key).is_some_and(|now| now != before);
        eventually("another fence", renewed).await;
        assert_eq!(bench.lease(0, 3).await, LeaseAnswer::Next, "{loss}");
    }
}

#[tokio::test]
async fn a_grant_waits_for_a_replica_and_is_counted_when_none_follows() {
    let master = Redis::start(RedisOptions::default());
    let replica = master.replica();
    let target = RedisTarget::parse(&master.url(), RedisTls::default()).expect("a target");
    let target = target.fenced(RedisFencing::Connection).expect("no Cluster");
    let servers = Servers::connect(target, CALL_OF_REPLICA).expect("servers");
    let probabilistic = Probabilistic::announce(&prometheus::Registry::new()).expect("metrics");
    let missed = probabilistic.unreplicated.clone();
    let ledger = Arc::new(RedisLedger::new(servers, Some(probabilistic)));
    let bench = contract::bench(Arc::clone(&ledger) as _);
    answering(&ledger, &bench.key).await;
    bench.install(1, 80, 100).await.expect("installed");
    assert!(matches!(bench.lease(0, 3).await, LeaseAnswer::Granted(_)));
    assert_eq!(missed.get(), 0);
    replica.sigstop();
    assert!(matches!(bench.lease(1, 3).await, LeaseAnswer::Granted(_)));
    assert_eq!(missed.get(), 1);
    replica.sigcont();
}

/// Time limit of a call, and of a replica: long enough for one that runs.
const CALL_OF_REPLICA: Duration = Duration::from_secs(2);
