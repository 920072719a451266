//! What a decision costs: `cargo run --release -p leanvibe-quota --example decision_cost`.
//!
//! Prints nanoseconds per take and spend of one token, of two metrics, and per denial, on
//! one thread and on as many as there are cores.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a measuring program: a failure is its own message"
)]

#[path = "../tests/quota/bench.rs"]
#[allow(dead_code, unused_imports, reason = "the tests use the rest")]
mod bench;

use std::{sync::Arc, thread, time::Instant};

use bench::{AI, API, Bench, NOON, spend_all, tenant};
use model::{
    gate::{Meter, Take},
    quota::MetricSet,
};

const TAKES: u32 = 5_000_000;
/// Large enough that a lease is refilled rarely, as in steady traffic.
const LIMIT: u64 = 4_000_000_000;

/// Nanoseconds per take, waits included, and how many had to wait.
fn run(meter: &Arc<dyn Meter>, metrics: MetricSet, takes: u32) -> (f64, u32) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut waits = 0;
    let started = Instant::now();
    for _ in 0..takes {
        match Arc::clone(meter).take(metrics, NOON) {
            Take::Granted(permit) => drop(permit.spend()),
            Take::Denied(_) => {}
            Take::Wait(wait) => {
                waits += 1;
                drop(runtime.block_on(wait).unwrap().spend());
            }
        }
    }
    (started.elapsed().as_nanos() as f64 / f64::from(takes), waits)
}

fn on_threads(meter: &Arc<dyn Meter>, metrics: MetricSet, threads: u32) {
    let workers: Vec<_> = (0..threads)
        .map(|_| {
            let meter = Arc::clone(meter);
            thread::spawn(move || run(&meter, metrics, TAKES / threads))
        })
        .collect();
    let results: Vec<_> = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
    let mean = results.iter().map(|(ns, _)| ns).sum::<f64>() / f64::from(threads);
    let waits: u32 = results.iter().map(|(_, waits)| waits).sum();
    println!("  {threads} thread(s): {mean:6.1} ns each, {waits} of {TAKES} waited");
}

#[tokio::main]
async fn main() {
    let bench = Bench::new().await;
    let threads = thread::available_parallelism().map_or(1, |n| n.get() as u32);
    for (name, metrics) in [("api_calls", API), ("api_calls + ai_requests", API.union(AI))] {
        let tenant = tenant(LIMIT, LIMIT);
        let meter = bench.meter(&tenant);
        // Traffic first, so that leases have the size of this rate.
        let warm = Arc::clone(&meter);
        tokio::task::spawn_blocking(move || run(&warm, metrics, 3 * TAKES)).await.unwrap();
        println!("take + spend of {name}");
        for threads in [1, threads] {
            let meter = Arc::clone(&meter);
            let work = move || on_threads(&meter, metrics, threads);
            tokio::task::spawn_blocking(work).await.unwrap();
        }
    }
    let tenant = tenant(5, 0);
    let meter = bench.meter(&tenant);
    spend_all(&meter, API, NOON).await;
    let denials = tokio::task::spawn_blocking(move || run(&meter, API, TAKES).0);
    println!("denial of an exhausted quota: {:6.1} ns", denials.await.unwrap());
}
