//! `tenant trends`: usage over time, one line a metric with a sparkline.
//!
//! Invariant: a sparkline starts at zero, so that two of them can be compared by eye, and a
//! value that is not zero never looks like one.

use anyhow::Result;
use serde_json::Value;

use super::Named;
use crate::{
    client::Call,
    commands::{
        session::Session,
        table::{Align, Table, cell},
    },
};

/// Heights of a sparkline, lowest first.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Stands for nothing at all.
const ZERO: char = '·';
/// Metrics whose buckets may be added up; the others are levels.
const SUMMED: [&str; 2] = ["api_calls", "ai_requests"];

/// Arguments of `tenant trends`.
#[derive(Debug, clap::Args)]
pub(super) struct Trends {
    #[command(flatten)]
    tenant: Named,
    /// How far back: 24h (hours, to 168h) or 30d (days, to 366d); 30d unless given.
    #[arg(long)]
    period: Option<String>,
    /// Names of metrics, separated by commas; all unless given.
    #[arg(long, value_name = "A,B,…")]
    metrics: Option<String>,
    /// One line a bucket, with its figures.
    #[arg(long)]
    buckets: bool,
}

impl Trends {
    pub(super) async fn run(self, session: &Session) -> Result<()> {
        let id = self.tenant.id(session).await?;
        let call = Call::get(&["tenants", &id, "usage", "trends"])
            .query("period", self.period)
            .query("metrics", self.metrics);
        session.print(&call, if self.buckets { buckets } else { lines }).await
    }
}

fn list<'a>(json: &'a Value, name: &str) -> &'a [Value] {
    json.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn metrics(trends: &Value) -> impl Iterator<Item = &str> {
    list(trends, "metrics").iter().filter_map(Value::as_str)
}

fn value(bucket: &Value, metric: &str) -> u64 {
    bucket.get("values").and_then(|values| values.get(metric)?.as_u64()).unwrap_or(0)
}

/// A line for each metric.
fn lines(trends: &Value) -> String {
    let found = list(trends, "buckets");
    let mut table = Table::new(&[
        ("METRIC", Align::Left),
        ("LOWEST", Align::Right),
        ("HIGHEST", Align::Right),
        ("TOTAL", Align::Right),
        ("LAST", Align::Right),
        ("TREND", Align::Left),
    ]);
    for metric in metrics(trends) {
        let values: Vec<u64> = found.iter().map(|bucket| value(bucket, metric)).collect();
        let total = match SUMMED.contains(&metric) {
            true => values.iter().copied().fold(0, u64::saturating_add).to_string(),
            false => "-".to_owned(),
        };
        let text = |value: Option<&u64>| value.map_or("-".to_owned(), u64::to_string);
        table.row([
            metric.to_owned(),
            text(values.iter().min()),
            text(values.iter().max()),
            total,
            text(values.last()),
            sparkline(&values),
        ]);
    }
    let start = |bucket: Option<&Value>| cell(bucket.and_then(|bucket| bucket.get("start")));
    let partial = found.last().and_then(|bucket| bucket.get("partial")?.as_bool());
    format!(
        "{}one bar a {} (UTC), from {} to {}{}\n",
        table.text(),
        cell(trends.get("bucket")),
        start(found.first()),
        start(found.last()),
        if partial == Some(true) { "; the last is not over yet" } else { "" },
    )
}

/// A line for each bucket.
fn buckets(trends: &Value) -> String {
    let heads = metrics(trends).map(|metric| (metric, Align::Right));
    let columns: Vec<_> = [("START", Align::Left)].into_iter().chain(heads).collect();
    let mut table = Table::new(&columns);
    for bucket in list(trends, "buckets") {
        let figures = metrics(trends).map(|metric| value(bucket, metric).to_string());
        table.row([cell(bucket.get("start"))].into_iter().chain(figures));
    }
    table.text()
}

fn sparkline(values: &[u64]) -> String {
    let highest = values.iter().copied().max().unwrap_or(0);
    values.iter().map(|value| bar(*value, highest)).collect()
}

/// The bar of a value, where `highest` has the tallest.
fn bar(value: u64, highest: u64) -> char {
    if value == 0 {
        return ZERO;
    }
    let top = BARS.len() as u128 - 1;
    let height = (u128::from(value) * top).div_ceil(u128::from(highest.max(1)));
    let height = usize::try_from(height).unwrap_or(usize::MAX);
    BARS.get(height).or(BARS.last()).copied().unwrap_or(ZERO)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn trends() -> Value {
        let bucket = |day, calls, storage| {
            let start = format!("2026-03-{day}T00:00:00Z");
            json!({"start": start, "partial": day == 15, "values": {"api_calls": calls, "storage": storage}})
        };
        json!({
            "bucket": "day",
            "metrics": ["api_calls", "storage"],
            "buckets": [bucket(13, 0, 7), bucket(14, 1, 7), bucket(15, 800, 7)],
        })
    }

    #[test]
    fn every_metric_is_a_line_and_only_what_is_counted_has_a_total() {
        assert_eq!(
            lines(&trends()),
            "METRIC     LOWEST  HIGHEST  TOTAL  LAST  TREND\n\
             api_calls       0      800    801   800  ·▂█\n\
             storage         7        7      -     7  ███\n\
             one bar a day (UTC), from 2026-03-13T00:00:00Z to 2026-03-15T00:00:00Z; the last is \
             not over yet\n"
        );
    }

    #[test]
    fn every_bucket_is_a_line_of_figures() {
        assert_eq!(
            buckets(&trends()),
            "START                 api_calls  storage\n\
             2026-03-13T00:00:00Z          0        7\n\
             2026-03-14T00:00:00Z          1        7\n\
             2026-03-15T00:00:00Z        800        7\n"
        );
    }

    #[test]
    fn a_bar_grows_with_its_value_and_never_vanishes() {
        assert_eq!(sparkline(&[0, 1, 2, 3, 4, 5, 6, 7]), "·▂▃▄▅▆▇█");
        assert_eq!(sparkline(&[1, u64::MAX]), "▂█");
        assert_eq!(sparkline(&[]), "");
    }
}
