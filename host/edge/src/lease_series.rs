//! Numbers of the quota leases by tenant: the tenants that metrics show by name, everybody
//! else together; and what the last audit of the accounts found.
//!
//! Made at a scrape from what the engine counted anyway. Invariant: as many series as the
//! proxy shows tenants by name, and one more; a scrape waits for nobody.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use control::Store;
use model::{gate::UsageSource as _, quota::Metric, snapshot::Snapshot, tenant::TenantId};
use prometheus::{
    IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use quota::Quota;
use tokio::sync::watch;

/// The tenants that have no series of their own.
const OTHER: &str = "other";

/// What a registry holds.
struct LeaseSeries<F> {
    quota: Arc<Quota>,
    store: Arc<Store>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    shown: F,
    families: Families,
    /// One scrape at a time fills the families.
    turn: Mutex<()>,
}

struct Families {
    admitted: IntCounterVec,
    calls: IntCounterVec,
    leased: IntGaugeVec,
    broken: IntGauge,
}

/// Registers the series of the tenants that `shown` answers.
///
/// # Errors
/// They are registered already.
pub(crate) fn register(
    registry: &Registry,
    quota: Arc<Quota>,
    store: Arc<Store>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    shown: impl Fn() -> Vec<TenantId> + Send + Sync + 'static,
) -> Result<()> {
    let families = Families::new()?;
    let turn = Mutex::default();
    registry.register(Box::new(LeaseSeries { quota, store, snapshots, shown, families, turn }))?;
    Ok(())
}

impl Families {
    fn new() -> Result<Self, prometheus::Error> {
        Ok(Self {
            admitted: IntCounterVec::new(
                Opts::new("tenant_quota_admitted_total", "Tokens taken by requests, by tenant"),
                &["tenant", "metric"],
            )?,
            calls: IntCounterVec::new(
                Opts::new(
                    "tenant_quota_dispatcher_calls_total",
                    "Calls to the Redis that edges share, by tenant",
                ),
                &["tenant"],
            )?,
            leased: IntGaugeVec::new(
                Opts::new(
                    "tenant_quota_leased_tokens",
                    "Tokens in this edge's leases, kept ones included; the busiest tenants only",
                ),
                &["tenant", "metric"],
            )?,
            broken: IntGauge::new(
                "quota_invariant_broken",
                "Faults that the last audit of the quota accounts found",
            )?,
        })
    }
}

impl<F: Fn() -> Vec<TenantId>> LeaseSeries<F> {
    fn fill(&self) {
        let Families { admitted, calls, leased, .. } = &self.families;
        admitted.reset();
        calls.reset();
        leased.reset();
        let totals = self.quota.totals();
        let mut other_calls = totals.dispatcher_calls;
        let mut other = totals.admitted;
        let snapshot = Arc::clone(&self.snapshots.borrow());
        for id in (self.shown)() {
            let Some(entry) = snapshot.tenant(id) else { continue };
            let slug = entry.record.tenant.slug.as_str();
            for quota in self.quota.at_edge(id) {
                let labels = [slug, quota.metric.as_str()];
                let tokens = i64::try_from(quota.at_hand + quota.kept).unwrap_or(i64::MAX);
                leased.with_label_values(&labels).set(tokens);
                admitted.with_label_values(&labels).inc_by(quota.admitted);
                calls.with_label_values(&[slug]).inc_by(quota.dispatcher_calls);
                other_calls = other_calls.saturating_sub(quota.dispatcher_calls);
                let place = Metric::CONSUMABLE.iter().position(|metric| *metric == quota.metric);
                if let Some(rest) = place.and_then(|place| other.get_mut(place)) {
                    *rest = rest.saturating_sub(quota.admitted);
                }
            }
        }
        for (metric, rest) in Metric::CONSUMABLE.into_iter().zip(other) {
            admitted.with_label_values(&[OTHER, metric.as_str()]).inc_by(rest);
        }
        calls.with_label_values(&[OTHER]).inc_by(other_calls);
    }
}

impl<F: Fn() -> Vec<TenantId> + Send + Sync> Collector for LeaseSeries<F> {
    fn desc(&self) -> Vec<&Desc> {
        let Families { admitted, calls, leased, broken } = &self.families;
        [admitted.desc(), calls.desc(), leased.desc(), broken.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.fill();
        let Families { admitted, calls, leased, broken } = &self.families;
        let mut collected = [admitted.collect(), calls.collect(), leased.collect()].concat();
        if let Some(faults) = self.store.broken_quotas() {
            broken.set(i64::try_from(faults).unwrap_or(i64::MAX));
            collected.extend(broken.collect());
        }
        collected.retain(|family| !family.get_metric().is_empty());
        collected
    }
}

#[cfg(test)]
mod tests {
    use model::clock::{Clock, SystemClock};

    use super::*;

    #[tokio::test]
    async fn everybody_else_has_a_series_and_faults_are_told_after_the_first_audit() {
        let folder = tempfile::tempdir().expect("a folder");
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let url = format!("sqlite://{}", folder.path().join("edge.db").display());
        let store = Store::open(&url, Arc::clone(&clock)).await.expect("a store");
        let registry = Registry::new();
        let config = quota::QuotaConfig::new(folder.path().join("leases"));
        let quota = Quota::start(config, Arc::clone(&store) as _, clock, &registry);
        let quota = quota.await.expect("an engine");
        let (_sender, snapshots) = watch::channel(Arc::default());
        register(&registry, quota, Arc::clone(&store), snapshots, Vec::new).expect("registered");
        let page = || prometheus::TextEncoder::new().encode_to_string(&registry.gather());
        let before = page().expect("a page");
        let line = "tenant_quota_admitted_total{metric=\"api_calls\",tenant=\"other\"} 0";
        assert!(before.contains(line), "{before}");
        assert!(before.contains("tenant_quota_dispatcher_calls_total{tenant=\"other\"} 0"));
        assert!(!before.contains("quota_invariant_broken"), "nobody has looked yet");
        store.audit_quotas().await.expect("an audit");
        assert!(page().expect("a page").contains("quota_invariant_broken 0"));
    }
}
