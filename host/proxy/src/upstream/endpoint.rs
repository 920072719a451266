//! How one endpoint fares: in, ejected, or on trial.
//!
//! Shared by all workers; written only when something fails or recovers, so a healthy
//! endpoint costs two relaxed loads per request. Invariant: an ejected endpoint gets no
//! request before its time is over, and then one at a time until one succeeds.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use super::{HealthConfig, UpstreamsConfig};

/// Doublings of an ejection's time at most: beyond any sensible `ejection_ms_max`.
const DOUBLINGS_MAX: u32 = 20;

/// One address that serves.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    in_flight: AtomicUsize,
    failures: AtomicU32,
    ejections: AtomicU32,
    /// When the next trial is due; 0 while in.
    out_until_ms: AtomicU64,
    returned_ms: AtomicU64,
    /// What health checks say; they alone take it back.
    is_down: AtomicBool,
    /// Checks in a row that contradict `is_down`.
    contrary: AtomicU32,
}

/// Whether an endpoint takes a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    In,
    /// Ejected, and its time is over.
    Due,
    Out,
}

impl Endpoint {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            in_flight: AtomicUsize::new(0),
            failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            out_until_ms: AtomicU64::new(0),
            returned_ms: AtomicU64::new(0),
            is_down: AtomicBool::new(false),
            contrary: AtomicU32::new(0),
        }
    }

    /// How it stands; the clock is read only of one that is ejected.
    pub(crate) fn standing(&self, now_ms: impl FnOnce() -> u64) -> Standing {
        if self.is_down.load(Relaxed) {
            return Standing::Out;
        }
        match self.out_until_ms.load(Relaxed) {
            0 => Standing::In,
            until if until <= now_ms() => Standing::Due,
            _ => Standing::Out,
        }
    }

    /// Whether it is ejected, or down.
    pub(crate) fn is_out(&self) -> bool {
        self.is_ejected() || self.is_down.load(Relaxed)
    }

    fn is_ejected(&self) -> bool {
        self.out_until_ms.load(Relaxed) != 0
    }

    /// Counts a health check, of one thread; true when it changes how the endpoint stands.
    /// Good ones end an ejection too.
    pub(super) fn checked(&self, is_healthy: bool, config: &HealthConfig) -> bool {
        let (down, ejected) = (self.is_down.load(Relaxed), self.is_ejected());
        if is_healthy != (down || ejected) {
            self.contrary.store(0, Relaxed);
            return false;
        }
        let needed = if is_healthy { config.healthy_after } else { config.unhealthy_after };
        if self.contrary.fetch_add(1, Relaxed) + 1 < needed {
            return false;
        }
        self.contrary.store(0, Relaxed);
        self.failures.store(0, Relaxed);
        if is_healthy {
            self.out_until_ms.store(0, Relaxed);
        }
        self.is_down.store(!is_healthy, Relaxed);
        true
    }

    /// Claims the one trial; the next is due one ejection later, should nothing be heard.
    pub(crate) fn claim_trial(&self, now_ms: u64, config: &UpstreamsConfig) -> bool {
        let until = self.out_until_ms.load(Relaxed);
        let next = now_ms.saturating_add(config.ejection_ms);
        until != 0
            && until <= now_ms
            && self.out_until_ms.compare_exchange(until, next, Relaxed, Relaxed).is_ok()
    }

    /// A request went well. What began before an ejection proves nothing; a trial does.
    pub(crate) fn succeeded(&self, on_trial: bool, now_ms: impl FnOnce() -> u64) {
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
        }
        if on_trial {
            self.returned_ms.store(now_ms(), Relaxed);
            self.out_until_ms.store(0, Relaxed);
        }
    }

    /// Counts a failure; whether there are now enough in a row.
    pub(crate) fn failed(&self, config: &UpstreamsConfig) -> bool {
        let before = self.failures.fetch_add(1, Relaxed);
        before.saturating_add(1) >= config.eject_after_failures
    }

    /// Ejects it for longer than the last time, unless that was long ago.
    pub(crate) fn eject(&self, now_ms: u64, config: &UpstreamsConfig) {
        let good_ms = now_ms.saturating_sub(self.returned_ms.load(Relaxed));
        if !self.is_ejected() && good_ms >= config.ejection_ms_max {
            self.ejections.store(0, Relaxed);
        }
        let before = self.ejections.fetch_add(1, Relaxed).min(DOUBLINGS_MAX);
        let span_ms = config.ejection_ms.saturating_mul(1 << before).min(config.ejection_ms_max);
        self.failures.store(0, Relaxed);
        self.out_until_ms.store(now_ms.saturating_add(span_ms).max(1), Relaxed);
    }

    /// Requests under way.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }
}

/// A request under way at an endpoint, counted until dropped.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Endpoint>);

impl Busy {
    pub(crate) fn at(endpoint: &Arc<Endpoint>) -> Self {
        endpoint.in_flight.fetch_add(1, Relaxed);
        Self(Arc::clone(endpoint))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}
