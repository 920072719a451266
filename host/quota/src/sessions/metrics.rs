//! What sessions tell Prometheus. The set of series is fixed: none is per tenant.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// The series of the sessions of one process.
pub(crate) struct Metrics {
    pub(crate) live: IntGauge,
    pub(crate) admitted: IntCounter,
    pub(crate) full: IntCounter,
    pub(crate) held: IntCounter,
    pub(crate) unavailable: IntCounter,
    pub(crate) crowded: IntCounter,
    pub(crate) renewed: IntCounter,
    pub(crate) failed: IntCounter,
    pub(crate) fenced: IntCounter,
    pub(crate) ended: IntCounter,
    pub(crate) closed: IntCounter,
    pub(crate) refused: IntCounter,
    pub(crate) idle: IntCounter,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let live = IntGauge::new("edge_sessions_live", "Sessions that this edge keeps alive")?;
        registry.register(Box::new(live.clone()))?;
        let family = |name: &str, help: &str, label: &str| {
            let family = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(family.clone()))?;
            Ok::<_, prometheus::Error>(family)
        };
        let admissions = family(
            "edge_session_admissions_total",
            "Sessions new to this edge, by outcome",
            "outcome",
        )?;
        let renewals = family(
            "edge_session_renewals_total",
            "Heartbeats of sessions, by outcome: renewed, or no answer",
            "outcome",
        )?;
        let ends = family(
            "edge_session_ends_total",
            "Sessions that this edge no longer serves: idle, ended by a logout, refused by \
             the upstream, closed by the registry, or fenced because they could not be renewed in time",
            "cause",
        )?;
        let of = |family: &IntCounterVec, label: &str| family.with_label_values(&[label]);
        Ok(Self {
            live,
            admitted: of(&admissions, "admitted"),
            full: of(&admissions, "full"),
            held: of(&admissions, "held"),
            unavailable: of(&admissions, "unavailable"),
            crowded: of(&admissions, "crowded"),
            renewed: of(&renewals, "renewed"),
            failed: of(&renewals, "failed"),
            fenced: of(&ends, "fenced"),
            ended: of(&ends, "ended"),
            closed: of(&ends, "closed"),
            refused: of(&ends, "refused"),
            idle: of(&ends, "idle"),
        })
    }
}
