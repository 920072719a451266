//! `leanvibe:policy/outbound`: HTTP to allowlisted origins.
//!
//! No origin can be allowlisted yet, so every fetch is denied. Invariant: nothing is
//! resolved or connected to before the allowlist has said yes.

use crate::{
    bindings::leanvibe::policy::outbound::{Error, FetchRequest, FetchResponse, Host},
    state::State,
};

impl Host for State {
    async fn fetch(
        &mut self,
        _request: FetchRequest,
    ) -> wasmtime::Result<Result<FetchResponse, Error>> {
        self.charge()?;
        Ok(Err(Error::AccessDenied))
    }
}
