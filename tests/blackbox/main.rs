//! The black-box tests: the real program, real sockets, real components.
//!
//! Folders mirror the product. A test is a sentence; it speaks through the actors of
//! `actors/` (`world.tenant("acme").get("/")`), waits with `eventually`, and never
//! asserts a time. The components must be built (`make test` does), or the tests fail.

#![expect(
    unreachable_pub,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking, helpers included; clippy sees only #[test] as tests"
)]

mod actors;
#[path = "../conformance/mod.rs"]
mod conformance;
mod control;
mod faults;
mod plugins;
mod policy;
mod proxy;
mod quota;
