//! The sandbox from outside: hand-written guests, good and bad, through the public API.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of tests fail by panicking"
)]

mod capabilities;
mod decisions;
mod edits;
mod kit;
mod limits;
mod loading;
mod precompiled;
mod rate_limit;
mod reuse;
