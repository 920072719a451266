//! What the first-party policies share.
//!
//! Small on purpose: a policy runs in an instance that may live for one request, so that
//! what it links is code to compile and memory to reset. Everything but `heap` and `once` is plain
//! code that `cargo test` runs natively. In the component there is no `std`: its panic
//! messages alone would double a policy.
//!
//! Invariant: nothing here calls the host; that is each plugin's `guest.rs`.

#![cfg_attr(target_arch = "wasm32", no_std)]

extern crate alloc;

pub mod field;
#[cfg(target_arch = "wasm32")]
pub mod heap;
pub mod json;
#[cfg(target_arch = "wasm32")]
pub mod once;
pub mod pattern;
pub mod problem;
