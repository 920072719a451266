//! Deterministic simulation: the real keeper, lease file, slots and gate, the rules of the
//! real dispatcher, and an authority in memory, on a clock that only moves when everybody
//! waits and a network whose every message draws its fate from a seed.
//!
//! A schedule is its seed: two to four edges, some kinds of faults, and peace in the end. It is
//! run for a tenant of its own, for one that edges keep tokens aside of, and for a family that
//! draws from pools, whose terms change.
//! `QUOTA_SIMULATIONS` says how many are run (a seed each, from 1), `QUOTA_SIMULATION_SEED`
//! runs one again. Invariants: see `truth` and `world`. Every rule that the world around
//! the engine keeps is also broken in turn, and the simulation must then find it.

mod books;
mod clock;
mod edge;
mod faults;
mod figures;
mod link;
mod network;
mod population;
mod redis;
mod remote;
mod rules;
#[path = "../quota/tenants.rs"]
#[expect(dead_code, reason = "shared with the tests of the whole engine")]
mod tenants;
mod trace;
mod truth;
mod world;

use std::{
    ops::Range,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use self::{
    population::Kind,
    rules::Rules,
    world::{Outcome, World},
};

/// Schedules of a usual run; a debug build takes some seconds for them.
const USUAL: u64 = 120;
/// Schedules in which a broken rule has to show.
const FOUND_WITHIN: u64 = 3_000;
const THREADS: u64 = 2;

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text}")))
}

/// Runs something on a clock that moves when everybody waits.
fn in_paused_time<T>(work: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(work)
}

/// Runs one schedule.
fn simulate(seed: u64, rules: Rules, kind: Kind, folder: &Path) -> Outcome {
    for file in std::fs::read_dir(folder).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    in_paused_time(async { World::new(seed, rules, kind, folder).run().await })
}

/// The first seed that breaks, if one does, and the sums of what happened.
struct Found {
    broken: Option<(u64, String)>,
    schedules: u64,
    admitted: u64,
    faults: u64,
    lost: u64,
}

fn search(seeds: Range<u64>, rules: Rules, kind: Kind) -> Found {
    let next = AtomicU64::new(seeds.start);
    let none = Found { broken: None, schedules: 0, admitted: 0, faults: 0, lost: 0 };
    let found = Mutex::new(none);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let folder = memory_folder();
                while found.lock().unwrap().broken.is_none() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let outcome = simulate(seed, rules, kind, folder.path());
                    let mut found = found.lock().unwrap();
                    found.schedules += 1;
                    found.admitted += outcome.admitted;
                    found.faults += outcome.faults;
                    found.lost += outcome.lost;
                    // What is only wasted is no proof that a broken rule is found.
                    let wasted = outcome.wasted.filter(|_| rules == Rules::ALL);
                    if let Some(broken) = outcome.broken.or(wasted) {
                        found.broken.get_or_insert((seed, broken));
                    }
                }
            });
        }
    });
    found.into_inner().unwrap()
}

/// A folder for lease files, in memory where the system has one.
fn memory_folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// Runs the usual schedules, or as many as asked for, of tenants of a kind.
fn run_all(kind: Kind) {
    let seeds = match setting("QUOTA_SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..1 + setting("QUOTA_SIMULATIONS").unwrap_or(USUAL),
    };
    let found = search(seeds, Rules::ALL, kind);
    let Found { broken, schedules, admitted, faults, lost } = found;
    println!(
        "{kind:?}: {schedules} schedules, {admitted} requests admitted, {faults} faults, {lost} \
         holders lost"
    );
    if let Some((seed, broken)) = broken {
        panic!("QUOTA_SIMULATION_SEED={seed} shows ({kind:?}): {broken}");
    }
    assert!(admitted > 0 && (faults > 0 || schedules == 1), "nothing happened");
}

#[test]
fn no_schedule_admits_more_than_the_limit_or_wastes_more_than_promised() {
    run_all(Kind::Lone);
}

#[test]
fn no_schedule_in_which_edges_keep_tokens_aside_does() {
    run_all(Kind::Keeping);
}

#[test]
fn no_schedule_of_a_family_admits_more_than_its_pools_or_wastes_more_than_promised() {
    run_all(Kind::Family);
}

#[test]
fn a_schedule_is_its_seed() {
    let folder = memory_folder();
    let run = |seed, kind| {
        let outcome = simulate(seed, Rules::ALL, kind, folder.path());
        let Outcome { admitted, faults, lost, .. } = outcome;
        (admitted, faults, lost)
    };
    for kind in [Kind::Lone, Kind::Keeping, Kind::Family] {
        for seed in 1..8 {
            assert_eq!(run(seed, kind), run(seed, kind), "seed {seed} of {kind:?}");
        }
    }
}

/// Breaks a rule. `first` is a schedule shortly before one in which it shows: from any other
/// it would show too, but the tests would take longer.
fn finds(first: u64, rules: Rules) {
    finds_with(first, rules, Kind::Lone);
}

fn finds_with(first: u64, rules: Rules, kind: Kind) {
    let found = search(first..first + FOUND_WITHIN, rules, kind);
    let (seed, broken) = found.broken.expect("the broken rule shows");
    println!("found in schedule {seed}, after {}: {broken}", found.schedules);
}

#[test]
fn a_restart_from_a_dump_under_the_same_fence_is_found() {
    finds(150, Rules { fence: false, ..Rules::ALL });
}

#[test]
fn an_old_message_that_is_taken_in_is_found() {
    finds(306, Rules { seq_rises: false, ..Rules::ALL });
}

#[test]
fn a_tranche_that_is_installed_twice_is_found() {
    finds(10, Rules { install_once: false, ..Rules::ALL });
}

#[test]
fn a_credit_by_timeout_is_found() {
    finds(4, Rules { credit_after_seals: false, ..Rules::ALL });
}

#[test]
fn a_lease_file_of_before_a_power_loss_is_found() {
    finds(97, Rules { same_boot: false, ..Rules::ALL });
}

#[test]
fn a_tranche_that_is_larger_than_what_its_pool_has_left_is_found() {
    finds_with(1, Rules { pools: false, ..Rules::ALL }, Kind::Family);
}

#[test]
fn a_member_that_leaves_its_pool_with_what_it_used_is_found() {
    finds_with(1, Rules { pools_carry: false, ..Rules::ALL }, Kind::Family);
}
