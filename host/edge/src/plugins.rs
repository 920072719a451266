//! Plugins that were uploaded, on their way into the sandbox: compiled in a child
//! process, kept sealed on disk, tried, loaded.
//!
//! The control plane calls the [`Desk`] before a version counts; the publisher asks the
//! [`Loader`] for the versions that its directory names. Invariant: bytes of a stranger
//! are compiled in a process that can open nothing and is bounded in memory and time, and
//! machine code is loaded only behind the seal of this edge.

mod cache;
mod child;
mod desk;
mod key;
mod limits;
mod loader;
mod probe;
mod signature;

pub use self::{
    child::{ChildLimits, compile_in_this_process},
    desk::Desk,
    limits::spec_of,
    loader::{LoadFailure, Loader},
    signature::{Signers, SignersError},
};
