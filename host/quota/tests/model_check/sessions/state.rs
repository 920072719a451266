//! What registries, edges and the authority know, as times that are left.

use crate::codec::{Codec, Fields};

pub(crate) const SESSIONS: usize = 3;
pub(crate) const REGISTRIES: usize = 2;

/// A message's way.
pub(crate) mod flight {
    pub(crate) const NONE: u8 = 0;
    pub(crate) const ASKED: u8 = 1;
    pub(crate) const GRANTED: u8 = 2;
}

#[derive(Clone, Copy, Default)]
pub(crate) struct Registry {
    pub guarded: bool,
    /// Time before which nobody new is admitted.
    pub hold: u8,
    /// Time that each session is counted for; 0: it is not a member.
    pub members: [u8; SESSIONS],
    /// The family's first guard is on its way here.
    pub first: bool,
    /// … for so long.
    pub first_age: u8,
}

#[derive(Clone, Copy, Default)]
pub(crate) struct Edge {
    /// Time for which it may serve its session; 0: closed.
    pub alive: u8,
    /// Its message: see [`flight`].
    pub flight: u8,
    pub renewal: bool,
    pub to: u8,
    pub age: u8,
    /// The answer was given under a guard that was replaced since.
    pub outdated: bool,
    /// The registry whose guard was the latest when the edge asked the authority,
    pub latest: u8,
    /// … which is worth so much time,
    pub confirmed: u8,
    /// … and whether that guard was replaced since, in the same registry.
    pub replaced: bool,
}

#[derive(Clone, Copy, Default)]
pub(crate) struct State {
    pub registries: [Registry; REGISTRIES],
    pub edges: [Edge; SESSIONS],
    /// The authority: 0 when there was never a guard, else the registry of the latest + 1.
    pub latest: u8,
    pub clock_steps: u8,
}

impl Fields for State {
    fn fields<const W: usize>(&mut self, codec: &mut Codec<W>) {
        codec.field(&mut self.latest, 2);
        codec.field(&mut self.clock_steps, 1);
        for registry in &mut self.registries {
            codec.flag(&mut registry.guarded);
            codec.field(&mut registry.hold, 3);
            codec.each(&mut registry.members, 2);
            codec.flag(&mut registry.first);
            codec.field(&mut registry.first_age, 1);
        }
        for edge in &mut self.edges {
            codec.field(&mut edge.alive, 2);
            codec.field(&mut edge.flight, 2);
            codec.flag(&mut edge.renewal);
            codec.field(&mut edge.to, 1);
            codec.field(&mut edge.age, 2);
            codec.flag(&mut edge.outdated);
            codec.field(&mut edge.latest, 1);
            codec.field(&mut edge.confirmed, 2);
            codec.flag(&mut edge.replaced);
        }
    }
}

impl Registry {
    pub(crate) fn count(&self) -> u8 {
        self.members.iter().map(|left| u8::from(*left > 0)).sum()
    }

    /// Time passes, or its clock is stepped.
    pub(crate) fn pass_time(&mut self) {
        self.hold = self.hold.saturating_sub(1);
        for left in &mut self.members {
            *left = left.saturating_sub(1);
        }
    }
}

impl Edge {
    pub(crate) fn forget_message(&mut self) {
        (self.flight, self.age, self.renewal) = (flight::NONE, 0, false);
        (self.to, self.outdated) = (0, false);
    }

    /// What it knows of a registry's guard is about the one before. Of two before, nothing
    /// is known: its answers and confirmations have no time left that matters.
    pub(crate) fn replace_guard(&mut self, registry: u8) {
        if self.confirmed > 0 && self.latest == registry {
            if self.replaced {
                (self.confirmed, self.latest, self.replaced) = (0, 0, false);
            } else {
                self.replaced = true;
            }
        }
        if self.flight == flight::GRANTED && self.to == registry {
            if self.outdated {
                self.forget_message();
            } else {
                self.outdated = true;
            }
        }
    }
}

impl State {
    pub(crate) fn pass_time(&mut self, closing: bool) {
        for registry in &mut self.registries {
            registry.pass_time();
            // Older than the bound is as good as any age.
            registry.first_age = u8::from(registry.first);
        }
        for edge in &mut self.edges {
            if closing {
                edge.alive = edge.alive.saturating_sub(1);
            }
            if edge.flight != flight::NONE {
                edge.age = (edge.age + 1).min(super::TTL);
            }
            edge.confirmed = edge.confirmed.saturating_sub(1);
            if edge.confirmed == 0 {
                (edge.latest, edge.replaced) = (0, false);
            }
        }
    }
}
