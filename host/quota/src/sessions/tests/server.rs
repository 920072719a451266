//! The script against a real `redis-server`: expiry by its clock, guards, lost memory and
//! failover.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::Duration,
};

use model::{
    ledger::AuthorityError,
    sessions::{GuardRecord, GuardStore},
};
use redis::{Script, Value, aio::MultiplexedConnection};

use super::*;
use crate::sessions::in_redis::{InRedis, Scripts};

/// A time that no test waits for, in ms.
const LONG_MS: u64 = 60_000;
/// Hold of a new guard in these tests, in ms: longer than a few calls on a busy machine.
const HOLD_MS: u64 = 4_000;

/// A `redis-server` of one test, with the authority's memory of its guards.
pub(super) struct Server {
    process: Child,
    folder: tempfile::TempDir,
    port: u16,
    connection: MultiplexedConnection,
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

struct Connected(MultiplexedConnection);

impl Scripts for Connected {
    fn run<'a>(
        &'a self,
        script: &'a Script,
        keys: &'a [&'a str],
        arguments: &'a [String],
    ) -> BoxFuture<'a, Result<Value, Unreachable>> {
        let mut connection = self.0.clone();
        Box::pin(async move {
            let mut call = script.prepare_invoke();
            for key in keys {
                call.key(*key);
            }
            for argument in arguments {
                call.arg(argument.as_str());
            }
            call.invoke_async(&mut connection).await.map_err(|_| Unreachable)
        })
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

async fn connect(port: u16) -> MultiplexedConnection {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).expect("a client");
    for _ in 0..600 {
        if let Ok(mut connection) = client.get_multiplexed_async_connection().await
            && redis::cmd("PING").query_async::<String>(&mut connection).await.is_ok()
        {
            return connection;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("redis-server does not answer");
}

fn spawn(port: u16, folder: &std::path::Path) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .args(["--enable-debug-command", "yes", "--dir"])
        .arg(folder)
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server; install it with: apt-get install redis-server")
}

impl Server {
    pub(super) async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let port = port.expect("a free port").port();
        let process = spawn(port, folder.path());
        let connection = connect(port).await;
        Self { process, folder, port, connection, guards: Arc::default() }
    }

    pub(super) fn registry(&self) -> InRedis {
        let scripts = Arc::new(Connected(self.connection.clone()));
        InRedis::new(scripts, Arc::clone(&self.guards) as _)
    }

    async fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        command.query_async(&mut self.connection.clone()).await.expect("an answer")
    }

    /// A kill and a start from the dump.
    async fn restart_from_dump(&mut self) {
        let _saved: Value = self.ask(&["SAVE"]).await;
        self.process.kill().expect("a kill");
        self.process.wait().expect("an end");
        self.process = spawn(self.port, self.folder.path());
        self.connection = connect(self.port).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It ends anyway when it was killed already.
        let _gone = self.process.kill();
        let _gone = self.process.wait();
    }
}

