//! One series of a policy's metric: its identity and its values.
//!
//! Invariant: a [`SeriesKey`] exists only with valid names, none of which is the host's.

use std::sync::Arc;

/// Labels that a policy may add to a metric.
const LABELS_MAX: usize = 4;
/// Bytes of a name.
const NAME_BYTES_MAX: usize = 64;
/// Bytes of a label's value.
const VALUE_BYTES_MAX: usize = 128;
/// Labels that the host sets.
const HOST_LABELS: [&str; 3] = ["policy", "tenant", "metric"];
/// Upper bounds of histogram buckets: Prometheus's own defaults.
pub(super) const BUCKETS: [f64; 11] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// What identifies a series.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct SeriesKey {
    pub(super) policy: Arc<str>,
    pub(super) tenant: Box<str>,
    pub(super) metric: Box<str>,
    /// Sorted by name.
    pub(super) labels: Box<[(String, String)]>,
}

impl SeriesKey {
    /// The key of valid names; `None` otherwise.
    pub(super) fn new(
        policy: &Arc<str>,
        tenant: &str,
        metric: &str,
        labels: &[(String, String)],
    ) -> Option<Self> {
        let sound = is_name(metric)
            && labels.len() <= LABELS_MAX
            && labels.iter().all(|(name, value)| {
                is_name(name)
                    && !HOST_LABELS.contains(&name.as_str())
                    && value.len() <= VALUE_BYTES_MAX
            });
        if !sound {
            return None;
        }
        let mut labels: Box<[_]> = labels.into();
        labels.sort_unstable();
        let repeated = labels.windows(2).any(|pair| match pair {
            [(first, _), (second, _)] => first == second,
            _ => false,
        });
        (!repeated).then(|| Self {
            policy: Arc::clone(policy),
            tenant: tenant.into(),
            metric: metric.into(),
            labels,
        })
    }

    /// Whose series it is.
    pub(super) fn owner(&self) -> (Arc<str>, Box<str>) {
        (Arc::clone(&self.policy), self.tenant.clone())
    }
}

/// Prometheus's grammar of label names, bounded.
fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= NAME_BYTES_MAX
        && bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Observations in buckets.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    pub(super) count: u64,
    pub(super) sum: f64,
    /// Not cumulative.
    pub(super) buckets: [u64; BUCKETS.len()],
}

impl Histogram {
    pub(super) fn record(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
        let fits = BUCKETS.iter().zip(&mut self.buckets).find(|(bound, _)| value <= **bound);
        if let Some((_, bucket)) = fits {
            *bucket += 1;
        }
    }
}
