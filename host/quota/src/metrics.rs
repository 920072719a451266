//! Counters of the quota engine. No label names a tenant, so their number is fixed.
//!
//! Admissions are counted by the keeper from the records, four times a second, so that a
//! request pays for none of them.

use model::quota::Metric;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::decision::Decisions;

/// The registered counters.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) admitted: [IntCounter; 2],
    pub(crate) refunded: [IntCounter; 2],
    pub(crate) late_refunds: [IntCounter; 2],
    pub(crate) expired_refunds: IntCounter,
    pub(crate) exhausted: [IntCounter; 2],
    pub(crate) soft: [IntCounter; 2],
    pub(crate) unavailable: [IntCounter; 2],
    pub(crate) unaccounted: [IntCounter; 2],
    pub(crate) overdrawn: [IntCounter; 2],
    pub(crate) decisions: Decisions,
    pub(crate) calls_open: IntCounter,
    pub(crate) calls_report: IntCounter,
    pub(crate) calls_confirm: IntCounter,
    pub(crate) calls_close: IntCounter,
    pub(crate) calls_keep: IntCounter,
    pub(crate) calls_failed: IntCounter,
    pub(crate) dispatcher_leases: IntCounter,
    pub(crate) dispatcher_installs: IntCounter,
    pub(crate) dispatcher_closes: IntCounter,
    pub(crate) dispatcher_failures: IntCounter,
    pub(crate) returned: IntCounter,
    pub(crate) direct: IntCounter,
    pub(crate) opened: IntCounter,
    pub(crate) abandoned: IntCounter,
    pub(crate) wasted: IntCounter,
    pub(crate) inherited: IntCounter,
    pub(crate) leases: IntGauge,
    pub(crate) up: IntGauge,
}

impl Metrics {
    /// Registers all of them.
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let per_metric = |name: &str, help: &str| -> Result<[IntCounter; 2], prometheus::Error> {
            let family = IntCounterVec::new(Opts::new(name, help), &["metric"])?;
            registry.register(Box::new(family.clone()))?;
            Ok(Metric::CONSUMABLE.map(|metric| family.with_label_values(&[metric.as_str()])))
        };
        let denied = IntCounterVec::new(
            Opts::new("quota_denied_total", "Requests refused, by metric and state."),
            &["metric", "state"],
        )?;
        registry.register(Box::new(denied.clone()))?;
        let denied = |state: &str| {
            Metric::CONSUMABLE.map(|metric| denied.with_label_values(&[metric.as_str(), state]))
        };
        let calls = IntCounterVec::new(
            Opts::new("quota_authority_calls_total", "Calls to the authority."),
            &["call"],
        )?;
        registry.register(Box::new(calls.clone()))?;
        let dispatched = IntCounterVec::new(
            Opts::new("quota_dispatcher_calls_total", "Calls to the shared dispatcher."),
            &["call"],
        )?;
        registry.register(Box::new(dispatched.clone()))?;
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        Ok(Self {
            admitted: per_metric("quota_admitted_total", "Tokens taken by requests.")?,
            refunded: per_metric("quota_refunded_total", "Tokens given back in time.")?,
            late_refunds: per_metric(
                "quota_late_refunds_total",
                "Tokens given back after their lease was sealed.",
            )?,
            unaccounted: per_metric(
                "quota_unaccounted_total",
                "Requests served without a token, because their plan allows it in an outage.",
            )?,
            overdrawn: per_metric(
                "quota_overdrawn_total",
                "Tokens taken of those kept aside for the time in which nobody answers.",
            )?,
            decisions: Decisions::new(registry)?,
            expired_refunds: counter(
                "quota_expired_refunds_total",
                "Tokens given back after their window ended; they stay charged.",
            )?,
            exhausted: denied("exhausted"),
            soft: denied("soft"),
            unavailable: denied("unavailable"),
            calls_open: calls.with_label_values(&["open"]),
            calls_report: calls.with_label_values(&["report"]),
            calls_confirm: calls.with_label_values(&["confirm"]),
            calls_close: calls.with_label_values(&["close"]),
            calls_keep: calls.with_label_values(&["keep"]),
            dispatcher_leases: dispatched.with_label_values(&["lease"]),
            dispatcher_installs: dispatched.with_label_values(&["install"]),
            dispatcher_closes: dispatched.with_label_values(&["close"]),
            dispatcher_failures: counter(
                "quota_dispatcher_failures_total",
                "Calls to the shared dispatcher that failed, timed out or found it away.",
            )?,
            returned: counter(
                "quota_returned_tokens_total",
                "Unspent tokens given back to a dispatcher.",
            )?,
            direct: counter(
                "quota_direct_tranches_total",
                "Tranches of this edge alone, opened because the shared dispatcher was away.",
            )?,
            calls_failed: counter(
                "quota_authority_failures_total",
                "Calls to the authority that failed or timed out.",
            )?,
            opened: counter("quota_tranches_opened_total", "Tranches opened.")?,
            abandoned: counter(
                "quota_tranches_abandoned_total",
                "Tranches opened in doubt, given back unspent.",
            )?,
            wasted: counter(
                "quota_wasted_tokens_total",
                "Tokens charged without a request, because a lease file was lost.",
            )?,
            inherited: counter(
                "quota_inherited_tokens_total",
                "Unspent tokens brought back from a predecessor's lease file.",
            )?,
            leases: gauge("quota_lease_records", "Lease records in use.")?,
            up: gauge("quota_authority_up", "1 while the authority answers.")?,
        })
    }
}
