//! LEASE scripts a second beside `INCR`, over 16 connections to one Redis of its own:
//! `cargo run --release -p leanvibe-quota --example lease_throughput`.
//!
//! Both take turns in short rounds, so that they share whatever else the machine does; what
//! counts is their ratio. Each connection has one call under way.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a measuring program: a failure is its own message"
)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use model::{
    clock::UnixMs,
    ledger::{
        Bounds, Dispatcher, EpochRef, HolderId, InstallPermit, LeaseAnswer, LeaseRequest, WindowKey,
    },
    quota::Metric,
    tenant::TenantId,
    window::Window,
};
use quota::{RedisServers, RedisTarget, RedisTls, shared_dispatcher};
use redis::aio::MultiplexedConnection;
use services::{Redis, RedisOptions};
use tokio::task::JoinSet;
use uuid::Uuid;

/// As in the design's table.
const CONNECTIONS: usize = 16;
/// Tokens of one lease, as an edge asks for at 32 requests a second.
const WANT: u64 = 64;
/// Large enough that no round uses it up.
const TRANCHE: u64 = 1 << 40;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);
/// Longer than any call takes.
const CALL_LIMIT: Duration = Duration::from_secs(5);

/// A connection with an account of its own.
struct Edge {
    dispatcher: Arc<dyn Dispatcher>,
    request: LeaseRequest,
}

impl Edge {
    async fn at(url: &str) -> Self {
        let target = RedisTarget::parse(url, RedisTls::default()).unwrap();
        let servers = RedisServers::connect(target, CALL_LIMIT).unwrap();
        let dispatcher = shared_dispatcher(servers);
        let window = Window { start: UnixMs(0), end: UnixMs(4_000_000_000_000) };
        let key = WindowKey { tenant: TenantId(Uuid::new_v4()), metric: Metric::ApiCalls, window };
        let fence = loop {
            if let Some(fence) = dispatcher.fence(&key) {
                break fence;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let of = EpochRef { key, epoch: 1 };
        let permit = InstallPermit::issue(of, fence, TRANCHE, TRANCHE, UnixMs(0));
        dispatcher.install(permit).await.unwrap();
        let request = LeaseRequest {
            key,
            holder: HolderId::random(),
            seq: 0,
            want: WANT,
            returned: 0,
            returned_epoch: 0,
            bounds: Bounds { floor: 0, latest: 1 },
        };
        Self { dispatcher, request }
    }

    /// Leases until then; how often.
    async fn lease(&mut self, until: Instant) -> u64 {
        let mut calls = 0;
        while Instant::now() < until {
            self.request.seq += 1;
            match self.dispatcher.lease(self.request).await.unwrap() {
                LeaseAnswer::Granted(grant) if grant.tokens == WANT => calls += 1,
                other => panic!("no lease of {WANT}: {other:?}"),
            }
        }
        calls
    }
}

async fn incr(connection: &mut MultiplexedConnection, key: &str, until: Instant) -> u64 {
    let mut calls = 0;
    while Instant::now() < until {
        let _: u64 = redis::cmd("INCR").arg(key).query_async(connection).await.unwrap();
        calls += 1;
    }
    calls
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let server = Redis::start(RedisOptions::default());
    let client = redis::Client::open(server.url()).unwrap();
    let (mut edges, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..CONNECTIONS {
        edges.push(Edge::at(&server.url()).await);
        plain.push(client.get_multiplexed_async_connection().await.unwrap());
    }
    let (mut leases, mut incrs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let until = Instant::now() + ROUND;
        let mut round = JoinSet::new();
        for mut edge in edges.drain(..) {
            round.spawn(async move { (edge.lease(until).await, edge) });
        }
        let mut calls = 0;
        for (count, edge) in round.join_all().await {
            calls += count;
            edges.push(edge);
        }
        leases.push(calls as f64 / ROUND.as_secs_f64());

        let until = Instant::now() + ROUND;
        let mut round = JoinSet::new();
        for (number, mut connection) in plain.drain(..).enumerate() {
            let key = format!("plain:{number}");
            round.spawn(async move { (incr(&mut connection, &key, until).await, connection) });
        }
        let mut calls = 0;
        for (count, connection) in round.join_all().await {
            calls += count;
            plain.push(connection);
        }
        incrs.push(calls as f64 / ROUND.as_secs_f64());
    }
    let ratios = leases.iter().zip(&incrs).map(|(lease, incr)| lease / incr).collect();
    println!("over {CONNECTIONS} connections, {ROUNDS} rounds of {} s, medians", ROUND.as_secs());
    println!("  INCR   {:9.0} a second", median(incrs));
    println!("  LEASE  {:9.0} a second, {WANT} tokens each", median(leases));
    println!("  ratio  {:9.2}", median(ratios));
}
