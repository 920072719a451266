//! The edges: register, confirm, ask, spend, refund, seal, report, die.

use super::{
    authority,
    rules::Bounds,
    state::{EPOCHS, HOLDERS, Holder, Message, State, UNKNOWN, life, phase, row},
};
use crate::checker::Next;

pub(super) fn steps(bounds: &Bounds, state: &State, next: &mut Next<State>) {
    for (index, holder) in state.holders.iter().enumerate() {
        match holder.life {
            life::UNBORN => register(bounds, state, index, next),
            life::ALIVE => {
                confirm(bounds, state, index, next);
                send(bounds, state, index, next);
                take_in(bounds, state, index, next);
                report(bounds, state, index, next);
                for at in 0..EPOCHS {
                    spend(state, index, at, next);
                    refund(bounds, state, index, at, next);
                    direct(state, index, at, next);
                }
            }
            _ => restart(bounds, state, index, next),
        }
        die(bounds, state, index, next);
        inherit(bounds, state, index, next);
    }
}

/// Without the rule a holder believes from the start that it may spend everything.
pub(super) fn register(bounds: &Bounds, state: &State, index: usize, next: &mut Next<State>) {
    let mut then = *state;
    let latest = if bounds.rules.confirm { 0 } else { EPOCHS as u8 };
    then.holders[index] =
        Holder { row: row::REGISTERED, life: life::ALIVE, latest, ..Holder::default() };
    next.to(then, format_args!("holder {index} registers"));
}

/// The bounds as they stand, and what has to be sealed.
fn confirm(bounds: &Bounds, state: &State, index: usize, next: &mut Next<State>) {
    let registered = state.holders[index].row == row::REGISTERED;
    if !registered && bounds.rules.lost_cannot_confirm {
        return;
    }
    let mut then = *state;
    let holder = &mut then.holders[index];
    if bounds.rules.confirm {
        holder.floor = state.floor;
        holder.latest = (1..=state.latest).rev().find(|e| state.shared(*e)).unwrap_or(0);
    }
    for epoch in (1..=state.floor).filter(|epoch| state.shared(*epoch)) {
        seal(holder, usize::from(epoch) - 1);
    }
    let (floor, latest) = (holder.floor, holder.latest);
    next.to(then, format_args!("holder {index} confirms ({floor}, {latest}] and seals"));
}

fn seal(holder: &mut Holder, at: usize) {
    holder.sealed[at] = true;
    holder.cell[at] = 0;
}

/// A new message: the answer to an earlier one is not waited for any more. Tokens leave
/// the cell before the message that returns them.
fn send(bounds: &Bounds, state: &State, index: usize, next: &mut Next<State>) {
    let holder = &state.holders[index];
    if holder.seq == bounds.messages {
        return;
    }
    for want in [true, false] {
        if want && holder.floor < holder.latest {
            send_one(state, index, (want, 0, 0), next);
        }
        for at in 0..EPOCHS {
            for returned in 1..=holder.cell[at] {
                if !want || holder.floor < holder.latest {
                    send_one(state, index, (want, returned, at as u8 + 1), next);
                }
            }
        }
    }
}

fn send_one(
    state: &State,
    index: usize,
    (want, returned, returned_epoch): (bool, u8, u8),
    next: &mut Next<State>,
) {
    let mut then = *state;
    let holder = &mut then.holders[index];
    if returned > 0 {
        holder.cell[usize::from(returned_epoch) - 1] -= returned;
    }
    let Holder { floor, latest, seq, .. } = *holder;
    let message = Message { sent: true, want, returned, returned_epoch, floor, latest };
    holder.messages[usize::from(seq)] = message;
    holder.seq += 1;
    holder.waiting = want;
    (holder.reply_epoch, holder.reply) = (0, 0);
    let wants = if want { "asks for tokens" } else { "asks for nothing" };
    next.to(
        then,
        format_args!("holder {index} sends message {}: {wants}, returns {returned}", seq + 1),
    );
}

/// The answer arrives. What is not within the bounds now, or was sealed, is dropped.
fn take_in(bounds: &Bounds, state: &State, index: usize, next: &mut Next<State>) {
    let Holder { reply_epoch, reply, floor, latest, waiting, .. } = state.holders[index];
    if !waiting || reply_epoch == 0 {
        return;
    }
    let mut then = *state;
    let holder = &mut then.holders[index];
    holder.waiting = false;
    let at = usize::from(reply_epoch) - 1;
    let fits = floor < reply_epoch && reply_epoch <= latest && !holder.sealed[at];
    if fits || !bounds.rules.late_grants_dropped {
        holder.cell[at] += reply;
        holder.sealed[at] = false;
        next.to(then, format_args!("holder {index} takes in {reply} of epoch {reply_epoch}"));
    } else {
        next.to(then, format_args!("holder {index} drops a grant of epoch {reply_epoch}"));
    }
}

