//! The script against a real `redis-server`: expiry by its clock, guards, lost memory and
//! failover.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use ::redis::Script;
use model::{
    ledger::AuthorityError,
    sessions::{GuardRecord, GuardStore},
};
use services::{Dump, Fault, FaultProxy, Redis, RedisCluster, RedisOptions};

use super::*;
use crate::{
    redis::{RedisTarget, RedisTls, Servers},
    sessions::in_redis::InRedis,
};

/// A time that no test waits for, in ms.
const LONG_MS: u64 = 60_000;
/// Hold of a new guard in these tests, in ms: longer than a few calls on a busy machine.
const HOLD_MS: u64 = 4_000;

/// Longest call to Redis in these tests, in ms: the machine may be busy.
const CALL_MS: u64 = 5_000;

/// The edges' connections to the Redis of one test, with the authority's memory of its
/// guards.
pub(super) struct Server {
    servers: Arc<Servers>,
    guards: Arc<Guards>,
}

/// Guards as the authority would keep them.
#[derive(Default)]
struct Guards(Mutex<BTreeMap<TenantId, u64>>);

impl GuardStore for Guards {
    fn record_guard(
        &self,
        family: TenantId,
        _: String,
        after: u64,
    ) -> BoxFuture<'_, Result<GuardRecord, AuthorityError>> {
        let mut guards = self.0.lock().expect("the guards");
        let number = guards.entry(family).or_default();
        let record = if *number == after {
            *number += 1;
            GuardRecord::Recorded { number: *number }
        } else {
            GuardRecord::Lost { number: *number }
        };
        Box::pin(std::future::ready(Ok(record)))
    }
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("never: {what}");
}

impl Server {
    /// Connected to what a URL names.
    pub(super) async fn at(url: &str) -> Self {
        let target = RedisTarget::parse(url, RedisTls::default()).expect("a target");
        let servers = Servers::connect(target, Duration::from_millis(CALL_MS)).expect("servers");
        let this = Self { servers, guards: Arc::default() };
        this.until_connected().await;
        this
    }

    async fn until_connected(&self) {
        let key = format!("s:{{{}}}:guard", TENANT.0);
        eventually("a master answers", async || self.servers.of(&key).is_some()).await;
    }

    pub(super) fn registry(&self) -> InRedis {
        InRedis::new(Arc::clone(&self.servers) as _, Arc::clone(&self.guards) as _)
    }
}

