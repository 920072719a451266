//! User sessions: a set with heartbeats at two registries, guarded against loss, and edges
//! that close what they cannot renew.
//!
//! Each session lives on an edge of its own. Time passes in thirds of the TTL; an edge, a
//! registry and a message may be as slow as they like. The registries know nothing of each
//! other: split brain. A restart is a loss of the data here, and a failover is a move to
//! the other registry, as a guard that came with a copy is foreign.

mod edge;
mod registry;
mod state;
mod tests;

use self::state::State;
use crate::checker::{Model, Next};

pub(crate) const TOO_MANY: &str = "more sessions alive than the limit";

/// Thirds of the TTL for which a registry counts a member.
const TTL: u8 = 3;
/// How long before the registry's expiry an edge closes a session that it could not renew.
const MARGIN: u8 = 1;
/// How long a later guard admits renewals only.
const HOLD: u8 = TTL + MARGIN;
/// A guard that took this long to arrive is not believed. The real bound is a 15th of it.
const GUARD_LATE: u8 = 1;

/// Which rules hold; removing one is one line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    /// A set counts only under a guard; without the rule a lost set is an empty one.
    pub guard: bool,
    /// A later guard admits renewals only, for TTL + margin.
    pub hold: bool,
    /// … not for less: without the rule for one third of the TTL.
    pub hold_long: bool,
    /// A guard that arrives late is refused.
    pub guard_in_time: bool,
    /// A guard counts only while the authority confirms that it is the latest.
    pub guard_confirmed: bool,
    /// … as that very guard: one that was made again in the same registry is another.
    pub guard_numbered: bool,
    /// While a guard holds, an admission is refused even to a member: a renewal that was
    /// long on its way may have added what closed long ago.
    pub members_held: bool,
    /// An edge closes what it cannot renew.
    pub self_closing: bool,
    /// … the margin before the registry forgets it.
    pub margin: bool,
    /// … counted from when the message was sent.
    pub from_send: bool,
    /// A member that is gone is added again only below the limit.
    pub readded_below_limit: bool,
    /// A renewal that comes after its session was closed does not open it again.
    pub closed_stays_closed: bool,
}

impl Rules {
    pub(crate) const ALL: Self = Self {
        guard: true,
        hold: true,
        hold_long: true,
        guard_in_time: true,
        guard_confirmed: true,
        guard_numbered: true,
        members_held: true,
        self_closing: true,
        margin: true,
        from_send: true,
        readded_below_limit: true,
        closed_stays_closed: true,
    };
}

pub(crate) struct Sessions {
    pub rules: Rules,
    pub limit: u8,
    /// Sessions that want to live, at most [`state::SESSIONS`].
    pub sessions: usize,
    pub registries: usize,
    /// Steps of a registry's clock by a third of the TTL.
    pub clock_steps: u8,
    /// The family's first guard may be long on its way.
    pub first_late: bool,
}

impl Model for Sessions {
    type State = State;

    fn start(&self) -> State {
        State { clock_steps: self.clock_steps, ..State::default() }
    }

    fn steps(&self, state: &State, next: &mut Next<State>) {
        registry::steps(self, state, next);
        edge::steps(self, state, next);
        let mut then = *state;
        then.pass_time(self.rules.self_closing);
        next.to(then, format_args!("a third of the TTL passes"));
    }

    fn broken(&self, state: &State) -> Option<&'static str> {
        let alive = state.edges.iter().filter(|edge| edge.alive > 0).count();
        (alive > usize::from(self.limit)).then_some(TOO_MANY)
    }
}
