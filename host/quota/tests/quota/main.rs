//! The quota engine against the real authority: SQLite in a folder of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "these are tests"
)]

mod bench;
mod hot_path;
mod kill;
mod limits;
mod outage;
mod pools;
mod rate;
mod restart;
mod shared;
