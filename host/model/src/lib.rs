//! The nouns of the edge, the rules that need no IO, and the ports between the crates.
//!
//! Every other crate of `host/` imports this one and none of its siblings. A type that
//! crosses two borders lives here; WIT types, SQL rows and JSON bodies do not.
//!
//! Invariant: nothing here reads a clock, a file or a socket, and nothing depends on an
//! async runtime. To add a noun, give it a file; to add a port, give it two real
//! implementations first.

pub mod access;
pub mod anchor;
pub mod audit;
pub mod billing;
pub mod catalog;
pub mod clock;
pub mod directory;
pub mod flags;
pub mod gate;
pub mod gdpr;
pub mod headers;
pub mod host;
pub mod key;
pub mod keyvalue;
pub mod ledger;
pub mod level;
pub mod limiter;
pub mod loss;
pub mod manifest;
pub mod outbound;
pub mod overrides;
pub mod plan;
pub mod plugin;
pub mod policy;
pub mod pool;
pub mod problem;
pub mod quota;
pub mod rate;
pub mod region;
pub mod reservation;
pub mod route;
pub mod sealing;
pub mod secret;
pub mod sessions;
pub mod shards;
pub mod snapshot;
pub mod tenant;
pub mod window;

use std::{future::Future, pin::Pin};

/// A boxed future of a port that is called rarely (a tranche, a refill), so that the
/// port can be a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
