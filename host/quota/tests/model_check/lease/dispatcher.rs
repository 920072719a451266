//! The scripts of the shared dispatcher, at two servers that know nothing of each other.
//!
//! A copy of a ledger at another server, or one that came back from an old dump, has a
//! foreign fence and serves nothing (the base model proves it); so a restart, a failover
//! and a loss of all data are one step here: the ledger is gone.

use super::{
    rules::Bounds,
    state::{HOLDERS, Last, Ledger, Message, State, UNKNOWN, life, phase, row},
};
use crate::checker::Next;

pub(super) fn steps(bounds: &Bounds, state: &State, next: &mut Next<State>) {
    install(state, next);
    for server in 0..bounds.servers {
        if state.servers[server].current == 0 {
            continue;
        }
        let mut then = *state;
        then.servers[server] = Ledger::default();
        next.to(then, format_args!("server {server} loses its data"));
        lease(bounds, state, server, next);
        close(bounds, state, server, next);
        expire(bounds, state, server, next);
        roll_back(bounds, state, server, next);
    }
}

/// The permit arrives, once. (One that is lost or abandoned never does.)
fn install(state: &State, next: &mut Next<State>) {
    for epoch in 1..=state.latest {
        let at = usize::from(epoch) - 1;
        if !state.epochs[at].permit || state.epochs[at].direct {
            continue;
        }
        let mut then = *state;
        let (tranche, server) = (state.epochs[at].tranche, usize::from(state.epochs[at].place));
        then.epochs[at].permit = false;
        let ledger = &mut then.servers[server];
        let live = ledger.current > ledger.closed && ledger.left > 0;
        if ledger.current.max(ledger.next) >= epoch || live && ledger.next != 0 {
            next.to(then, format_args!("server {server} refuses epoch {epoch}"));
            continue;
        }
        ledger.known |= 1 << at;
        if live {
            (ledger.next, ledger.next_left) = (epoch, tranche);
        } else {
            (ledger.current, ledger.left) = (epoch, tranche);
            (ledger.next, ledger.next_left) = (0, 0);
        }
        next.to(then, format_args!("epoch {epoch} is installed at server {server}"));
    }
}

/// Any message that was ever sent may arrive now.
fn lease(bounds: &Bounds, state: &State, server: usize, next: &mut Next<State>) {
    for holder in 0..HOLDERS {
        for seq in 1..=bounds.messages {
            if state.holders[holder].messages[usize::from(seq) - 1].sent {
                deliver(bounds, state, server, (holder, seq), next);
            }
        }
    }
}

fn deliver(
    bounds: &Bounds,
    state: &State,
    server: usize,
    (holder, seq): (usize, u8),
    next: &mut Next<State>,
) {
    let message = &state.holders[holder].messages[usize::from(seq) - 1];
    let last = state.servers[server].last[holder];
    if bounds.rules.seq_rises && seq <= last.seq {
        if seq == last.seq && last.granted > 0 {
            let mut then = *state;
            answer(&mut then, holder, seq, last);
            let Last { epoch, granted, .. } = last;
            next.to(
                then,
                format_args!(
                    "server {server} repeats to holder {holder} the {granted} of epoch {epoch}"
                ),
            );
        }
        return;
    }
    let mut ledger = state.servers[server];
    if !settle(bounds, &mut ledger, message, holder) {
        return;
    }
    let epoch = ledger.current;
    let most = if message.want { ledger.left } else { 0 };
    for granted in most.min(1)..=most {
        let mut then = *state;
        then.servers[server] = ledger;
        let here = &mut then.servers[server];
        here.left -= granted;
        here.out[usize::from(epoch) - 1][holder] += granted;
        here.last[holder] = Last { seq, epoch, granted };
        answer(&mut then, holder, seq, Last { seq, epoch, granted });
        let returned = message.returned;
        next.to(
            then,
            format_args!(
                "server {server} takes message {seq} of holder {holder} ({returned} back), \
             grants {granted} of epoch {epoch}"
            ),
        );
    }
}

/// Takes tokens back and moves on to the next epoch; false when the message is refused,
/// which writes nothing.
fn settle(bounds: &Bounds, ledger: &mut Ledger, message: &Message, holder: usize) -> bool {
    let labelled = message.returned_epoch == ledger.current && ledger.current > ledger.closed;
    if message.returned > 0 && (labelled || !bounds.rules.returns_labelled) {
        ledger.left += message.returned;
        let out = &mut ledger.out[usize::from(ledger.current) - 1][holder];
        *out = out.saturating_sub(message.returned);
    }
    if (ledger.left == 0 || ledger.current <= ledger.closed) && ledger.next != 0 {
        (ledger.current, ledger.left) = (ledger.next, ledger.next_left);
        (ledger.next, ledger.next_left) = (0, 0);
    }
    let stale = ledger.current <= message.floor || message.latest < ledger.current;
    ledger.current > ledger.closed && !stale
}

/// Puts the answer on the wire, if somebody still waits for it.
fn answer(then: &mut State, holder: usize, seq: u8, grant: Last) {
    let holder = &mut then.holders[holder];
    if holder.life == life::ALIVE && holder.waiting && holder.seq == seq && grant.granted > 0 {
        (holder.reply_epoch, holder.reply) = (grant.epoch, grant.granted);
    }
}

/// CLOSE: what is out per holder, for those that were declared lost.
fn close(bounds: &Bounds, state: &State, server: usize, next: &mut Next<State>) {
    for epoch in 1..=state.latest {
        let at = usize::from(epoch) - 1;
        let row = state.epochs[at];
        let here = !row.direct && usize::from(row.place) == server;
        let known = state.servers[server].known >> at & 1 == 1;
        if row.phase != phase::CLOSING || !here || !known || !bounds.losses {
            continue;
        }
        let mut then = *state;
        if bounds.rules.close_forbids {
            let ledger = &mut then.servers[server];
            ledger.closed = ledger.closed.max(epoch);
        }
        for holder in 0..HOLDERS {
            if state.holders[holder].row == row::LOST && row.sealed[holder] == UNKNOWN {
                then.epochs[at].sealed[holder] = state.servers[server].out[at][holder];
            }
        }
        next.to(then, format_args!("server {server} closes epoch {epoch} and tells what is out"));
    }
}

/// What must not be: a silent holder's tokens are taken back.
fn expire(bounds: &Bounds, state: &State, server: usize, next: &mut Next<State>) {
    let current = usize::from(state.servers[server].current) - 1;
    for holder in 0..HOLDERS {
        let out = state.servers[server].out[current][holder];
        if !bounds.rules.no_return_by_timeout && out > 0 {
            let mut then = *state;
            then.servers[server].left += out;
            then.servers[server].out[current][holder] = 0;
            next.to(then, format_args!("server {server} takes back {out} of holder {holder}"));
        }
    }
}

/// What must not be: a server with an old dump answers CLOSE from it. Its fence is foreign,
/// so it grants nothing.
fn roll_back(bounds: &Bounds, state: &State, server: usize, next: &mut Next<State>) {
    if !bounds.rules.close_fenced {
        let mut then = *state;
        let known = state.servers[server].known;
        then.servers[server] =
            Ledger { current: state.servers[server].current, known, ..Ledger::default() };
        next.to(then, format_args!("server {server} restarts from the dump before any grant"));
    }
}
