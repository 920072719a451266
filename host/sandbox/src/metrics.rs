//! Metrics: those that policies count, and how the pool stands.
//!
//! A policy chooses metric and label names, so all of them are labels of two families of
//! ours, and the number of series is bounded. Called by host functions; collected when
//! Prometheus scrapes. Invariant: what a guest sends can neither grow the registry past
//! its bounds nor forge another tenant's or policy's series.

mod collect;
mod series;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub use self::collect::MetricsCollector;
use self::series::{Histogram, SeriesKey};

/// Values of one kind of series.
#[derive(Debug, Default)]
struct Table {
    counters: HashMap<SeriesKey, u64>,
    histograms: HashMap<SeriesKey, Histogram>,
    /// Series per policy and tenant.
    per_policy: HashMap<(Arc<str>, Box<str>), usize>,
    /// Samples that were refused: a bad name or one series too many.
    dropped: u64,
}

/// What policies counted and observed.
#[derive(Debug)]
pub(crate) struct PolicyMetrics {
    series_max: usize,
    series_per_policy_max: usize,
    table: Mutex<Table>,
}

impl PolicyMetrics {
    pub(crate) fn new(series_max: usize, series_per_policy_max: usize) -> Self {
        Self { series_max, series_per_policy_max, table: Mutex::default() }
    }

    /// Adds to a counter.
    pub(crate) fn count(
        &self,
        policy: &Arc<str>,
        tenant: &str,
        metric: &str,
        labels: &[(String, String)],
        value: u64,
    ) {
        let key = SeriesKey::new(policy, tenant, metric, labels);
        let mut table = self.table();
        let known = key.as_ref().is_some_and(|key| table.counters.contains_key(key));
        match key.filter(|key| known || self.admit(&mut table, key)) {
            Some(key) => {
                let total = table.counters.entry(key).or_default();
                *total = total.saturating_add(value);
            }
            None => table.dropped += 1,
        }
    }

    /// Records an observation. One that is not a number is dropped.
    pub(crate) fn observe(
        &self,
        policy: &Arc<str>,
        tenant: &str,
        metric: &str,
        labels: &[(String, String)],
        value: f64,
    ) {
        let key = SeriesKey::new(policy, tenant, metric, labels).filter(|_| value.is_finite());
        let mut table = self.table();
        let known = key.as_ref().is_some_and(|key| table.histograms.contains_key(key));
        match key.filter(|key| known || self.admit(&mut table, key)) {
            Some(key) => table.histograms.entry(key).or_default().record(value),
            None => table.dropped += 1,
        }
    }

    /// Whether there is room for one more series; takes it if so.
    fn admit(&self, table: &mut Table, key: &SeriesKey) -> bool {
        if table.counters.len() + table.histograms.len() >= self.series_max {
            return false;
        }
        let series = table.per_policy.entry(key.owner()).or_default();
        let room = *series < self.series_per_policy_max;
        *series += usize::from(room);
        room
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn the_order_of_labels_does_not_make_another_series() {
        let metrics = PolicyMetrics::new(10, 10);
        let policy = Arc::from("p");
        metrics.count(&policy, "t", "hits", &labels(&[("a", "1"), ("b", "2")]), 2);
        metrics.count(&policy, "t", "hits", &labels(&[("b", "2"), ("a", "1")]), 3);
        let table = metrics.table();
        assert_eq!(table.counters.values().copied().collect::<Vec<_>>(), [5]);
    }

    #[test]
    fn series_are_bounded_per_policy_and_in_all() {
        let metrics = PolicyMetrics::new(3, 2);
        let (first, second) = (Arc::from("p"), Arc::from("q"));
        for metric in ["a", "b", "c", "a"] {
            metrics.count(&first, "t", metric, &[], 1);
            metrics.observe(&second, "t", metric, &[], 1.0);
        }
        let table = metrics.table();
        assert_eq!(table.counters.len() + table.histograms.len(), 3);
        assert_eq!(table.dropped, 3);
    }

    #[test]
    fn a_bad_name_or_value_is_dropped() {
        let metrics = PolicyMetrics::new(10, 10);
        let policy = Arc::from("p");
        for (name, pairs) in [
            ("", &[][..]),
            ("a-b", &[]),
            ("1a", &[]),
            ("a", &[("tenant", "x")]),
            ("a", &[("policy", "x")]),
            ("a", &[("x", "1"), ("x", "2")]),
            ("a", &[("é", "1")]),
        ] {
            metrics.count(&policy, "t", name, &labels(pairs), 1);
        }
        metrics.observe(&policy, "t", "a", &[], f64::NAN);
        let table = metrics.table();
        assert_eq!((table.counters.len(), table.dropped), (0, 8));
    }
}
