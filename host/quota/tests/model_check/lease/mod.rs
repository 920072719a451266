//! The second model: leases between the dispatcher and two holders, one of which comes
//! late.

mod authority;
mod dispatcher;
mod holder;
mod rules;
mod state;
mod tests;

use self::{
    rules::{Bounds, Rules},
    state::{State, life},
};
use crate::checker::{Model, Next};

pub(crate) const OVER_ADMISSION: &str = "more charged or at hand than the limit";
const TRANCHES_EXCEEDED: &str = "more charged or at hand than the tranches that are not credited";
const OVER_CREDIT: &str = "more credited than granted";

impl Model for Bounds {
    type State = State;

    fn start(&self) -> State {
        let state = State { available: self.limit, refunds_left: self.refunds, ..State::default() };
        holder::first(self, state)
    }

    fn steps(&self, state: &State, next: &mut Next<State>) {
        authority::steps(self, state, next);
        dispatcher::steps(self, state, next);
        holder::steps(self, state, next);
        next.tidy(State::tidied);
    }

    fn broken(&self, state: &State) -> Option<&'static str> {
        // What is at hand needs nobody's consent to be charged.
        let at_hand = state.holders.iter().filter(|holder| holder.life == life::ALIVE);
        let at_hand = at_hand.flat_map(|holder| holder.cell).sum::<u8>();
        let used = state.charged + at_hand;
        if used > self.limit {
            return Some(OVER_ADMISSION);
        }
        // With a rule removed only what the customer sees counts.
        if self.rules != Rules::ALL {
            return None;
        }
        if state.available > self.limit {
            Some(OVER_CREDIT)
        } else if used + state.available > self.limit {
            Some(TRANCHES_EXCEEDED)
        } else {
            None
        }
    }
}
