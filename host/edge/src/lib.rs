//! LeanVibe Edge, put together: config, declarations, publishing, start and stop.
//!
//! The binary is a thin shell over this library, so that tests start the real thing.
//! Invariant: no globals but the tracing subscriber and the allocator; everything else
//! is built by [`run::start`] and handed down. To add a command, give it a file in
//! `commands/`; to add a part of the program, build it in `run.rs`.

mod active_users;
pub mod api_host;
pub mod author;
pub mod client;
pub mod commands;
pub mod config;
pub mod declare;
pub mod demo;
pub mod golden;
mod lease_series;
pub mod levels;
pub mod outbound;
pub mod plugins;
pub mod publish;
pub mod reload;
mod reservations;
pub mod run;
pub mod strict;
pub mod telemetry;
