//! Stored bytes as the backend counts them: what it took, less what was deleted.
//!
//! Invariant (checked at every upload): they are no more than the quota. What is deleted is
//! gone here before any edge hears of it, so the product can only be later.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::violations::Violations;

/// The tenant whose bytes they are, and its plan.
pub const TENANT: &str = "storing";
/// Megabytes that it may store.
pub const LIMIT_MB: u64 = 4;
/// The same in bytes.
const LIMIT_BYTES: u64 = LIMIT_MB << 20;

/// What is stored.
#[derive(Debug)]
pub struct Stored {
    state: Mutex<State>,
    violations: Arc<Violations>,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes of each object, by name.
    objects: BTreeMap<u64, u64>,
    bytes: u64,
    /// Uploads and deletes, of all time.
    changes: (u64, u64),
}

impl Stored {
    /// Nothing.
    #[must_use]
    pub fn new(violations: Arc<Violations>) -> Self {
        Self { state: Mutex::default(), violations }
    }

    /// An upload that arrived whole.
    pub fn put(&self, name: u64, bytes: u64) {
        let mut state = self.lock();
        let before = state.objects.insert(name, bytes).unwrap_or(0);
        state.bytes = state.bytes - before + bytes;
        state.changes.0 += 1;
        let total = state.bytes;
        drop(state);
        if total > LIMIT_BYTES {
            let line = format!("OVER-ADMISSION: {total} bytes are stored, limit {LIMIT_BYTES}");
            self.violations.once("storage", line);
        }
    }

    /// Deletes an object; its bytes.
    pub fn delete(&self, name: u64) -> u64 {
        let mut state = self.lock();
        let bytes = state.objects.remove(&name).unwrap_or(0);
        state.bytes -= bytes;
        state.changes.1 += 1;
        bytes
    }

    /// Some object, the first from a name on.
    #[must_use]
    pub fn some(&self, from: u64) -> Option<u64> {
        let state = self.lock();
        let mut after = state.objects.range(from..).chain(state.objects.iter());
        after.next().map(|(name, _)| *name)
    }

    /// Bytes that are stored, uploads and deletes so far.
    #[must_use]
    pub fn figures(&self) -> (u64, u64, u64) {
        let State { bytes, changes: (uploads, deletes), .. } = *self.lock();
        (bytes, uploads, deletes)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_too_many_is_found_and_deletes_make_room() {
        let violations = Arc::new(Violations::default());
        let stored = Stored::new(Arc::clone(&violations));
        stored.put(1, LIMIT_BYTES - 5);
        stored.put(2, 5);
        assert_eq!((stored.some(2), stored.some(3)), (Some(2), Some(1)));
        assert_eq!((stored.delete(2), stored.delete(2)), (5, 0));
        stored.put(3, 5);
        assert_eq!(violations.all(), Vec::<String>::new());
        assert_eq!(stored.figures(), (LIMIT_BYTES, 3, 2));
        stored.put(4, 1);
        assert_eq!(violations.all().len(), 1);
    }
}
