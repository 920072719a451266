//! `leanvibe:policy/rate-limit`: buckets that the operator defines.
//!
//! No bucket can be declared yet, so nobody holds a grant for one. Invariant: without a
//! grant the answer is `access-denied`, whatever the limit's name.

use crate::{
    bindings::leanvibe::policy::rate_limit::{Error, Host, Outcome},
    state::State,
};

impl Host for State {
    async fn take(
        &mut self,
        _limit: String,
        _key: String,
        _cost: u64,
    ) -> wasmtime::Result<Result<Outcome, Error>> {
        self.charge()?;
        Ok(Err(Error::AccessDenied))
    }
}
