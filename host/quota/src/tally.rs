//! What an edge counted of one quota of one tenant, for the usage API.
//!
//! Written by the keeper, four times a second at most. Invariant: a request touches none of it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Since the tenant's meter was made.
#[derive(Default)]
pub(crate) struct Tally {
    admitted: AtomicU64,
    calls: AtomicU64,
}

impl Tally {
    /// Tokens were taken by requests.
    pub(crate) fn admit(&self, tokens: u64) {
        self.admitted.fetch_add(tokens, Ordering::Relaxed);
    }

    /// A call to the shared dispatcher was made.
    pub(crate) fn call(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// Tokens taken, and calls made.
    pub(crate) fn read(&self) -> (u64, u64) {
        (self.admitted.load(Ordering::Relaxed), self.calls.load(Ordering::Relaxed))
    }
}
