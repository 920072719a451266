//! The registries: admit, renew, lose everything, and be guarded again.

use super::{
    GUARD_LATE, HOLD, Sessions, TTL,
    state::{REGISTRIES, Registry, State, flight},
};
use crate::checker::Next;

pub(super) fn steps(model: &Sessions, state: &State, next: &mut Next<State>) {
    for index in 0..model.registries {
        lose(state, index, next);
        guard(model, state, index, next);
        first_guard_arrives(model, state, index, next);
        for session in 0..model.sessions {
            let edge = &state.edges[session];
            if edge.flight == flight::ASKED && usize::from(edge.to) == index {
                serve(model, state, (index, session), next);
            }
        }
        if state.clock_steps > 0 {
            let mut then = *state;
            then.clock_steps -= 1;
            then.registries[index].pass_time();
            next.to(then, format_args!("the clock of registry {index} is stepped"));
        }
    }
}

fn lose(state: &State, index: usize, next: &mut Next<State>) {
    let Registry { first, first_age, .. } = state.registries[index];
    let mut then = *state;
    then.registries[index] = Registry { first, first_age, ..Registry::default() };
    next.to(then, format_args!("registry {index} loses its data"));
}

/// Somebody misses the guard and records a new one. The family's first holds at once, and
/// may be long on its way; a later one may be lost, which is as if it was not recorded here.
fn guard(model: &Sessions, state: &State, index: usize, next: &mut Next<State>) {
    if state.registries[index].guarded {
        return;
    }
    let mut then = *state;
    then.latest = index as u8 + 1;
    if state.latest == 0 && !model.first_late {
        put(&mut then, index, 0);
        next.to(then, format_args!("the first guard is put into registry {index}"));
        return;
    }
    if state.latest == 0 {
        then.registries[index].first = true;
        next.to(then, format_args!("the first guard is recorded, for registry {index}"));
        return;
    }
    let hold = match model.rules {
        super::Rules { hold: false, .. } => 0,
        super::Rules { hold_long: false, .. } => 1,
        _ => HOLD,
    };
    put(&mut then, index, hold);
    next.to(then, format_args!("a later guard is recorded and put into registry {index}"));
}

fn first_guard_arrives(model: &Sessions, state: &State, index: usize, next: &mut Next<State>) {
    let Registry { first, first_age, guarded, .. } = state.registries[index];
    if !first {
        return;
    }
    let mut then = *state;
    then.registries[index].first = false;
    then.registries[index].first_age = 0;
    if guarded || first_age >= GUARD_LATE && model.rules.guard_in_time {
        next.to(then, format_args!("the first guard comes too late for registry {index}"));
    } else {
        put(&mut then, index, 0);
        next.to(then, format_args!("the first guard is put into registry {index}"));
    }
}

/// What another life of the registry left counts nobody.
fn put(then: &mut State, index: usize, hold: u8) {
    const { assert!(REGISTRIES == 2, "the authority's field has room for two") };
    let Registry { first, first_age, .. } = then.registries[index];
    then.registries[index] =
        Registry { guarded: true, hold, first, first_age, ..Registry::default() };
    for edge in &mut then.edges {
        edge.replace_guard(index as u8);
    }
}

/// A message arrives: sent once, however long ago.
fn serve(
    model: &Sessions,
    state: &State,
    (index, session): (usize, usize),
    next: &mut Next<State>,
) {
    let mut then = *state;
    let registry = &mut then.registries[index];
    let edge = &mut then.edges[session];
    let known = registry.members[session] > 0;
    let room = registry.count() < model.limit;
    let guarded = registry.guarded || !model.rules.guard;
    let granted = guarded
        && if edge.renewal {
            known || room || !model.rules.readded_below_limit
        } else {
            (known && (registry.hold == 0 || !model.rules.members_held))
                || (room && registry.hold == 0)
        };
    let kind = if edge.renewal { "renewal" } else { "admission" };
    if granted {
        registry.members[session] = TTL;
        edge.flight = flight::GRANTED;
        next.to(then, format_args!("registry {index} grants the {kind} of session {session}"));
    } else {
        if edge.renewal && guarded {
            edge.alive = 0;
        }
        edge.forget_message();
        next.to(then, format_args!("registry {index} refuses the {kind} of session {session}"));
    }
}
