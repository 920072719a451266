//! What wasmtime's errors mean to the port.
//!
//! Called once per failed call. Invariant: a deadline and a lack of slots are never
//! reported as a trap of the guest.

use model::policy::PolicyFailure;
use wasmtime::{PoolConcurrencyLimitError, WasmBacktrace};

use crate::{
    budget::DeadlinePassed,
    text::{one_line, quoted},
};

/// Whether there was no free slot for an instance, a memory, a table or a stack.
pub(crate) fn is_exhausted(error: &wasmtime::Error) -> bool {
    error.is::<PoolConcurrencyLimitError>()
}

/// The failure that an error of wasmtime is.
pub(crate) fn classify(error: &wasmtime::Error) -> PolicyFailure {
    if is_exhausted(error) {
        return PolicyFailure::NoSlot;
    }
    if error.is::<DeadlinePassed>() {
        return PolicyFailure::Deadline;
    }
    let mut text = one_line(&error.root_cause().to_string());
    let frames = error.downcast_ref::<WasmBacktrace>().map(WasmBacktrace::frames);
    if let Some(name) = frames.unwrap_or_default().iter().find_map(|frame| frame.func_name()) {
        text.push_str(" in ");
        text.push_str(name);
    }
    PolicyFailure::Trap(quoted(&text))
}
