//! Every endpoint that was served from, by address.
//!
//! One per proxy. Workers ask it when they see a pool for the first time under a snapshot,
//! so that what is known about an endpoint outlives reloads. Invariant: no request takes
//! its lock but the first to a pool after a reload.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus::{
    IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::endpoint::Endpoint;

/// Endpoints remembered that no snapshot in use declares (1,024): a few hundred KB.
const FORGOTTEN_MAX: usize = 1_024;

/// The endpoints of a proxy.
#[derive(Clone, Default)]
pub(crate) struct Fleet(Arc<Mutex<BTreeMap<SocketAddr, Arc<Endpoint>>>>);

impl Fleet {
    /// The endpoint of an address.
    pub(crate) fn endpoint(&self, address: SocketAddr) -> Arc<Endpoint> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() > FORGOTTEN_MAX {
            all.retain(|_, endpoint| Arc::strong_count(endpoint) > 1);
        }
        let new = || Arc::new(Endpoint::new(address));
        Arc::clone(all.entry(address).or_insert_with(new))
    }

    /// Those that somebody uses.
    pub(super) fn used(&self) -> Vec<Arc<Endpoint>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().filter(|endpoint| Arc::strong_count(endpoint) > 1).cloned().collect()
    }
}

/// The series of upstreams.
pub(crate) struct Meters {
    retries: IntCounterVec,
    pub(crate) ejections: IntCounter,
    pub(crate) failovers: IntCounter,
}

impl Meters {
    /// Registers them, and the standing of each endpoint of the fleet: as many series as
    /// operators declare endpoints.
    pub(crate) fn register(registry: &Registry, fleet: &Fleet) -> Result<Self, prometheus::Error> {
        let retries = Opts::new(
            "edge_upstream_retries_total",
            "Further tries of requests, and those that the retry budget refused, by outcome",
        );
        let meters = Self {
            retries: IntCounterVec::new(retries, &["outcome"])?,
            ejections: IntCounter::new(
                "edge_upstream_ejections_total",
                "Endpoints ejected for failures in a row",
            )?,
            failovers: IntCounter::new(
                "edge_region_failovers_total",
                "Requests that another region of their residency group served",
            )?,
        };
        registry.register(Box::new(meters.retries.clone()))?;
        registry.register(Box::new(meters.ejections.clone()))?;
        registry.register(Box::new(meters.failovers.clone()))?;
        let up = Opts::new("edge_upstream_endpoint_in", "1 while in, 0 while ejected or down");
        let in_flight =
            Opts::new("edge_upstream_endpoint_in_flight", "Requests under way, in larger pools");
        registry.register(Box::new(Standings {
            fleet: fleet.clone(),
            up: IntGaugeVec::new(up, &["endpoint"])?,
            in_flight: IntGaugeVec::new(in_flight, &["endpoint"])?,
        }))?;
        Ok(meters)
    }

    /// Counts a retry, or that there was none left.
    pub(crate) fn retry(&self, allowed: bool) {
        let outcome = if allowed { "tried" } else { "over-budget" };
        self.retries.with_label_values(&[outcome]).inc();
    }
}

/// The endpoints as metrics show them.
struct Standings {
    fleet: Fleet,
    up: IntGaugeVec,
    in_flight: IntGaugeVec,
}

impl Collector for Standings {
    fn desc(&self) -> Vec<&Desc> {
        [self.up.desc(), self.in_flight.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.up.reset();
        self.in_flight.reset();
        for endpoint in self.fleet.used() {
            let address = endpoint.address.to_string();
            self.up.with_label_values(&[&address]).set(i64::from(!endpoint.is_out()));
            let in_flight = i64::try_from(endpoint.in_flight()).unwrap_or(i64::MAX);
            self.in_flight.with_label_values(&[&address]).set(in_flight);
        }
        [self.up.collect(), self.in_flight.collect()].concat()
    }
}
