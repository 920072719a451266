//! The authority, level by level: open with an own and a shared part, close, reconcile.

use super::{
    Pool,
    state::{Account, Epoch, LEVELS, Ledger, OWN, POOL, SHARED, State, phase},
};
use crate::checker::Next;

pub(super) fn steps(model: &Pool, state: &State, next: &mut Next<State>) {
    for level in 0..LEVELS {
        open(model, state, level, next);
        for epoch in 1..=state.accounts[level].latest {
            close(state, level, epoch, next);
            reconcile(model, state, level, epoch, next);
        }
    }
}

/// Opens an epoch and installs it; or the permit is lost.
fn open(model: &Pool, state: &State, level: usize, next: &mut Next<State>) {
    let account = state.accounts[level];
    let epochs = if level == POOL { model.pool_epochs } else { model.epochs };
    let size = model.tranche.min(account.available);
    if account.latest == epochs || size == 0 {
        return;
    }
    let guaranteed = model.guaranteed(level);
    let missing = if model.rules.own_net { guaranteed - account.own } else { guaranteed };
    let own = size.min(missing);
    let mut then = *state;
    let Account { available, own: granted, latest, epochs, .. } = &mut then.accounts[level];
    *available -= size;
    *granted += own;
    *latest += 1;
    let epoch = *latest;
    let tranche = [own, size - own];
    epochs[usize::from(epoch) - 1] = Epoch { phase: phase::OPEN, tranche, spent: [0; 2] };
    next.to(then, format_args!("level {level}: epoch {epoch} opens, its permit is lost"));
    then.ledgers[level] = Ledger { epoch, left: tranche };
    next.to(
        then,
        format_args!("level {level}: epoch {epoch} with {own} own of {size} is installed"),
    );
}

fn close(state: &State, level: usize, epoch: u8, next: &mut Next<State>) {
    if state.accounts[level].floor < epoch {
        let mut then = *state;
        let account = &mut then.accounts[level];
        account.floor = epoch;
        for epoch in account.epochs.iter_mut().take(usize::from(epoch)) {
            if epoch.phase == phase::OPEN {
                epoch.phase = phase::CLOSING;
            }
        }
        next.to(then, format_args!("level {level}: epochs up to {epoch} close"));
    }
}

fn reconcile(model: &Pool, state: &State, level: usize, epoch: u8, next: &mut Next<State>) {
    let at = usize::from(epoch) - 1;
    let Epoch { phase: now, tranche, spent } = state.accounts[level].epochs[at];
    let live =
        state.leases.iter().enumerate().any(|(whose, lease)| lease.epoch_at(whose, level) == epoch);
    let waits = live && (level != POOL || model.rules.every_level_sealed);
    if now != phase::CLOSING || waits {
        return;
    }
    let back = [0, 1].map(|part: usize| tranche[part].saturating_sub(spent[part]));
    let mut then = *state;
    let account = &mut then.accounts[level];
    account.available += back[OWN] + back[SHARED];
    let own = if model.rules.credits_by_part { back[OWN] } else { back[OWN] + back[SHARED] };
    account.own = account.own.saturating_sub(own);
    account.epochs[at] = Epoch { phase: phase::RECONCILED, ..Epoch::default() };
    next.to(then, format_args!("level {level}: epoch {epoch} is reconciled, {back:?} credited"));
}
