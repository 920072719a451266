//! Real servers for tests: private, on a free loopback port, in a folder of their own.
//!
//! [`postgres`] starts one PostgreSQL cluster per test process, at the first call, and
//! [`Postgres::database`] makes an empty database for one test. Invariant: a server ends
//! with the process that started it, however that ends (see `guard.rs`). A server that is
//! not installed fails the test with one line that says what to install. To add a service,
//! give it a file like `postgres.rs` on top of `guard.rs`.

#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot start must fail")]

mod guard;
mod postgres;
mod server_user;

pub use postgres::{Postgres, postgres};
