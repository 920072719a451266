//! The metrics in Prometheus's form.
//!
//! Called per scrape. Invariant: the lock is held while values are copied, not while
//! they are written out.

use std::sync::Arc;

use prometheus::{
    core::{Collector, Desc},
    proto::{
        Bucket, Counter, Gauge, Histogram as HistogramProto, LabelPair, Metric, MetricFamily,
        MetricType,
    },
};
use wasmtime::Engine;

use super::{
    PolicyMetrics,
    series::{BUCKETS, Histogram, SeriesKey},
};

const EVENTS: &str = "leanvibe_policy_events_total";
const OBSERVATIONS: &str = "leanvibe_policy_observations";
const DROPPED: &str = "leanvibe_policy_samples_dropped_total";
const INSTANCES: &str = "leanvibe_sandbox_instances";

/// Collector of the sandbox's metrics; register it once.
pub struct MetricsCollector {
    metrics: Arc<PolicyMetrics>,
    engine: Engine,
    descriptions: Vec<Desc>,
}

impl MetricsCollector {
    pub(crate) fn new(metrics: Arc<PolicyMetrics>, engine: Engine) -> Self {
        let labels = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let series = ["policy", "tenant", "metric"];
        let descriptions = [
            (EVENTS, "What policies counted.", &series[..]),
            (OBSERVATIONS, "What policies observed.", &series),
            (DROPPED, "Samples of policies that were refused.", &[]),
            (INSTANCES, "Plugin instances alive, idle ones included.", &[]),
        ]
        .into_iter()
        .filter_map(|(name, help, names)| {
            Desc::new(name.into(), help.into(), labels(names), Default::default()).ok()
        })
        .collect();
        Self { metrics, engine, descriptions }
    }

    fn instances(&self) -> u64 {
        self.engine.pooling_allocator_metrics().map_or(0, |pool| pool.component_instances())
    }
}

impl std::fmt::Debug for MetricsCollector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MetricsCollector").finish_non_exhaustive()
    }
}

impl Collector for MetricsCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let table = self.metrics.table();
        let counters: Vec<_> =
            table.counters.iter().map(|(key, total)| labelled(key, counter(*total))).collect();
        let histograms: Vec<_> =
            table.histograms.iter().map(|(key, values)| labelled(key, histogram(values))).collect();
        let dropped = counter(table.dropped);
        drop(table);
        let mut instances = Metric::default();
        let mut value = Gauge::default();
        value.set_value(self.instances() as f64);
        instances.set_gauge(value);
        let families = [
            (EVENTS, MetricType::COUNTER, counters),
            (OBSERVATIONS, MetricType::HISTOGRAM, histograms),
            (DROPPED, MetricType::COUNTER, vec![dropped]),
            (INSTANCES, MetricType::GAUGE, vec![instances]),
        ];
        families
            .into_iter()
            .filter(|(_, _, samples)| !samples.is_empty())
            .map(|(name, kind, samples)| self.family(name, kind, samples))
            .collect()
    }
}

impl MetricsCollector {
    fn family(&self, name: &str, kind: MetricType, samples: Vec<Metric>) -> MetricFamily {
        let help = self.descriptions.iter().find(|desc| desc.fq_name == name);
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.map(|desc| desc.help.clone()).unwrap_or_default());
        family.set_field_type(kind);
        family.set_metric(samples);
        family
    }
}

fn counter(total: u64) -> Metric {
    let mut value = Counter::default();
    value.set_value(total as f64);
    let mut metric = Metric::default();
    metric.set_counter(value);
    metric
}

fn histogram(values: &Histogram) -> Metric {
    let mut cumulative = 0;
    let buckets = BUCKETS.iter().zip(&values.buckets).map(|(bound, count)| {
        cumulative += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(cumulative);
        bucket
    });
    let mut proto = HistogramProto::default();
    proto.set_bucket(buckets.collect());
    proto.set_sample_count(values.count);
    proto.set_sample_sum(values.sum);
    let mut metric = Metric::default();
    metric.set_histogram(proto);
    metric
}

fn labelled(key: &SeriesKey, mut metric: Metric) -> Metric {
    let host = [("policy", &*key.policy), ("tenant", &*key.tenant), ("metric", &*key.metric)];
    let own = key.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let pair = |(name, value): (&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.to_owned());
        pair
    };
    metric.set_label(host.into_iter().chain(own).map(pair).collect());
    metric
}
