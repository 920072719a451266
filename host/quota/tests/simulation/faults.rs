//! What goes wrong in a schedule, and when it is over.
//!
//! Every schedule has some kinds of faults and not the others, so that all combinations of
//! few are tried. Invariant: what is taken away is given back, at the latest in the end.

use std::time::Duration;

use rand::{Rng as _, rngs::StdRng};
use tokio::time::Instant;

use super::{
    network::Place,
    trace::trace,
    world::{Later, World},
};

/// One step in so many brings a fault.
const EVERY: u32 = 5;
/// Longest time until an edge is back, or a way is open again, in ms.
const LASTS_MS: u64 = 2_500;

#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    Kill(usize),
    LoseMachine(usize),
    Start(usize),
    WritePages(usize),
    Flush(usize),
    Save(usize),
    RestartServer(usize),
    Hang(usize),
    WakeUp(usize),
    /// The other becomes master, and the first remains one.
    SplitBrain(usize),
    /// The other becomes master in its place.
    Failover(usize),
    Cut(usize, Place),
    Join(usize, Place),
    Weather,
    Limit,
}

/// Kinds of faults; a schedule has about half of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Kills,
    Machines,
    Data,
    Dumps,
    Hangs,
    Masters,
    Servers,
    Authority,
    Weather,
    Limits,
}

const KINDS: [Kind; 10] = [
    Kind::Kills,
    Kind::Machines,
    Kind::Data,
    Kind::Dumps,
    Kind::Hangs,
    Kind::Masters,
    Kind::Servers,
    Kind::Authority,
    Kind::Weather,
    Kind::Limits,
];

pub(super) struct Faults {
    kinds: Vec<Kind>,
    later: Vec<Later>,
    busy: u32,
    struck: u64,
}

impl Faults {
    pub(super) fn of(random: &mut StdRng) -> Self {
        let part = random.random_range(1..=6);
        let kinds = KINDS.into_iter().filter(|_| random.random_range(0..10) < part).collect();
        let busy = [4, 20, 60][random.random_range(0..3)];
        Self { kinds, later: Vec::new(), busy, struck: 0 }
    }

    /// Requests of a step, less than.
    pub(super) const fn load(&self) -> u32 {
        self.busy
    }

    pub(super) const fn struck(&self) -> u64 {
        self.struck
    }

    /// What happens now, if anything.
    pub(super) fn next(&mut self, random: &mut StdRng) -> Option<Fault> {
        let now = Instant::now();
        if let Some(due) = self.later.iter().position(|(at, _)| *at <= now) {
            return Some(self.later.swap_remove(due).1);
        }
        if self.kinds.is_empty() || random.random_range(0..EVERY) > 0 {
            return None;
        }
        self.struck += 1;
        let kind = self.kinds[random.random_range(0..self.kinds.len())];
        let (edge, server) = (random.random_range(0..4), random.random_range(0..2));
        let fault = match (kind, random.random_range(0..3)) {
            (Kind::Kills, _) => Fault::Kill(edge),
            (Kind::Machines, 0 | 1) => Fault::WritePages(edge),
            (Kind::Machines, _) => Fault::LoseMachine(edge),
            (Kind::Data, _) => Fault::Flush(server),
            (Kind::Dumps, 0 | 1) => Fault::Save(server),
            (Kind::Dumps, _) => Fault::RestartServer(server),
            (Kind::Hangs, _) => Fault::Hang(server),
            (Kind::Masters, 0) => Fault::SplitBrain(server),
            (Kind::Masters, _) => Fault::Failover(server),
            (Kind::Servers, _) => Fault::Cut(edge, Place::Server(server)),
            (Kind::Authority, _) => Fault::Cut(edge, Place::Authority),
            (Kind::Weather, _) => Fault::Weather,
            (Kind::Limits, _) => Fault::Limit,
        };
        self.then(fault, random);
        Some(fault)
    }

    /// Notes what ends a fault.
    fn then(&mut self, fault: Fault, random: &mut StdRng) {
        let end = match fault {
            Fault::Kill(edge) | Fault::LoseMachine(edge) => Fault::Start(edge),
            Fault::Hang(server) => Fault::WakeUp(server),
            Fault::Cut(edge, place) => Fault::Join(edge, place),
            _ => return,
        };
        let lasts = Duration::from_millis(random.random_range(1..=LASTS_MS));
        self.later.push((Instant::now() + lasts, end));
    }

    /// Nothing more happens.
    pub(super) fn end(&mut self) {
        self.kinds.clear();
        self.later.clear();
    }
}

impl Fault {
    pub(super) async fn strike(self, world: &mut World) {
        trace(&world.clock, format_args!("{self:?}"));
        match self {
            Self::Kill(edge)
            | Self::LoseMachine(edge)
            | Self::Start(edge)
            | Self::WritePages(edge)
                if edge >= world.edges.len() => {}
            Self::Kill(edge) => world.kill(edge).await,
            Self::LoseMachine(edge) => world.lose_machine(edge).await,
            Self::Start(edge) => {
                if world.edges[edge].is_down() {
                    world.edges[edge].start();
                }
            }
            Self::WritePages(edge) => world.edges[edge].write_pages(),
            Self::Flush(server) => world.servers[server].flush(),
            Self::Save(server) => world.servers[server].save(),
            Self::RestartServer(server) => world.servers[server].restart(),
            Self::Hang(server) => world.servers[server].set_up(false),
            Self::WakeUp(server) => world.servers[server].set_up(true),
            Self::SplitBrain(server) => world.servers[server].promote(),
            Self::Failover(server) => {
                world.servers[1 - server].demote();
                world.servers[server].promote();
            }
            Self::Cut(edge, place) => world.cut(edge, place),
            Self::Join(edge, place) => world.network.join(edge, place),
            Self::Weather => world.set_weather(),
            Self::Limit => world.change_limit(),
        }
    }
}
