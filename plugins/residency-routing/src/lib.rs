//! Chooses the region of a request inside the tenant's residency group, and refuses data
//! that no region of the group may process.
//!
//! `config` reads the configuration, `choice` decides, `guest` talks to the edge.
//! Invariant: the region asked for is always a member of the tenant's group; the edge
//! enforces the same again after the chain has run.

#![cfg_attr(target_arch = "wasm32", no_std)]

extern crate alloc;

pub mod choice;
pub mod config;
#[cfg(target_arch = "wasm32")]
mod guest;
