//! Exact quotas without asking anyone on the hot path.
//!
//! [`Quota::start`] runs once per process; its meters are called on every request from
//! every worker. Below them lies the lease file, a background task (the keeper) that
//! refills leases from a dispatcher (in this process, or Redis), and the durable authority
//! behind a port. Entry points: [`Quota`], [`QuotaConfig`], [`RedisServers`].
//!
//! Invariant: charged ≤ granted ≤ Σ tranches ≤ limit, whatever crashes.

mod config;
#[cfg(test)]
mod contract;
mod dispatcher;
mod gate;
mod keeper;
mod lease_file;
mod meter;
mod metrics;
mod rate;
mod redis;
mod sessions;
#[cfg(test)]
#[path = "../tests/simulation/mod.rs"]
mod simulation;
mod slot;
mod start;
mod window_clock;

pub use crate::{
    config::QuotaConfig,
    gate::Quota,
    lease_file::LeaseFileError,
    rate::{RATE_SCRIPT, RateAsk, RateLoan, RateStore, RateStoreAway, Rates},
    redis::{RedisTarget, RedisTls, Servers as RedisServers, TargetError},
    sessions::{LiveSessions, SessionsConfig},
    start::StartError,
};
