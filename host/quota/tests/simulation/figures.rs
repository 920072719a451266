//! Figures of the design's targets, from worlds without faults and with the usual settings.
//!
//! Invariant: nothing in them hangs on the machine: time is the simulation's.

use std::{path::Path, time::Duration};

use tokio::time::Instant;

use super::{in_paused_time, memory_folder, population::Population, world::World};

/// Time after the first refusal in which the rest must have become usable.
const USABLE_WITHIN: Duration = Duration::from_secs(2);
/// Time after the first refusal in which all of a pool must have become usable: what others
/// hold of it comes back when their leases end, at the latest, and by two reports.
const POOL_ENDS_WITHIN: Duration = Duration::from_secs(15);
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
    world.charged_calls()
}

fn calls(world: &World) -> u64 {
    world.edges.iter().map(super::edge::Edge::calls).sum()
}

fn refused(world: &World) -> u64 {
    world.edges.iter().map(super::edge::Edge::refused).sum()
}

fn refusals(world: &World) -> (u64, u64) {
    let both = world.edges.iter().map(super::edge::Edge::refusals);
    both.fold((0, 0), |(quota, unknown), one| (quota + one.0, unknown + one.1))
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

/// Children of one pool, each with so many requests per second at every edge.
struct Pooled {
    total: u64,
    edges: usize,
    rates: &'static [u64],
    /// The others stop when so much of the pool is used, in percent; the first child goes on.
    others_stop_at: u64,
}

/// Share of a pool in percent from which on it is nearly used up.
const NEARLY_ALL: u64 = 90;

/// What a pool came to.
struct PoolEnd {
    /// Refused before [`NEARLY_ALL`] of it was used: with 429, and with 503.
    early: (u64, u64),
    /// Messages to a dispatcher, and calls to the authority that opened tranches.
    calls: (u64, u64),
    /// Charged at the first refusal after that.
    at_first: u64,
    /// Charged [`USABLE_WITHIN`] later.
    in_time: u64,
    /// Longest time in which nothing was admitted while the pool had tokens.
    stood: Duration,
    /// From the first refusal until all but one token in a thousand was used.
    rest_took: Duration,
}

impl Pooled {
    async fn run(&self, folder: &Path) -> PoolEnd {
        let population = Population::open_pool(self.rates.len() as u128, self.total);
        let mut world = World::calm_with(self.edges, population, folder);
        world.pass(500).await;
        let began = Instant::now();
        let mut sent = vec![0; self.rates.len()];
        let (mut first, mut rest, mut in_time, mut early) = (None, None, 0, (0, 0));
        let (mut last, mut since, mut stood) = (0, began, Duration::ZERO);
        while first.is_none_or(|(_, at): (u64, Instant)| at.elapsed() < POOL_ENDS_WITHIN) {
            assert!(began.elapsed() < ENDS_WITHIN, "never used up");
            world.pass(1).await;
            let ms = began.elapsed().as_millis() as u64;
            let charged = world.charged_calls();
            for (child, rate) in self.rates.iter().enumerate() {
                let due = ms * rate / 1_000 - sent[child];
                sent[child] += due;
                if child == 0 || charged * 100 < self.total * self.others_stop_at {
                    (0..self.edges).for_each(|edge| world.calls_of(child + 1, edge, due));
                }
            }
            let charged = world.charged_calls();
            if charged * 100 < self.total * NEARLY_ALL {
                early = refusals(&world);
            } else if first.is_none() && refused(&world) > early.0 + early.1 {
                first = Some((charged, Instant::now()));
            }
            if first.is_some_and(|(_, at)| at.elapsed() <= USABLE_WITHIN) {
                in_time = charged;
            }
            if charged > last || charged == self.total {
                (last, since) = (charged, Instant::now());
            }
            stood = stood.max(since.elapsed());
            let all = charged + (self.total / 1_000).max(1) >= self.total;
            if let Some((_, at)) = first.filter(|_| all && rest.is_none()) {
                rest = Some(at.elapsed());
            }
            if charged == self.total && first.is_some_and(|(_, at)| at.elapsed() > USABLE_WITHIN) {
                break;
            }
        }
        assert_eq!(world.truth.broken(), None);
        let (at_first, _) = first.expect("a refusal");
        let calls = (calls(&world), world.edges.iter().map(super::edge::Edge::opens).sum());
        PoolEnd {
            early,
            calls,
            at_first,
            in_time,
            stood,
            rest_took: rest.unwrap_or(POOL_ENDS_WITHIN),
        }
    }
}

#[test]
fn the_end_of_a_pool_is_usable_by_whoever_asks() {
    let folder = memory_folder();
    let mut missed = Vec::new();
    for (total, edges, rates, others_stop_at) in [
        (12_000, 1, &[1_500][..], 100),
        (12_000, 2, &[250, 250, 250], 100),
        (12_000, 4, &[300, 3, 3, 3], 100),
        (100_000, 4, &[500, 5, 5, 5], 100),
        (12_000, 4, &[100, 100, 100, 100], 90),
        (12_000, 4, &[100, 100, 100, 100, 100, 100, 100, 100], 50),
        (1_000, 4, &[20, 20, 20, 20], 90),
        (100_000, 4, &[500, 500, 500, 500], 90),
    ] {
        let pooled = Pooled { total, edges, rates, others_stop_at };
        let end = in_paused_time(pooled.run(folder.path()));
        let share = |charged: u64| charged as f64 * 100.0 / total as f64;
        println!(
            "pool of {total}, {edges} edges, {rates:?}/s at each, the others until \
             {others_stop_at} %: {:?} refused with 429 and 503 before 90 % was used; {:.2} % used \
             at the first refusal after that, {:.2} % 2 s later, all after {:.1} s; nothing \
             admitted for {:.1} s at most; {:?} messages and calls",
            end.early,
            share(end.at_first),
            share(end.in_time),
            end.rest_took.as_secs_f64(),
            end.stood.as_secs_f64(),
            end.calls
        );
        if end.rest_took >= POOL_ENDS_WITHIN {
            missed.push(format!("{total} at {rates:?}"));
        }
    }
    assert!(missed.is_empty(), "{missed:?}");
}
