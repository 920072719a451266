//! Gates paths by what the tenant's plan entitles it to, and turns feature flags into
//! request headers for the backend.
//!
//! `config` reads the configuration, `decide` decides, `guest` talks to the edge.
//! Invariant: a header that stands for a flag never comes from the client.
#![cfg_attr(target_arch = "wasm32", no_std)]

extern crate alloc;

pub mod config;
pub mod decide;
#[cfg(target_arch = "wasm32")]
mod guest;
