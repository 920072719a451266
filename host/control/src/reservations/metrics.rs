//! What reservations tell Prometheus: what this edge set aside and what became of it, and what
//! nobody knows the end of, of all edges. No series is per tenant.
//!
//! Invariant: `reserved` is at least `committed` + `released` + `unknown` + `late`; the rest is
//! under way, or with a store that is away.

use model::{
    quota::Metric,
    reservation::{Outcome, Refused},
};
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

use crate::store::Unresolved;

/// What can be set aside.
const METRICS: [Metric; 3] = [Metric::Storage, Metric::Users, Metric::Projects];

/// What happened to a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Room was set aside.
    Reserved,
    /// There was none.
    Refused,
    /// Nobody could say.
    Unavailable,
    /// The upstream took what it was for, and the level has it.
    Committed,
    /// Nothing came of it.
    Released,
    /// The upstream had the request and never answered.
    Unknown,
    /// A report of the tenant ended it before its request did.
    Late,
}

impl Event {
    const ALL: [Self; 7] = [
        Self::Reserved,
        Self::Refused,
        Self::Unavailable,
        Self::Committed,
        Self::Released,
        Self::Unknown,
        Self::Late,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
            Self::Committed => "committed",
            Self::Released => "released",
            Self::Unknown => "unknown",
            Self::Late => "late",
        }
    }

    /// A settlement that the store has; `ended` when it was the one that ended it.
    pub(super) const fn settled(outcome: Outcome, ended: bool) -> Self {
        match (outcome, ended) {
            (_, false) => Self::Late,
            (Outcome::Taken(_), true) => Self::Committed,
            (Outcome::Nothing, true) => Self::Released,
            (Outcome::Unknown, true) => Self::Unknown,
        }
    }
}

impl From<&Refused> for Event {
    fn from(refused: &Refused) -> Self {
        match refused {
            Refused::Exceeded(_) => Self::Refused,
            Refused::Unavailable => Self::Unavailable,
        }
    }
}

/// The registered series.
pub(super) struct Metrics {
    events: IntCounterVec,
    unresolved: IntGaugeVec,
    amount: IntGaugeVec,
}

impl Metrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), &["metric"])?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let events = Opts::new("edge_reservations_total", "Reservations, by metric and event");
        let events = IntCounterVec::new(events, &["metric", "event"])?;
        registry.register(Box::new(events.clone()))?;
        let metrics = Self {
            events,
            unresolved: gauge(
                "edge_reservations_unresolved",
                "Reservations of all edges whose outcome nobody knows; a level report of their \
                 tenants, or the operator, ends them",
            )?,
            amount: gauge(
                "edge_reservations_unresolved_amount",
                "What these hold back: bytes, users, projects",
            )?,
        };
        // A rate of something that never happened is 0, not absent.
        for metric in METRICS {
            for event in Event::ALL {
                metrics.events.with_label_values(&[metric.as_str(), event.as_str()]);
            }
        }
        Ok(metrics)
    }

    pub(super) fn count(&self, metric: Metric, event: Event) {
        self.events.with_label_values(&[metric.as_str(), event.as_str()]).inc();
    }

    /// Shows what is unresolved now, and tells the operator of more than before.
    pub(super) fn unresolved(&self, all: &[Unresolved]) {
        for metric in METRICS {
            let of = all.iter().find(|of| of.metric == metric);
            let (count, amount) = of.map_or((0, 0), |of| (of.reservations, of.amount));
            let shown = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
            let gauge = self.unresolved.with_label_values(&[metric.as_str()]);
            if shown(count) > gauge.get() {
                tracing::warn!(
                    metric = metric.as_str(),
                    reservations = count,
                    amount,
                    "reservations of unknown outcome are held back: a report of their tenants' \
                     levels ends them, or `tenant reservations resolve`"
                );
            }
            gauge.set(shown(count));
            self.amount.with_label_values(&[metric.as_str()]).set(shown(amount));
        }
    }
}