#[tokio::test]
async fn without_heartbeats_a_slot_is_free_after_the_ttl_and_a_renewed_one_is_not() {
    let server = Server::start().await;
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

#[tokio::test]
async fn the_first_guard_of_a_family_holds_at_once_also_for_many_who_come_together() {
    let server = Server::start().await;
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
    assert_eq!(registry.admit(member(1), terms(2)).await, Ok(Admission::Admitted), "it is counted");
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

#[tokio::test]
async fn after_a_flush_only_renewals_are_admitted_for_a_while() {
    let server = Server::start().await;
    two_sessions(&server).await;
    let _flushed: Value = server.ask(&["FLUSHALL"]).await;
    only_renewals_until_the_hold_is_over(&server).await;
}

#[tokio::test]
async fn after_a_failover_the_copied_set_counts_for_nothing() {
    let server = Server::start().await;
    two_sessions(&server).await;
    // What a promoted replica has: the data, and a history of its own.
    let _changed: Value = server.ask(&["DEBUG", "CHANGE-REPL-ID"]).await;
    only_renewals_until_the_hold_is_over(&server).await;
}

#[tokio::test]
async fn after_a_restart_from_a_dump_the_old_set_counts_for_nothing() {
    let mut server = Server::start().await;
    two_sessions(&server).await;
    server.restart_from_dump().await;
    assert_eq!(server.registry().count(TENANT).await, Ok(0), "nobody is known to be there");
    only_renewals_until_the_hold_is_over(&server).await;
}

#[tokio::test]
async fn a_guard_that_arrives_late_or_for_another_life_or_second_is_not_believed() {
    let server = Server::start().await;
    two_sessions(&server).await;
    let guard = format!("s:{{{}}}:guard", TENANT.0);
    let kept: String = server.ask(&["GET", &guard]).await;
    let (fence, _) = kept.split_once(' ').expect("a fence");
    let time: (u64, u64) = server.ask(&["TIME"]).await;
    let now = time.0 * 1000 + time.1 / 1000;
    let script = Script::new(include_str!("../sessions.lua"));
    let live = format!("s:{{{0}}}:{0}", TENANT.0);
    let put = async |fence: &str, missed_at: u64| {
        let mut call = script.prepare_invoke();
        let (order, gone) = (format!("{live}:order"), format!("{live}:gone"));
        for key in [&live, &order, &gone, &guard] {
            call.key(key);
        }
        call.arg("guard").arg(LONG_MS).arg(fence).arg(missed_at).arg(0);
        let answer: Vec<String> =
            call.invoke_async(&mut server.connection.clone()).await.expect("an answer");
        answer.concat()
    };
    assert_eq!(put(fence, now).await, "OK", "there is one: nothing is done");
    assert_eq!(server.registry().count(TENANT).await, Ok(2));
    let _gone: Value = server.ask(&["DEL", &guard]).await;
    assert_eq!(put(fence, now - LONG_MS).await, "LATE");
    assert_eq!(put(fence, now + LONG_MS).await, "LATE");
    assert_eq!(put("redis:0a:0b", now).await, "FENCED");
    let there: u64 = server.ask(&["EXISTS", &guard]).await;
    assert_eq!(there, 0);
}

#[tokio::test]
async fn an_edge_keeps_its_sessions_through_a_flush_and_admits_nobody_above_the_limit() {
    let server = Server::start().await;
    let clock = Arc::new(ManualClock::at(UnixMs(0)));
    let registry: Arc<dyn Registry> = Arc::new(server.registry().with_times(LONG_MS, LONG_MS));
    let edge = Edge::new(&clock, &registry, 100);
    let stream = edge.enter(1, 2).await.expect("the first");
    edge.enter(2, 2).await.expect("the second");
    let _flushed: Value = server.ask(&["FLUSHALL"]).await;
    clock.advance_ms(model::sessions::HEARTBEAT_MS);
    // A heartbeat in which the guard is made may take longer than one waits for it.
    for _ in 0..20 {
        edge.beat().await;
    }
    assert!(!stream.is_lost() && edge.knows(1) && edge.knows(2));
    assert_eq!(registry.count(TENANT).await, Ok(2));
    let other = Edge::new(&clock, &registry, 100);
    let refused = other.enter(3, 2).await.expect_err("the guard is new");
    assert!(matches!(refused, SessionRefusal::Unavailable { .. }), "{refused:?}");
}

#[tokio::test]
async fn a_replica_is_never_asked_for_a_slot() {
    let server = Server::start().await;
    two_sessions(&server).await;
    let _demoted: Value = server.ask(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let registry = server.registry();
    assert_eq!(registry.admit(member(1), terms(2)).await, Err(Unreachable));
    assert_eq!(registry.renew(TENANT, 2, vec![session(1)]).await, Err(Unreachable));
    assert_eq!(registry.count(TENANT).await, Err(Unreachable));
}
