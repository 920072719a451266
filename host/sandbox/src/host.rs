//! The functions of the contract that guests call, one file per interface.
//!
//! Each is a trait implementation on [`State`]. Invariant: every function charges the
//! call's budget first, and none waits unless it is declared `async` in `bindings.rs`.

mod config;
mod feature_flags;
mod keyvalue;
mod outbound;
mod rate_limit;
mod request;
mod response;
mod telemetry;
mod tenant;

use http::HeaderValue;
use wasmtime::component::{HasSelf, Linker};

use crate::{bindings::FullPolicy, state::State};

impl crate::bindings::leanvibe::policy::types::Host for State {}

/// Links every import of the contract.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    FullPolicy::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}

/// All values of a field joined by `, `; `None` when there is none or one is not UTF-8.
fn joined<'a>(mut values: impl Iterator<Item = &'a HeaderValue>) -> Option<String> {
    let mut all = std::str::from_utf8(values.next()?.as_bytes()).ok()?.to_owned();
    for value in values {
        all.push_str(", ");
        all.push_str(std::str::from_utf8(value.as_bytes()).ok()?);
    }
    Some(all)
}
