//! What the operator decides about failing upstreams.
//!
//! Embedded in [`crate::ProxyConfig`]. Invariant: as in [`crate::config`], every bound has a
//! unit, a default and a reason here.

use serde::Deserialize;

use super::HealthConfig;

/// When endpoints are left alone, and when a request is tried again.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamsConfig {
    /// Failures of an endpoint in a row that eject it (5): fewer would eject for chance.
    pub eject_after_failures: u32,
    /// Milliseconds of a first ejection (1,000); each further one lasts twice as long. Then
    /// one request tries whether the endpoint is back.
    pub ejection_ms: u64,
    /// Milliseconds of the longest ejection (30,000), and of the good time after which the
    /// count of ejections starts anew.
    pub ejection_ms_max: u64,
    /// Percent of a pool's endpoints that failed answers may eject (50): a fault of all is
    /// not cured by sending everything to a few. Failed connections eject beyond it.
    pub ejected_percent_max: u32,
    /// Further tries of one request (2); 0 turns retries and failover of a request off.
    pub retries_max: u32,
    /// Retries per 100 requests of a worker (20): retry storms.
    pub retry_percent: u32,
    /// Retries that may come at once when the budget is full (10): a quiet edge's too.
    pub retry_burst: u32,
    /// Whether another region of the tenant's residency group serves when the home region
    /// cannot (true). A region that a policy asked for by name is never left.
    pub region_failover: bool,
    /// Active checks.
    pub health: HealthConfig,
}

impl Default for UpstreamsConfig {
    fn default() -> Self {
        Self {
            eject_after_failures: 5,
            ejection_ms: 1_000,
            ejection_ms_max: 30_000,
            ejected_percent_max: 50,
            retries_max: 2,
            retry_percent: 20,
            retry_burst: 10,
            region_failover: true,
            health: HealthConfig::default(),
        }
    }
}

impl UpstreamsConfig {
    /// The first value that cannot work, with the reason.
    pub(crate) fn flaw(&self) -> Option<&'static str> {
        if self.eject_after_failures == 0 {
            return Some("eject_after_failures may not be 0: set it to 1 or more");
        }
        if self.ejection_ms == 0 || self.ejection_ms > self.ejection_ms_max {
            return Some("ejection_ms must be at least 1 and at most ejection_ms_max");
        }
        if self.ejected_percent_max > 100 || self.retry_percent > 100 {
            return Some("ejected_percent_max and retry_percent may be at most 100");
        }
        self.health.flaw()
    }
}
