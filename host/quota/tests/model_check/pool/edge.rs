//! The dispatcher's script over the path, and the edge that holds one lease per level.

use super::{
    Pool,
    state::{LEVELS, Lease, OWN, POOL, SHARED, State},
};
use crate::checker::Next;

pub(super) fn steps(model: &Pool, state: &State, next: &mut Next<State>) {
    for whose in 0..LEVELS {
        if whose != POOL {
            grant_own(state, whose, next);
        }
        grant_shared(model, state, whose, next);
        if !state.leases[whose].is_free() {
            spend(state, whose, next);
            give_back(model, state, whose, next);
            seal(state, whose, next);
        }
    }
    if state.ledgers.iter().any(|ledger| ledger.epoch != 0) {
        let mut then = *state;
        then.ledgers = Default::default();
        next.to(then, format_args!("the family's ledgers are lost"));
    }
}

/// Adds a token to the lease of these epochs; a lease of others has to be sealed first.
fn add(then: &mut State, whose: usize, of: Lease) -> bool {
    let lease = &mut then.leases[whose];
    let same =
        (lease.shared, lease.epoch, lease.pool_epoch) == (of.shared, of.epoch, of.pool_epoch);
    if lease.is_free() {
        *lease = of;
    } else if !same {
        return false;
    }
    lease.tokens += 1;
    true
}

fn grant_own(state: &State, child: usize, next: &mut Next<State>) {
    let Some(epoch) = state.current(child) else { return };
    let mut then = *state;
    let left = &mut then.ledgers[child].left[OWN];
    if *left == 0 {
        return;
    }
    *left -= 1;
    if add(&mut then, child, Lease { epoch, ..Lease::default() }) {
        next.to(then, format_args!("child {child} is granted an own token of epoch {epoch}"));
    }
}

/// One atomic step over the path; the pool's own traffic debits only the pool.
fn grant_shared(model: &Pool, state: &State, whose: usize, next: &mut Next<State>) {
    let (Some(epoch), Some(pool_epoch)) = (state.current(whose), state.current(POOL)) else {
        return;
    };
    let mut then = *state;
    let parent = (whose != POOL && model.rules.path_debited).then_some(POOL);
    for level in [whose].into_iter().chain(parent) {
        let left = &mut then.ledgers[level].left[SHARED];
        if *left == 0 {
            return;
        }
        *left -= 1;
    }
    let epoch = if whose == POOL { 0 } else { epoch };
    if add(&mut then, whose, Lease { shared: true, epoch, pool_epoch, ..Lease::default() }) {
        next.to(
            then,
            format_args!(
                "level {whose} is granted a shared token of epochs {epoch} and {pool_epoch}"
            ),
        );
    }
}

fn spend(state: &State, whose: usize, next: &mut Next<State>) {
    if state.leases[whose].tokens > 0 {
        let mut then = *state;
        then.leases[whose].tokens -= 1;
        then.leases[whose].spent += 1;
        then.used[whose] += 1;
        next.to(then, format_args!("level {whose} uses a token"));
    }
}

/// A token goes back on each level whose current epoch is the one that it came from.
fn give_back(model: &Pool, state: &State, whose: usize, next: &mut Next<State>) {
    let lease = state.leases[whose];
    if lease.tokens == 0 {
        return;
    }
    let mut then = *state;
    then.leases[whose].tokens -= 1;
    let path = if whose == POOL { &[POOL][..] } else { &[whose, POOL] };
    for level in path.iter().copied() {
        let from = lease.epoch_at(whose, level);
        let ledger = &mut then.ledgers[level];
        let same = from == ledger.epoch || !model.rules.returns_by_epoch;
        if from != 0 && ledger.epoch != 0 && same {
            let own = level != POOL && !model.rules.returns_by_part;
            ledger.left[if own { OWN } else { lease.part() }] += 1;
        }
    }
    next.to(then, format_args!("level {whose} gives a token back"));
}

/// No token of the lease is spent any more, and its final figure is reported on every
/// level that it debits.
fn seal(state: &State, whose: usize, next: &mut Next<State>) {
    let lease = state.leases[whose];
    let mut then = *state;
    then.leases[whose] = Lease::default();
    for level in 0..LEVELS {
        let epoch = lease.epoch_at(whose, level);
        if epoch != 0 {
            let epoch = &mut then.accounts[level].epochs[usize::from(epoch) - 1];
            if epoch.phase != super::state::phase::RECONCILED {
                epoch.spent[lease.part()] += lease.spent;
            }
        }
    }
    next.to(then, format_args!("the lease of level {whose} is sealed with {} used", lease.spent));
}
