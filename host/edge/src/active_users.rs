//! `tenant_active_users{tenant}`: the reported users of the tenants that metrics show by
//! name.
//!
//! The proxy elects them by traffic; their levels are read from the store a few times a
//! minute, so that a scrape never waits for a database. Invariant: a tenant that is no
//! longer elected has no series.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use control::Store;
use model::{quota::Metric, snapshot::Snapshot, tenant::TenantId};
use prometheus::{IntGaugeVec, Opts, Registry};
use tokio::{sync::watch, task::JoinHandle};

/// How often the levels are read, in ms: as often as metrics are usually scraped.
const EVERY_MS: u64 = 15_000;

/// The task that keeps the gauge; ends when dropped.
pub(crate) struct ActiveUsers(JoinHandle<()>);

impl ActiveUsers {
    /// Ends the task and waits until it holds the store no more.
    pub(crate) async fn stop(mut self) {
        self.0.abort();
        let _ended = (&mut self.0).await;
    }
}

impl Drop for ActiveUsers {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Keeps the gauge of the tenants that `shown` answers.
///
/// # Errors
/// The gauge is registered already.
pub(crate) fn keep(
    registry: &Registry,
    store: Arc<Store>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    shown: impl Fn() -> Vec<TenantId> + Send + Sync + 'static,
) -> Result<ActiveUsers> {
    let help = "Users that the tenant's backends reported; the busiest tenants only";
    let gauge = IntGaugeVec::new(Opts::new("tenant_active_users", help), &["tenant"])?;
    registry.register(Box::new(gauge.clone()))?;
    let task: JoinHandle<()> = tokio::spawn(async move {
        loop {
            let tenants = shown();
            match store.levels_of(Metric::Users, &tenants).await {
                Ok(levels) => {
                    let snapshot = Arc::clone(&snapshots.borrow());
                    gauge.reset();
                    for (id, users) in levels {
                        if let Some(entry) = snapshot.tenant(id) {
                            let slug = entry.record.tenant.slug.as_str();
                            let users = i64::try_from(users).unwrap_or(i64::MAX);
                            gauge.with_label_values(&[slug]).set(users);
                        }
                    }
                }
                // The last figures stay until the database is back.
                Err(error) => tracing::debug!(%error, "active users were not read"),
            }
            tokio::time::sleep(Duration::from_millis(EVERY_MS)).await;
        }
    });
    Ok(ActiveUsers(task))
}
