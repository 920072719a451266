//! The numbers by tenant in Prometheus's form.
//!
//! Called per scrape. Invariant: the table is held while it is read and, once a minute,
//! while the seats are filled anew; a worker that finds it held pours at its next tick.

use std::sync::Arc;

use prometheus::{
    core::{Collector, Desc},
    proto::{Bucket, Counter, Histogram, LabelPair, Metric, MetricFamily, MetricType},
};

use super::{Table, TenantSeries, Times};
use crate::record::{SECONDS_BOUNDS, class_label};

const REQUESTS: &str = "tenant_requests_total";
const SECONDS: &str = "tenant_response_seconds";

/// What a registry holds of the numbers by tenant.
pub(in crate::record) struct Collected {
    series: Arc<TenantSeries>,
    requests: Desc,
    seconds: Desc,
}

impl Collected {
    pub(in crate::record) fn new(series: Arc<TenantSeries>) -> Result<Self, prometheus::Error> {
        let desc = |name: &str, help: &str, labels: &[&str]| {
            let labels = labels.iter().map(|label| (*label).to_owned()).collect();
            Desc::new(name.to_owned(), help.to_owned(), labels, Default::default())
        };
        Ok(Self {
            series,
            requests: desc(
                REQUESTS,
                "Requests by tenant (the busiest by name), route and status class",
                &["tenant", "route", "status_class"],
            )?,
            seconds: desc(
                SECONDS,
                "Time from the request's head to the response's last byte, by tenant",
                &["tenant"],
            )?,
        })
    }
}

impl Collector for Collected {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.requests, &self.seconds]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let now_ms = self.series.clock.monotonic_ms();
        let mut table = self.series.table();
        table.settle(now_ms);
        let requests = requests(&table);
        let seconds = seconds(&table);
        drop(table);
        let family = |desc: &Desc, kind, metrics: Vec<Metric>| {
            let mut family = MetricFamily::default();
            family.set_name(desc.fq_name.clone());
            family.set_help(desc.help.clone());
            family.set_field_type(kind);
            family.set_metric(metrics);
            family
        };
        let families = [
            family(&self.requests, MetricType::COUNTER, requests),
            family(&self.seconds, MetricType::HISTOGRAM, seconds),
        ];
        families.into_iter().filter(|family| !family.get_metric().is_empty()).collect()
    }
}

fn requests(table: &Table) -> Vec<Metric> {
    let series = table.requests.iter().map(|((who, route, class), count)| {
        let mut value = Counter::default();
        value.set_value(*count as f64);
        let mut metric = Metric::default();
        metric.set_counter(value);
        metric.set_label(vec![
            label("tenant", table.label(*who)),
            label("route", route.as_deref().unwrap_or_default()),
            label("status_class", class_label(*class)),
        ]);
        metric
    });
    series.collect()
}

fn seconds(table: &Table) -> Vec<Metric> {
    let series = table.seconds.iter().map(|(who, times)| {
        let mut metric = Metric::default();
        metric.set_histogram(histogram(times));
        metric.set_label(vec![label("tenant", table.label(*who))]);
        metric
    });
    series.collect()
}

fn histogram(times: &Times) -> Histogram {
    let mut cumulative = 0;
    let buckets = SECONDS_BOUNDS.iter().zip(&times.buckets).map(|(bound, count)| {
        cumulative += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(cumulative);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(times.count);
    histogram.set_sample_sum(times.sum);
    histogram
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}
