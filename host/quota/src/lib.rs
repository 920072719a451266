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
mod decision;
mod dispatcher;
mod gate;
mod keeper;
mod lease_file;
mod meter;
mod meters;
mod metrics;
mod overdraft;
mod rate;
mod redis;
mod sessions;
#[cfg(test)]
#[path = "../tests/simulation/mod.rs"]
mod simulation;
mod slot;
mod start;
mod tally;
mod window_clock;

pub use crate::{
    config::QuotaConfig,
    gate::{Quota, Totals},
    lease_file::LeaseFileError,
    rate::{RATE_SCRIPT, RateAsk, RateLoan, RateStore, RateStoreAway, Rates},
    redis::{
        RedisFencing, RedisKeyvalue, RedisTarget, RedisTls, Servers as RedisServers, TargetError,
        shared_dispatcher,
    },
    sessions::{LiveSessions, SessionsConfig},
    start::StartError,
};
