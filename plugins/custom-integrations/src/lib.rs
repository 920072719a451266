//! A tenant's declared steps: header mapping, path rewriting, request signing and
//! response headers.
//!
//! `config` reads the steps, `steps` runs them, `rewrite` and `signing` are two of them,
//! `guest` talks to the edge. To add a kind of step, add a variant of [`config::Step`].
//! Invariant: signing comes last, so that it covers the request as it is forwarded.
#![cfg_attr(target_arch = "wasm32", no_std)]

extern crate alloc;

pub mod config;
#[cfg(target_arch = "wasm32")]
mod guest;
pub mod rewrite;
pub mod signing;
pub mod steps;
