//! `edge_snapshot_tenants` and `edge_snapshot_version`: how much the edge knows, and how
//! new it is.
//!
//! Read from the snapshot in force at each scrape. Invariant: a scrape never waits.

use std::sync::Arc;

use model::snapshot::Snapshot;
use prometheus::{
    IntGauge,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use tokio::sync::watch;

/// The gauges.
pub struct SnapshotMetrics {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    tenants: IntGauge,
    version: IntGauge,
}

impl SnapshotMetrics {
    /// Of the snapshots that come out of this channel.
    ///
    /// # Errors
    /// The names are not well formed.
    pub fn new(snapshots: watch::Receiver<Arc<Snapshot>>) -> prometheus::Result<Self> {
        let tenants = IntGauge::new("edge_snapshot_tenants", "Tenants that this edge knows")?;
        let version =
            IntGauge::new("edge_snapshot_version", "Snapshots that this process has published")?;
        Ok(Self { snapshots, tenants, version })
    }
}

impl Collector for SnapshotMetrics {
    fn desc(&self) -> Vec<&Desc> {
        [self.tenants.desc(), self.version.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let (tenants, version) = {
            let snapshot = self.snapshots.borrow();
            (snapshot.tenant_count(), snapshot.version)
        };
        self.tenants.set(i64::try_from(tenants).unwrap_or(i64::MAX));
        self.version.set(i64::try_from(version).unwrap_or(i64::MAX));
        [self.tenants.collect(), self.version.collect()].concat()
    }
}
