//! Redis for tests: a server, a master with a replica, a Cluster.
//!
//! [`redis()`] is one plain server per test process, for tests that keep to keys of their
//! own; what is killed, frozen, flushed or failed over is started by the test itself.
//! Redis 7 or later, as Debian has it (with TLS).

mod cluster;
mod options;
mod resp;
mod server;
mod stats;
#[cfg(test)]
mod tests;
mod tls;

pub use cluster::RedisCluster;
pub use options::{Persistence, RedisOptions};
pub use resp::{RedisError, Value};
pub use server::{Dump, Redis, redis};
pub use stats::CommandStats;
