//! What an operator may set, each with its unit, default and reason.

use std::{path::PathBuf, sync::Arc};

use model::ledger::BootId;

use crate::redis::Servers;

/// Settings of the quota engine. Build one with [`QuotaConfig::new`] and change fields.
#[derive(Clone, Debug)]
pub struct QuotaConfig {
    /// Where leases survive a kill: a file on a local disk, in the data folder.
    pub lease_file: PathBuf,
    /// Name of this edge among others; holders of the same name succeed each other.
    pub edge: String,
    /// The Redis that several edges share. Default `None`: this process is alone.
    pub redis: Option<Arc<Servers>>,
    /// Longest wait of a request for a tranche or a lease, in ms. Default 250: longer than
    /// a disk's worst commit, shorter than a client's patience.
    pub admit_wait_ms_max: u64,
    /// Lease records, 128 bytes each, preallocated; one per active tenant and metric, two
    /// while a tranche changes. Default 65,536 (8 MiB).
    pub lease_records: u32,
    /// A lease that nobody spent from for this long goes back to the authority, in ms.
    /// Default 30,000 in one process, where nobody else waits for its tokens and coming back
    /// costs the tenant one commit; 1,000 with Redis.
    pub idle_return_ms: u64,
    /// Time between two reports to the authority, in ms. Default 1,000.
    pub report_interval_ms: u64,
    /// How long "exhausted" is believed before the authority is asked again, in ms.
    /// Default 30,000: credits may arrive after exhaustion.
    pub empty_cache_ms: u64,
    /// An authority call that takes longer is given up as failed, in ms. Default 5,000.
    pub authority_timeout_ms: u64,
    /// First and longest pause between attempts while the authority fails, in ms; doubles
    /// in between. Default 50 and 2,000.
    pub retry_ms: (u64, u64),
    /// The machine's uptime. Default `None`: the kernel's. Set by tests.
    pub boot: Option<BootId>,
}

impl QuotaConfig {
    /// These settings for edges that share a Redis.
    #[must_use]
    pub fn with_redis(self, redis: Arc<Servers>) -> Self {
        Self { redis: Some(redis), idle_return_ms: 1_000, ..self }
    }

    /// The defaults over a lease file.
    #[must_use]
    pub fn new(lease_file: PathBuf) -> Self {
        Self {
            lease_file,
            edge: "local".to_owned(),
            redis: None,
            admit_wait_ms_max: 250,
            lease_records: 65_536,
            idle_return_ms: 30_000,
            report_interval_ms: 1_000,
            empty_cache_ms: 30_000,
            authority_timeout_ms: 5_000,
            retry_ms: (50, 2_000),
            boot: None,
        }
    }
}