/// A server of one test.
pub(super) async fn own() -> (Redis, Server) {
    let redis = Redis::start(RedisOptions::default());
    let server = Server::at(&redis.url()).await;
    (redis, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_heartbeats_a_slot_is_free_after_the_ttl_and_a_renewed_one_is_not() {
    let (_redis, server) = own().await;
    let short = server.registry().with_times(300, 0);
    let long = server.registry().with_times(LONG_MS, 0);
    for number in [1, 2] {
        assert_eq!(short.admit(member(number), terms(2)).await, Ok(Admission::Admitted));
    }
    assert_eq!(long.renew(TENANT, 2, vec![session(2)]).await, Ok(vec![true]));
    eventually("the first expires", async || {
        long.admit(member(3), terms(2)).await == Ok(Admission::Admitted)
    })
    .await;
    assert_eq!(long.count(TENANT).await, Ok(2));
    assert_eq!(long.admit(member(1), terms(2)).await, Ok(Admission::Full));
    assert_eq!(long.renew(TENANT, 2, vec![session(2)]).await, Ok(vec![true]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_guard_of_a_family_holds_at_once_also_for_many_who_come_together() {
    let (_redis, server) = own().await;
    let (one, two) = (server.registry(), server.registry());
    let admitted = futures_util::future::join_all((0..8).map(|number| {
        let edge = if number % 2 == 0 { &one } else { &two };
        edge.admit(member(number), terms(8))
    }))
    .await;
    assert!(admitted.iter().all(|answer| *answer == Ok(Admission::Admitted)), "{admitted:?}");
    assert_eq!(server.guards.0.lock().expect("the guards").get(&TENANT), Some(&1));
}

/// Asserts that after a loss only renewals count until the hold is over.
async fn only_renewals_until_the_hold_is_over(server: &Server) {
    let registry = server.registry().with_times(LONG_MS, HOLD_MS);
    // A renewal comes first, a stranger, a session that lives elsewhere.
    assert_eq!(registry.renew(TENANT, 2, vec![session(1)]).await, Ok(vec![true]));
    let held = registry.admit(member(3), terms(2)).await;
    assert!(matches!(held, Ok(Admission::Held { ms: 1..=HOLD_MS })), "{held:?}");
    assert_eq!(registry.renew(TENANT, 2, vec![session(2)]).await, Ok(vec![true]));
    let again = registry.admit(member(1), terms(2)).await;
    assert!(matches!(again, Ok(Admission::Held { .. })), "its edge may have closed it: {again:?}");
    assert_eq!(registry.renew(TENANT, 2, vec![session(4)]).await, Ok(vec![false]), "the limit");
    eventually("the hold is over", async || {
        registry.admit(member(3), terms(3)).await == Ok(Admission::Admitted)
    })
    .await;
    assert_eq!(registry.admit(member(4), terms(3)).await, Ok(Admission::Full));
}

async fn two_sessions(server: &Server) {
    let registry = server.registry().with_times(LONG_MS, LONG_MS);
    for number in [1, 2] {
        assert_eq!(registry.admit(member(number), terms(2)).await, Ok(Admission::Admitted));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_flush_only_renewals_are_admitted_for_a_while() {
    let (redis, server) = own().await;
    two_sessions(&server).await;
    redis.flush();
    only_renewals_until_the_hold_is_over(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failover_the_copied_set_counts_for_nothing() {
    let master = Redis::start(RedisOptions::default());
    let replica = master.replica();
    let url = format!("redis://127.0.0.1:{},127.0.0.1:{}", master.port(), replica.port());
    let server = Server::at(&url).await;
    two_sessions(&server).await;
    let live = format!("s:{{{0}}}:{0}", TENANT.0);
    eventually("the replica has the set", async || {
        replica.cli(&["ZCARD", &live]).expect("an answer").text() == "2"
    })
    .await;
    master.kill();
    replica.promote();
    eventually("the promoted one is asked", async || server.registry().count(TENANT).await.is_ok())
        .await;
    assert_eq!(server.registry().count(TENANT).await, Ok(0), "copied, and of another history");
    only_renewals_until_the_hold_is_over(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_from_a_dump_the_old_set_counts_for_nothing() {
    let (redis, server) = own().await;
    two_sessions(&server).await;
    redis.save();
    redis.restart(Dump::Keep);
    eventually("it answers again, and knows nobody", async || {
        server.registry().count(TENANT).await == Ok(0)
    })
    .await;
    only_renewals_until_the_hold_is_over(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_that_arrives_late_or_for_another_life_or_second_is_not_believed() {
    let (redis, server) = own().await;
    two_sessions(&server).await;
    let (live, guard) = (format!("s:{{{0}}}:{0}", TENANT.0), format!("s:{{{}}}:guard", TENANT.0));
    let (order, gone) = (format!("{live}:order"), format!("{live}:gone"));
    let script = Script::new(include_str!("../sessions.lua"));
    let run = async |arguments: &[&str]| {
        let keys = [live.as_str(), &order, &gone, &guard];
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        let answer = server.servers.run(&script, &keys, &arguments).await.expect("an answer").1;
        ::redis::from_redis_value::<Vec<String>>(answer).expect("texts")
    };
    let kept = redis.cli(&["GET", &guard]).expect("an answer").text();
    let (fence, _) = kept.split_once(' ').expect("a fence");
    assert_eq!(run(&["guard", "60000", fence, "0", "0"]).await, ["OK"], "there is one: no change");
    assert_eq!(server.registry().count(TENANT).await, Ok(2));
    redis.cli(&["DEL", &guard]).expect("an answer");
    let missed = run(&["admit", "60000", "9", "0", "x"]).await;
    assert_eq!(missed[..2], ["NOGUARD", fence]);
    let now: u64 = missed[2].parse().expect("a time");
    let (early, late) = ((now - LONG_MS).to_string(), (now + LONG_MS).to_string());
    assert_eq!(run(&["guard", "60000", fence, &early, "0"]).await, ["LATE"]);
    assert_eq!(run(&["guard", "60000", fence, &late, "0"]).await, ["LATE"]);
    assert_eq!(run(&["guard", "60000", "redis:0a:0b", &missed[2], "0"]).await, ["FENCED"]);
    assert_eq!(redis.cli(&["EXISTS", &guard]).expect("an answer").text(), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_keeps_its_sessions_through_a_flush_and_admits_nobody_above_the_limit() {
    let (redis, server) = own().await;
    let clock = Arc::new(ManualClock::at(UnixMs(0)));
    let registry: Arc<dyn Registry> = Arc::new(server.registry().with_times(LONG_MS, LONG_MS));
    let edge = Edge::new(&clock, &registry, 100);
    let stream = edge.enter(1, 2).await.expect("the first");
    edge.enter(2, 2).await.expect("the second");
    redis.flush();
    clock.advance_ms(model::sessions::HEARTBEAT_MS);
    eventually("both are counted again", async || {
        edge.beat().await;
        registry.count(TENANT).await == Ok(2)
    })
    .await;
    assert!(!stream.is_lost() && edge.knows(1) && edge.knows(2));
    let other = Edge::new(&clock, &registry, 100);
    let refused = other.enter(3, 2).await.expect_err("the guard is new");
    assert!(matches!(refused, SessionRefusal::Unavailable { .. }), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_stalls_known_sessions_go_on_and_new_ones_wait_for_no_answer() {
    let redis = Redis::start(RedisOptions::default());
    let line = FaultProxy::start(([127, 0, 0, 1], redis.port()).into());
    let server = Server::at(&format!("redis://127.0.0.1:{}", line.port())).await;
    let clock = Arc::new(ManualClock::at(UnixMs(0)));
    let registry: Arc<dyn Registry> = Arc::new(server.registry());
    let edge = Edge::new(&clock, &registry, 100);
    let stream = edge.enter(1, 2).await.expect("the first");
    line.set(Fault::Stall);
    clock.advance_ms(model::sessions::HEARTBEAT_MS);
    edge.beat().await;
    assert!(edge.knows(1));
    let refused = edge.enter(2, 2).await.expect_err("nobody can say");
    assert!(matches!(refused, SessionRefusal::Unavailable { retry_after_s: 1..=5 }));
    line.set(Fault::None);
    line.drop_connections();
    eventually("new ones are admitted again", async || edge.enter(2, 2).await.is_ok()).await;
    edge.beat().await;
    clock.advance_ms(model::sessions::HEARTBEAT_MS);
    assert!(!stream.is_lost(), "renewed in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admission_whose_answer_is_lost_holds_its_slot_for_the_ttl_at_most() {
    let redis = Redis::start(RedisOptions::default());
    let line = FaultProxy::start(([127, 0, 0, 1], redis.port()).into());
    let server = Server::at(&format!("redis://127.0.0.1:{}", line.port())).await;
    let direct = Server { guards: Arc::clone(&server.guards), ..Server::at(&redis.url()).await };
    let long = direct.registry().with_times(LONG_MS, 0);
    // The guard is there before the line breaks.
    assert_eq!(long.count(TENANT).await, Ok(0));
    assert_eq!(long.admit(member(1), terms(1)).await, Ok(Admission::Admitted));
    long.end(member(1)).await.expect("an end");
    let clock = Arc::new(ManualClock::at(UnixMs(0)));
    let lossy: Arc<dyn Registry> = Arc::new(server.registry().with_times(1_000, 0));
    let edge = Edge::new(&clock, &lossy, 100);
    line.set(Fault::DropReplies);
    edge.enter(2, 1).await.expect_err("no answer");
    assert!(edge.alive().is_empty(), "what is not answered is not served");
    eventually("its slot is free", async || {
        long.admit(member(3), terms(1)).await == Ok(Admission::Admitted)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_never_asked_for_a_slot() {
    let (redis, server) = own().await;
    two_sessions(&server).await;
    let other = Redis::start(RedisOptions::default());
    redis.demote_to(&other);
    let registry = server.registry();
    assert_eq!(registry.admit(member(1), terms(2)).await, Err(Unreachable));
    assert_eq!(registry.renew(TENANT, 2, vec![session(1)]).await, Err(Unreachable));
    assert_eq!(registry.count(TENANT).await, Err(Unreachable));
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_cluster_all_keys_of_a_family_are_on_one_node() {
    let cluster = RedisCluster::start(RedisOptions::default());
    let server = Server::at(&cluster.url()).await;
    let registry = server.registry();
    for tenant in (100..110).map(|number| TenantId(Uuid::from_u128(number))) {
        let member = Member { tenant, id: session(1) };
        eventually("its node answers", async || {
            registry.admit(member, terms(1)).await == Ok(Admission::Admitted)
        })
        .await;
        let other = Member { tenant, id: session(2) };
        assert_eq!(registry.admit(other, terms(1)).await, Ok(Admission::Full));
        registry.end(member).await.expect("an end");
        assert_eq!(registry.count(tenant).await, Ok(0));
    }
}
