//! A place for what `configure` made, for the life of the instance.
//!
//! Set once, read by every hook call. Invariant: only for a target with one thread, which
//! is why it exists in the component only.
#![expect(unsafe_code, reason = "the target has one thread")]

use core::cell::OnceCell;

/// A value that is set once.
#[derive(Debug)]
pub struct Once<T>(OnceCell<T>);

// SAFETY: wasm32 without atomics has one thread; with them, this does not compile.
#[cfg(not(target_feature = "atomics"))]
unsafe impl<T> Sync for Once<T> {}

impl<T> Once<T> {
    /// Nothing yet.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "statics need a const")]
    pub const fn new() -> Self {
        Self(OnceCell::new())
    }

    /// Keeps the value.
    ///
    /// # Errors
    /// When there is one already: the host configures an instance once.
    pub fn set(&self, value: T) -> Result<(), &'static str> {
        self.0.set(value).map_err(|_| "configured twice")
    }

    /// The value.
    ///
    /// # Errors
    /// When there is none: the host configures an instance before its first hook.
    pub fn value(&self) -> Result<&T, &'static str> {
        self.0.get().ok_or("not configured")
    }
}