fn spend(state: &State, index: usize, at: usize, next: &mut Next<State>) {
    if state.holders[index].cell[at] > 0 {
        let mut then = *state;
        then.holders[index].cell[at] -= 1;
        then.holders[index].spent[at] += 1;
        then.charged += 1;
        next.to(then, format_args!("holder {index} spends a token of epoch {}", at + 1));
    }
}

/// A request that was admitted comes back uncharged: into the cell, or after the seal into
/// the counter of the window.
fn refund(bounds: &Bounds, state: &State, index: usize, at: usize, next: &mut Next<State>) {
    let Holder { spent, sealed, .. } = state.holders[index];
    if state.refunds_left == 0 || spent[at] == 0 {
        return;
    }
    let mut then = *state;
    then.refunds_left -= 1;
    then.charged -= 1;
    let holder = &mut then.holders[index];
    if sealed[at] {
        holder.late += 1;
    } else {
        holder.cell[at] += 1;
    }
    if !sealed[at] || !bounds.rules.late_refunds_apart {
        holder.spent[at] -= 1;
    }
    let when = if sealed[at] { "late" } else { "within its lease" };
    next.to(then, format_args!("holder {index} refunds a token of epoch {} {when}", at + 1));
}

/// A tranche past the dispatcher arrives; its holder seals it when it likes.
fn direct(state: &State, index: usize, at: usize, next: &mut Next<State>) {
    let epoch = state.epochs[at];
    if !epoch.direct || usize::from(epoch.place) != index || state.holders[index].sealed[at] {
        return;
    }
    let mut then = *state;
    then.epochs[at].permit = false;
    if epoch.permit {
        then.holders[index].cell[at] = epoch.tranche;
        next.to(then, format_args!("holder {index} has epoch {} to itself", at + 1));
    }
    let mut then = *state;
    then.epochs[at].permit = false;
    seal(&mut then.holders[index], at);
    next.to(then, format_args!("holder {index} seals its own epoch {}", at + 1));
}

/// Figures to the authority. The answer is [`confirm`]: a step of its own, as it may be
/// lost.
fn report(bounds: &Bounds, state: &State, index: usize, next: &mut Next<State>) {
    if state.holders[index].row == row::REGISTERED {
        let mut then = *state;
        authority::report(bounds, &mut then, index);
        next.to(then, format_args!("holder {index} reports"));
    }
}

fn die(bounds: &Bounds, state: &State, index: usize, next: &mut Next<State>) {
    let Holder { life: now, row: known, .. } = state.holders[index];
    if bounds.kills && now == life::ALIVE {
        let mut then = *state;
        then.holders[index].life = life::KILLED;
        next.to(then, format_args!("holder {index} is killed"));
    }
    if bounds.losses && matches!(now, life::ALIVE | life::KILLED) {
        let mut then = *state;
        then.holders[index].life = life::GONE;
        next.to(then, format_args!("the machine of holder {index} goes down"));
    }
    if bounds.losses && known == row::REGISTERED {
        let mut then = *state;
        then.holders[index].row = row::LOST;
        next.to(then, format_args!("holder {index} is declared lost"));
    }
}

/// What must not be: the same holder, with numbers that start again.
fn restart(bounds: &Bounds, state: &State, index: usize, next: &mut Next<State>) {
    let holder = &state.holders[index];
    if !bounds.rules.new_holder_per_start && holder.life == life::KILLED {
        let mut then = *state;
        then.holders[index].life = life::ALIVE;
        then.holders[index].seq = 0;
        next.to(then, format_args!("holder {index} starts again under its old name"));
    }
}

/// A successor reports the final figures of a dead holder's lease file. After a loss of
/// power the file may be as old as the lease: nothing spent.
fn inherit(bounds: &Bounds, state: &State, index: usize, next: &mut Next<State>) {
    let holder = &state.holders[index];
    let stale = holder.life == life::GONE && !bounds.rules.same_boot;
    if holder.row != row::REGISTERED || !(holder.life == life::KILLED || stale) {
        return;
    }
    let mut then = *state;
    then.holders[index].row = row::ENDED;
    for at in 0..EPOCHS {
        let epoch = &mut then.epochs[at];
        if matches!(epoch.phase, phase::OPEN | phase::CLOSING) && epoch.sealed[index] == UNKNOWN {
            epoch.sealed[index] = if stale { 0 } else { holder.spent[at] };
        }
    }
    next.to(then, format_args!("holder {index} is ended by its successor's will"));
}

/// The late one is not there yet.
pub(super) fn first(bounds: &Bounds, mut state: State) -> State {
    let latest = if bounds.rules.confirm { 0 } else { EPOCHS as u8 };
    const { assert!(HOLDERS == 2, "one is there, one comes late") };
    state.holders[0] =
        Holder { row: row::REGISTERED, life: life::ALIVE, latest, ..Holder::default() };
    state
}
