//! What TLS leaves in the metrics. Bounded: outcomes are a closed set, certificates are
//! those of the configuration.

use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};
use rustls::HandshakeKind;

use super::material::Shown;

/// The series.
#[derive(Clone)]
pub(crate) struct Meters {
    handshakes: IntCounterVec,
    expiry: IntGaugeVec,
    reloads: IntCounterVec,
    failed_reloads: IntCounter,
}

impl Meters {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let handshakes = Opts::new("edge_tls_handshakes_total", "TLS handshakes, by outcome");
        let handshakes = IntCounterVec::new(handshakes, &["outcome"])?;
        let expiry = Opts::new(
            "edge_tls_certificate_not_after_seconds",
            "Unix time at which a certificate in force ends",
        );
        let expiry = IntGaugeVec::new(expiry, &["name"])?;
        let reloads = Opts::new("edge_tls_reloads_total", "Readings of changed files, by outcome");
        let reloads = IntCounterVec::new(reloads, &["outcome"])?;
        let failed_reloads = reloads.with_label_values(&["failed"]);
        registry.register(Box::new(handshakes.clone()))?;
        registry.register(Box::new(expiry.clone()))?;
        registry.register(Box::new(reloads.clone()))?;
        Ok(Self { handshakes, expiry, reloads, failed_reloads })
    }

    pub(super) fn done(&self, kind: Option<HandshakeKind>) {
        let outcome = match kind {
            Some(HandshakeKind::Resumed) => "resumed",
            _ => "full",
        };
        self.handshakes.with_label_values(&[outcome]).inc();
    }

    pub(super) fn failed(&self, outcome: &str) {
        self.handshakes.with_label_values(&[outcome]).inc();
    }

    pub(super) fn in_force(&self, shown: &[Shown]) {
        self.expiry.reset();
        for one in shown {
            self.expiry.with_label_values(&[&one.name]).set(one.not_after_s);
        }
    }

    pub(super) fn reloaded(&self) {
        self.reloads.with_label_values(&["done"]).inc();
    }

    pub(super) fn kept(&self) {
        self.failed_reloads.inc();
    }
}
