//! How long decisions take, as histograms over all tenants.
//!
//! One request in [`SAMPLE`] on each thread is timed: two readings of the clock for each
//! would cost more than the decision. Waits are timed all. Invariant: no lock and no shared
//! cell on the path of a request that is not timed.

use std::{cell::Cell, time::Instant};

use prometheus::{Histogram, HistogramOpts, Registry};

/// One in so many: a busy edge still times hundreds a second.
const SAMPLE: u32 = 64;
/// Bounds of the in-process decision, seconds: 125 ns to 1 ms.
const DECISION_S: [f64; 10] =
    [125e-9, 250e-9, 500e-9, 1e-6, 2e-6, 5e-6, 20e-6, 100e-6, 500e-6, 1e-3];
/// Bounds of waits for a refill, seconds: 250 µs to 1 s, four times the usual longest.
const WAIT_S: [f64; 10] = [250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.25, 1.0];

thread_local! {
    static SEEN: Cell<u32> = const { Cell::new(0) };
}

/// The registered histograms.
#[derive(Debug)]
pub(crate) struct Decisions {
    pub(crate) taken: Histogram,
    pub(crate) waited: Histogram,
}

/// A decision that is timed, or not.
pub(crate) struct Timed(Option<Instant>);

impl Decisions {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let histogram = |name: &str, help: &str, bounds: &[f64]| {
            let options = HistogramOpts::new(name, help).buckets(bounds.to_vec());
            let histogram = Histogram::with_opts(options)?;
            registry.register(Box::new(histogram.clone()))?;
            Ok::<_, prometheus::Error>(histogram)
        };
        Ok(Self {
            taken: histogram(
                "quota_decision_seconds",
                "Time of a quota decision in process, of one request in 64",
                &DECISION_S,
            )?,
            waited: histogram(
                "quota_wait_seconds",
                "Time that requests waited for tokens",
                &WAIT_S,
            )?,
        })
    }
}

impl Timed {
    /// Begins with a request.
    pub(crate) fn begin() -> Self {
        let number = SEEN.get().wrapping_add(1);
        SEEN.set(number);
        Self(number.is_multiple_of(SAMPLE).then(Instant::now))
    }

    /// Ends with its decision.
    pub(crate) fn end(self, histogram: &Histogram) {
        if let Some(begun) = self.0 {
            histogram.observe(begun.elapsed().as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_decision_in_64_is_timed() {
        let decisions = Decisions::new(&Registry::new()).expect("registered");
        (0..SAMPLE * 10).for_each(|_| Timed::begin().end(&decisions.taken));
        assert_eq!(decisions.taken.get_sample_count(), 10);
    }
}
