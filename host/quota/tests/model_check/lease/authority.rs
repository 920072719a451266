//! The authority: opens epochs, closes them as a prefix, credits what is proven unspent.

use super::{
    rules::Bounds,
    state::{EPOCHS, Epoch, HOLDERS, State, UNKNOWN, phase, row},
};
use crate::checker::Next;

/// The bit of [`Epoch::listed`] that says that the holders were listed.
const LISTED: u8 = 1 << HOLDERS;

pub(super) fn steps(bounds: &Bounds, state: &State, next: &mut Next<State>) {
    open(bounds, state, next);
    for epoch in 1..=state.latest {
        close_up_to(state, epoch, next);
        list_early(bounds, state, epoch, next);
        reconcile(bounds, state, epoch, next);
    }
}

fn open(bounds: &Bounds, state: &State, next: &mut Next<State>) {
    if state.latest == bounds.epochs {
        return;
    }
    let most = bounds.tranche.min(state.available);
    let least = if bounds.small_tranches { most.min(1) } else { most };
    for size in least.max(1)..=most {
        for server in 0..bounds.servers {
            let mut then = opened(state, size, server, false);
            let epoch = then.latest;
            close_for(&mut then, epoch, server as u8);
            next.to(then, format_args!("epoch {epoch} of {size} opens for server {server}"));
        }
        for holder in 0..HOLDERS {
            if bounds.direct && state.holders[holder].row == row::REGISTERED {
                let then = opened(state, size, holder, true);
                let epoch = then.latest;
                next.to(then, format_args!("epoch {epoch} of {size} opens for holder {holder}"));
            }
        }
    }
}

fn opened(state: &State, size: u8, place: usize, direct: bool) -> State {
    let mut then = *state;
    then.available -= size;
    then.latest += 1;
    let mut sealed = [UNKNOWN; HOLDERS];
    for (figure, holder) in sealed.iter_mut().zip(&state.holders) {
        // Who was lost before can never confirm this epoch.
        if matches!(holder.row, row::ENDED | row::LOST) {
            *figure = 0;
        }
    }
    then.epochs[usize::from(then.latest) - 1] = Epoch {
        phase: phase::OPEN,
        tranche: size,
        place: place as u8,
        direct,
        permit: true,
        sealed,
        ..Epoch::default()
    };
    then
}

/// The shared epoch before the new one stays open iff it is the same server's; all older
/// ones close.
fn close_for(then: &mut State, opened: u8, server: u8) {
    let before = (1..opened).rev().find(|epoch| then.shared(*epoch));
    let Some(before) = before else { return };
    let stays = then.epochs[usize::from(before) - 1].place == server;
    close(then, if stays { before - 1 } else { before });
}

/// A limit fell, a tree changed, the window ended or is exhausted: any prefix may close.
fn close_up_to(state: &State, epoch: u8, next: &mut Next<State>) {
    if state.shared(epoch) && state.floor < epoch {
        let mut then = *state;
        close(&mut then, epoch);
        next.to(then, format_args!("the authority closes epochs up to {epoch}"));
    }
}

fn close(then: &mut State, floor: u8) {
    for epoch in then.epochs.iter_mut().take(usize::from(floor)) {
        if epoch.phase == phase::OPEN && !epoch.direct {
            epoch.phase = phase::CLOSING;
        }
    }
    then.floor = then.floor.max(floor);
}

/// What must not be done: who has to seal is read before the commit that closes.
fn list_early(bounds: &Bounds, state: &State, epoch: u8, next: &mut Next<State>) {
    let at = usize::from(epoch) - 1;
    let early = state.epochs[at].phase == phase::OPEN && state.epochs[at].listed == 0;
    if bounds.rules.listed_after_closing || !early {
        return;
    }
    let mut then = *state;
    then.epochs[at].listed = LISTED;
    for (index, holder) in state.holders.iter().enumerate() {
        then.epochs[at].listed |= u8::from(holder.row == row::REGISTERED) << index;
    }
    next.to(then, format_args!("the holders of epoch {epoch} are listed early"));
}

fn reconcile(bounds: &Bounds, state: &State, epoch: u8, next: &mut Next<State>) {
    let at = usize::from(epoch) - 1;
    let Epoch { phase: now, direct, tranche, place, .. } = state.epochs[at];
    if now != phase::CLOSING && !(direct && now == phase::OPEN) {
        return;
    }
    let mut spent = 0;
    for holder in 0..HOLDERS {
        if direct && usize::from(place) != holder {
            continue;
        }
        let Some(share) = accounted(bounds, state, at, holder) else { return };
        spent += share;
    }
    let mut then = *state;
    let credit = tranche.saturating_sub(spent);
    then.available += credit;
    then.epochs[at].phase = phase::RECONCILED;
    next.to(then, format_args!("epoch {epoch} is reconciled, {credit} credited"));
}

/// What a holder counts as having spent of an epoch; `None` as long as nobody knows.
fn accounted(bounds: &Bounds, state: &State, at: usize, holder: usize) -> Option<u8> {
    let Epoch { sealed, told, listed, .. } = state.epochs[at];
    let missed = listed & LISTED != 0 && listed >> holder & 1 == 0;
    match (state.holders[holder].row, sealed[holder]) {
        (row::ABSENT, _) => Some(0),
        (row::ENDED, UNKNOWN) => Some(0),
        (row::REGISTERED, UNKNOWN) if missed => Some(0),
        (row::REGISTERED, UNKNOWN) if !bounds.rules.credit_after_seals => Some(told[holder]),
        (row::LOST, UNKNOWN) if !bounds.rules.lost_share_from_close => Some(told[holder]),
        (_, UNKNOWN) => None,
        (_, figure) => Some(figure),
    }
}

/// Takes a holder's figures: a final one never changes.
pub(super) fn report(bounds: &Bounds, then: &mut State, holder: usize) {
    let rules = &bounds.rules;
    let reporter = then.holders[holder];
    for at in 0..EPOCHS {
        let epoch = &mut then.epochs[at];
        if !matches!(epoch.phase, phase::OPEN | phase::CLOSING) {
            continue;
        }
        if reporter.sealed[at] && (epoch.sealed[holder] == UNKNOWN || !rules.late_refunds_apart) {
            epoch.sealed[holder] = reporter.spent[at];
        }
        if !rules.credit_after_seals || !rules.lost_share_from_close {
            epoch.told[holder] = reporter.spent[at];
        }
    }
    then.available += reporter.late;
    then.holders[holder].late = 0;
}
