//! `GET /tenants/{tenant_id}/usage/trends?period=30d&metrics=api_calls,storage,users`.
//!
//! Whole UTC hours or days up to now, gaps filled; the last bucket is still running, so it
//! is `partial`. Invariant: an answer depends on the figures and the current bucket only,
//! so that its entity tag stands until one of them changes.

use axum::{
    body::Bytes,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use model::{
    quota::{Metric, whole_mb},
    tenant::TenantId,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::{
    api::{
        Api,
        fields::{Fields, Ruled, query},
        path::TenantPath,
        problem::ApiError,
        rules,
    },
    store::{BucketLength, TrendSpan},
};

/// Longest period in hours: a week.
const HOURS_MAX: u64 = 168;
/// Longest period in days: a year, whichever.
const DAYS_MAX: u64 = 366;
/// What is asked for unless said otherwise: the guide's month.
const PERIOD_DEFAULT: Period = Period { length: BucketLength::Day, buckets: 30 };

/// Which trends.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "documents the query that `read` reads")]
pub(in crate::api) struct TrendsQuery {
    /// `24h` (hours, to `168h`) or `30d` (days, to `366d`); `30d` unless given.
    #[schemars(regex(pattern = "^[1-9][0-9]{0,2}[hd]$"))]
    period: Option<String>,
    /// Names of metrics, separated by commas; all six unless given.
    metrics: Option<String>,
}

/// Usage by bucket, oldest first.
#[derive(Serialize, JsonSchema)]
pub(in crate::api) struct Trends {
    #[schemars(with = "uuid::Uuid")]
    tenant_id: TenantId,
    period: String,
    /// Length of a bucket: `hour` or `day`, UTC.
    bucket: &'static str,
    metrics: Vec<&'static str>,
    buckets: Vec<Bucket>,
}

/// One hour or day.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "TrendBucket")]
struct Bucket {
    /// RFC 3339.
    start: String,
    /// It is not over yet.
    partial: bool,
    /// By metric: what was charged in it, or the level at its end (storage in MB).
    #[schemars(with = "std::collections::BTreeMap<String, u64>")]
    values: Map<String, Value>,
}

#[derive(Clone, Copy)]
struct Period {
    length: BucketLength,
    buckets: u64,
}

pub(in crate::api) async fn read(
    State(api): State<Api>,
    TenantPath(tenant): TenantPath,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    if !api.store.knows(tenant) {
        return Err(ApiError::NotFound);
    }
    let (period, metrics) = asked(&uri)?;
    let span = TrendSpan::until(api.clock.now(), period.length, period.buckets);
    let trends = api.store.trends(tenant, &metrics, span).await?;
    let bucket = |index: u64| {
        let value = |metric: &Metric| {
            let values = trends.get(metric).map(Vec::as_slice).unwrap_or_default();
            let at = usize::try_from(index).unwrap_or(usize::MAX);
            let value = values.get(at).copied().unwrap_or(0);
            let shown = if *metric == Metric::Storage { whole_mb(value) } else { value };
            (metric.as_str().to_owned(), shown.into())
        };
        Bucket {
            start: span.bucket(index).rfc3339(),
            partial: index + 1 == span.buckets,
            values: metrics.iter().map(value).collect(),
        }
    };
    let trends = Trends {
        tenant_id: tenant,
        period: period.to_string(),
        bucket: period.unit(),
        metrics: metrics.iter().copied().map(Metric::as_str).collect(),
        buckets: (0..span.buckets).map(bucket).collect(),
    };
    Ok(tagged(&trends, &headers))
}

fn asked(uri: &Uri) -> Result<(Period, Vec<Metric>), ApiError> {
    let mut fields = Fields::new(query(uri)?);
    let period = fields.optional("period", |value| period(rules::text(value)?));
    let metrics = fields.optional("metrics", |value| metrics(rules::text(value)?));
    fields.finish()?;
    Ok((period.unwrap_or(PERIOD_DEFAULT), metrics.unwrap_or_else(|| Metric::ALL.to_vec())))
}

fn period(text: &str) -> Ruled<Period> {
    let parse = |unit, length, most| {
        let digits: &str = text.strip_suffix(unit)?;
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        let buckets = digits.parse().ok().filter(|_| plain)?;
        (1..=most).contains(&buckets).then_some(Period { length, buckets })
    };
    parse('h', BucketLength::Hour, HOURS_MAX)
        .or_else(|| parse('d', BucketLength::Day, DAYS_MAX))
        .ok_or_else(|| format!("must be 1h to {HOURS_MAX}h or 1d to {DAYS_MAX}d"))
}

/// The metrics of a list, each once.
fn metrics(text: &str) -> Ruled<Vec<Metric>> {
    let mut metrics = Vec::new();
    for name in text.split(',') {
        let metric = Metric::from_name(name.trim()).ok_or_else(|| {
            let names = Metric::ALL.map(Metric::as_str).join(", ");
            format!("{name:?} is no metric; allowed, separated by commas: {names}")
        })?;
        if !metrics.contains(&metric) {
            metrics.push(metric);
        }
    }
    Ok(metrics)
}

impl Period {
    const fn unit(self) -> &'static str {
        match self.length {
            BucketLength::Hour => "hour",
            BucketLength::Day => "day",
        }
    }
}

impl std::fmt::Display for Period {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let unit = match self.length {
            BucketLength::Hour => 'h',
            BucketLength::Day => 'd',
        };
        write!(f, "{}{unit}", self.buckets)
    }
}

/// The answer with its entity tag; without its body when the client has it.
fn tagged(trends: &Trends, headers: &HeaderMap) -> Response {
    let body = serde_json::to_vec(trends).unwrap_or_default();
    let digest = Sha256::digest(&body);
    let tag =
        digest.iter().take(16).fold(String::from("\""), |tag, byte| format!("{tag}{byte:02x}"));
    let tag = format!("{tag}\"");
    let known = has(headers, &tag);
    let fields = [
        (header::ETAG, HeaderValue::try_from(tag).unwrap_or(HeaderValue::from_static("\"\""))),
        // A client may keep it and ask whether it still stands; a shared cache may not.
        (header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache")),
    ];
    if known {
        return (StatusCode::NOT_MODIFIED, fields).into_response();
    }
    let content_type = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    (fields, content_type, Bytes::from(body)).into_response()
}

/// Whether `If-None-Match` names the tag (compared weakly, RFC 9110 13.1.2).
fn has(headers: &HeaderMap, tag: &str) -> bool {
    let fields = headers.get_all(header::IF_NONE_MATCH).iter();
    fields.filter_map(|field| field.to_str().ok()).flat_map(|field| field.split(',')).any(|held| {
        let held = held.trim();
        held == "*" || held.strip_prefix("W/").unwrap_or(held) == tag
    })
}
