//! Real servers for tests: private, on a free loopback port, in a folder of their own.
//!
//! [`postgres`] and [`redis`] start one server per test process, at the first call;
//! [`Postgres::start`], [`Redis::start`] and [`RedisCluster::start`] give a test one of its
//! own, to be killed, frozen and failed over. [`FaultProxy`] stands between a client and any
//! of them; [`Process`] is any other program. Invariant: a server ends with the process that started it, however that ends
//! (see `guard.rs`). A server that is not installed fails the test with one line that says
//! what to install. To add a service, give it a file like `postgres.rs` on top of `guard.rs`.

#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot start must fail")]

mod fault_proxy;
mod guard;
mod port;
mod postgres;
mod process;
mod redis;
mod server_user;

pub use fault_proxy::{Fault, FaultProxy};
pub use postgres::{Postgres, postgres};
pub use process::Process;
pub use redis::{
    CommandStats, Dump, Persistence, Redis, RedisCluster, RedisError, RedisOptions, Value, redis,
};
