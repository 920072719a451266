//! Figures of the design's targets, from worlds without faults and with the usual settings.
//!
//! Invariant: nothing in them hangs on the machine: time is the simulation's.

use std::{path::Path, time::Duration};

use model::quota::Metric;
use tokio::time::Instant;

use super::{in_paused_time, memory_folder, world::World};

/// Time after the first refusal in which the rest must have become usable.
const USABLE_WITHIN: Duration = Duration::from_secs(2);
/// Longest run.
const ENDS_WITHIN: Duration = Duration::from_secs(600);

/// Load on every edge in requests per second, from even intervals.
struct Load {
    began: Instant,
    rates: Vec<u64>,
    sent: Vec<u64>,
}

impl Load {
    fn new(rates: &[u64]) -> Self {
        let sent = vec![0; rates.len()];
        Self { began: Instant::now(), rates: rates.to_vec(), sent }
    }

    /// One millisecond, and what is due in it.
    async fn pass(&mut self, world: &mut World) {
        world.pass(1).await;
        let ms = self.began.elapsed().as_millis() as u64;
        for (edge, rate) in self.rates.iter().enumerate() {
            let due = ms * rate / 1_000 - self.sent[edge];
            self.sent[edge] += due;
            world.calls(edge, due);
        }
    }
}

fn charged(world: &World) -> u64 {
    world.truth.charged(world.truth.present(Metric::ApiCalls))
}

fn calls(world: &World) -> u64 {
    world.edges.iter().map(super::edge::Edge::calls).sum()
}

fn refused(world: &World) -> u64 {
    world.edges.iter().map(super::edge::Edge::refused).sum()
}

/// Charged at the first refusal, and [`USABLE_WITHIN`] later.
async fn skewed(limit: u64, rates: &[u64], folder: &Path) -> (u64, u64) {
    let mut world = World::calm(rates.len(), limit, folder);
    world.pass(500).await;
    let mut load = Load::new(rates);
    while refused(&world) == 0 {
        assert!(load.began.elapsed() < ENDS_WITHIN, "never used up");
        load.pass(&mut world).await;
    }
    let (at_first, refused_at) = (charged(&world), Instant::now());
    while refused_at.elapsed() < USABLE_WITHIN {
        load.pass(&mut world).await;
    }
    assert_eq!(world.truth.broken(), None);
    (at_first, charged(&world))
}

#[test]
fn with_a_hundred_times_the_load_at_one_edge_the_rest_is_usable_within_two_seconds() {
    let folder = memory_folder();
    let mut missed = Vec::new();
    for (limit, rates) in [
        (12_000, &[1_500, 15, 15, 15][..]),
        (12_000, &[1_500, 15]),
        (1_000, &[500, 5, 5, 5]),
        (100_000, &[10_000, 100, 100, 100]),
    ] {
        let (at_first, in_time) = in_paused_time(skewed(limit, rates, folder.path()));
        let share = |charged: u64| charged as f64 * 100.0 / limit as f64;
        println!(
            "usable share of {limit} at {rates:?}/s: {:.2} % at the first refusal, {:.2} % 2 s \
             later",
            share(at_first),
            share(in_time)
        );
        let wanted = (limit - limit / 1_000).min(limit - rates.len() as u64);
        if in_time < wanted {
            missed.push(format!("{in_time} of {limit} at {rates:?}"));
        }
    }
    assert!(missed.is_empty(), "{missed:?}");
}

/// Calls per ten seconds and admitted requests, once leases have grown.
async fn steady(limit: u64, rates: &[u64], folder: &Path) -> (u64, u64) {
    let mut world = World::calm(rates.len(), limit, folder);
    world.pass(500).await;
    let mut load = Load::new(rates);
    while load.began.elapsed() < Duration::from_secs(10) {
        load.pass(&mut world).await;
    }
    let (calls_before, before) = (calls(&world), charged(&world));
    while load.began.elapsed() < Duration::from_secs(20) {
        load.pass(&mut world).await;
    }
    assert_eq!(refused(&world), 0);
    (calls(&world) - calls_before, charged(&world) - before)
}

#[test]
fn a_steady_load_costs_one_message_per_sixty_four_requests_at_most() {
    let folder = memory_folder();
    for (limit, rates) in
        [(100_000, &[64; 4][..]), (1_000_000, &[250; 4]), (1_000_000, &[1_500, 15, 15, 15])]
    {
        let (calls, admitted) = in_paused_time(steady(limit, rates, folder.path()));
        println!("{calls} messages for {admitted} requests of {limit} at {rates:?}/s");
        assert!(calls * 64 <= admitted, "{calls} messages for {admitted} requests");
    }
}
