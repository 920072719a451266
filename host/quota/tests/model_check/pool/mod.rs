//! Pools: two children with guaranteed shares and their parent, whose ledger hands out only
//! what no child is guaranteed.
//!
//! One edge, and messages that arrive at once: the second model covers the rest. A grant is
//! one atomic step over the path, each level has epochs of its own and is reconciled on its
//! own. The property is the rule of the hierarchy: Σ max(used, guaranteed) ≤ pool, so that
//! every guaranteed share is obtainable at every moment, and nobody is above its maximum.

mod authority;
mod edge;
mod state;
mod tests;

use self::state::{POOL, State};
use crate::checker::{Model, Next};

pub(crate) const OVER_ADMISSION: &str = "more used or promised than the pool";
const OVER_MAXIMUM: &str = "more used than a child's maximum";

/// Which rules hold; removing one is one line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    /// The parent reserves what its children are guaranteed.
    pub reserved: bool,
    /// The own part of an epoch is what of the guarantee is not granted yet.
    pub own_net: bool,
    /// A shared grant debits the parent in the same step.
    pub path_debited: bool,
    /// A level's epoch is reconciled when every lease that debits it is sealed.
    pub every_level_sealed: bool,
    /// Returned tokens go to the part that they came from.
    pub returns_by_part: bool,
    /// … and count on a level only in the epoch that they came from.
    pub returns_by_epoch: bool,
    /// Own tokens are credited to the guarantee, shared ones are not.
    pub credits_by_part: bool,
}

impl Rules {
    pub(crate) const ALL: Self = Self {
        reserved: true,
        own_net: true,
        path_debited: true,
        every_level_sealed: true,
        returns_by_part: true,
        returns_by_epoch: true,
        credits_by_part: true,
    };
}

pub(crate) struct Pool {
    pub rules: Rules,
    pub pool: u8,
    pub guaranteed: [u8; 2],
    pub maximum: [u8; 2],
    pub tranche: u8,
    pub epochs: u8,
    /// Of the parent.
    pub pool_epochs: u8,
}

impl Pool {
    fn guaranteed(&self, level: usize) -> u8 {
        if level == POOL { 0 } else { self.guaranteed[level] }
    }
}

impl Model for Pool {
    type State = State;

    fn start(&self) -> State {
        let mut state = State::default();
        let promised = self.guaranteed.iter().sum::<u8>();
        state.accounts[POOL].available =
            if self.rules.reserved { self.pool - promised } else { self.pool };
        for (account, maximum) in state.accounts.iter_mut().zip(self.maximum) {
            account.available = maximum;
        }
        state
    }

    fn steps(&self, state: &State, next: &mut Next<State>) {
        authority::steps(self, state, next);
        edge::steps(self, state, next);
    }

    fn broken(&self, state: &State) -> Option<&'static str> {
        let children = state.used.iter().zip(self.guaranteed);
        let committed = children.map(|(used, g)| g.max(*used)).sum::<u8>() + state.used[POOL];
        if committed > self.pool {
            Some(OVER_ADMISSION)
        } else if state.used.iter().zip(self.maximum).any(|(used, most)| *used > most) {
            Some(OVER_MAXIMUM)
        } else {
            None
        }
    }
}
