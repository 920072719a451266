//! The edges: each has one session, asks for it, renews it, and dies without a word.

use super::{
    MARGIN, Sessions, TTL,
    state::{State, flight},
};
use crate::checker::Next;

pub(super) fn steps(model: &Sessions, state: &State, next: &mut Next<State>) {
    for session in 0..model.sessions {
        let edge = &state.edges[session];
        if edge.flight == flight::NONE {
            ask(model, state, session, next);
        } else {
            let mut then = *state;
            then.edges[session].forget_message();
            next.to(then, format_args!("a message of session {session} or its answer is lost"));
        }
        if edge.flight == flight::GRANTED {
            take_in(model, state, session, next);
        }
        if edge.alive > 0 {
            let mut then = *state;
            then.edges[session].alive = 0;
            next.to(then, format_args!("the edge of session {session} dies"));
        }
        if state.latest > 0 && model.rules.guard_confirmed {
            let latest = state.latest - 1;
            let mut then = *state;
            let edge = &mut then.edges[session];
            (edge.latest, edge.confirmed, edge.replaced) = (latest, TTL - MARGIN, false);
            next.to(then, format_args!("session {session}: registry {latest} is confirmed"));
        }
    }
}

/// One message at a time: for a session that lives a renewal, else an admission.
fn ask(model: &Sessions, state: &State, session: usize, next: &mut Next<State>) {
    for to in 0..model.registries {
        let mut then = *state;
        let edge = &mut then.edges[session];
        edge.flight = flight::ASKED;
        edge.renewal = edge.alive > 0;
        edge.to = to as u8;
        let kind = if edge.renewal { "renewal" } else { "admission" };
        next.to(then, format_args!("session {session} sends its {kind} to registry {to}"));
    }
}

/// The answer arrives. It is worth what is left of the time since the question, and of the
/// time since the authority confirmed the registry.
fn take_in(model: &Sessions, state: &State, session: usize, next: &mut Next<State>) {
    let rules = &model.rules;
    let mut then = *state;
    let edge = &mut then.edges[session];
    let full = if rules.margin { TTL - MARGIN } else { TTL };
    let mut worth = if rules.from_send { full.saturating_sub(edge.age) } else { full };
    if rules.guard_confirmed {
        let same =
            edge.latest == edge.to && (edge.replaced == edge.outdated || !rules.guard_numbered);
        worth = if same { worth.min(edge.confirmed) } else { 0 };
    }
    let closed = edge.renewal && edge.alive == 0 && rules.closed_stays_closed;
    if !closed {
        edge.alive = edge.alive.max(worth);
    }
    edge.forget_message();
    let alive = then.edges[session].alive;
    next.to(then, format_args!("session {session} hears that it may live for {alive}"));
}
