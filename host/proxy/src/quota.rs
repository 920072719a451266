//! Step 6: the rate, then a permit, or the refusal that `quotas.md` section 3 prescribes.
//!
//! One meter call per request; it neither blocks nor allocates while tokens are at hand.
//! The permit is given back by dropping it, which is what every refusal after this step
//! does. Invariant: nothing reaches a policy or an upstream without a permit.

use std::{fmt::Write as _, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, header::RETRY_AFTER};
use model::{
    gate::{Denial, Permit, QuotaStatus, Take},
    plan::upgrade_options,
    problem::{Problem, QUOTA_EXCEEDED},
    quota::{Metric, MetricSet},
    snapshot::TenantEntry,
};
use smallvec::SmallVec;

use crate::{exchange::Exchange, rate, rescue::Reason, response::Stop};

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Seconds over which the clients of an exhausted window are spread (30).
const JITTER_S_MAX: u64 = 30;

/// Seconds of a `Retry-After` without a window at most (20): the longest session guard.
const RETRY_AFTER_S_MAX: u64 = 20;

/// The quotas of a request, for its policies and its response.
pub(crate) type Quotas = SmallVec<[QuotaStatus; 2]>;

/// Step 6 of the walk.
///
/// # Errors
/// The denial, or the end of the exchange's time.
pub(crate) async fn admit(
    exchange: &mut Exchange,
    entry: &Arc<TenantEntry>,
    metrics: MetricSet,
) -> Result<Permit, Stop> {
    rate::admit(exchange, entry).await?;
    let meter = Arc::clone(entry.meter(&*exchange.worker.gate));
    let taken = match meter.take(metrics, exchange.received_at) {
        Take::Granted(permit) => Ok(permit),
        Take::Denied(denial) => Err(denial),
        Take::Wait(tranche) => exchange.in_time(tranche).await?,
    };
    let permit = taken.map_err(Stop::Denied)?;
    exchange.metrics = metrics;
    exchange.record.admit();
    Ok(permit)
}

/// How the quotas of the request stand.
pub(crate) fn standing(exchange: &Exchange, entry: &TenantEntry) -> Quotas {
    let meter = entry.meter(&*exchange.worker.gate);
    let now = exchange.worker.now();
    let counted = |metric: &Metric| exchange.metrics.contains(*metric);
    Metric::CONSUMABLE.into_iter().filter(counted).filter_map(|m| meter.status(m, now)).collect()
}

/// Appends `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10).
pub(crate) fn append_fields(
    exchange: &Exchange,
    quotas: &Quotas,
    soft: bool,
    headers: &mut HeaderMap,
) {
    let now = exchange.worker.now();
    let (mut policy, mut limit) = (String::new(), String::new());
    for quota in quotas.iter().filter(|quota| !quota.unlimited) {
        let name = quota.rate_limit_name();
        let separator = if policy.is_empty() { "" } else { ", " };
        let (size, seconds) = (quota.limit, quota.window.seconds());
        let _ = write!(policy, "{separator}\"{name}\";q={size};w={seconds}");
        let _ = write!(limit, "{separator}\"{name}\";r={}", quota.remaining);
        if !soft {
            let _ = write!(limit, ";t={}", quota.window.seconds_left(now));
        }
    }
    if let Some(verdict) = &exchange.rate {
        rate::items(verdict, &mut policy, &mut limit);
    }
    if policy.is_empty() {
        return;
    }
    for (name, text) in [(RATELIMIT_POLICY, policy), (RATELIMIT, limit)] {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.append(name, value);
        }
    }
}

/// The response to a denial: its reason, body, and fields.
pub(crate) fn refusal(exchange: &Exchange, denial: Denial) -> (Reason, Problem, HeaderMap) {
    let mut headers = HeaderMap::new();
    let (reason, problem, retry_after_s) = match denial {
        Denial::Exhausted(quota) => {
            let left = quota.window.seconds_left(exchange.worker.now());
            let retry_after_s = left.saturating_add(jitter_s(exchange));
            fields_of_denied(exchange, quota, false, &mut headers);
            (Reason::QuotaExhausted, exceeded(exchange, quota, retry_after_s), retry_after_s)
        }
        Denial::Soft(quota) => {
            fields_of_denied(exchange, quota, true, &mut headers);
            (Reason::QuotaSoft, exceeded(exchange, quota, 1), 1)
        }
        Denial::Unavailable { retry_after_s } => {
            let retry_after_s = retry_after_s.clamp(1, RETRY_AFTER_S_MAX);
            let problem = Reason::QuotaUnavailable.problem().with("retry_after", retry_after_s);
            (Reason::QuotaUnavailable, problem, retry_after_s)
        }
    };
    headers.insert(RETRY_AFTER, HeaderValue::from(retry_after_s));
    (reason, problem, headers)
}

fn fields_of_denied(exchange: &Exchange, quota: QuotaStatus, soft: bool, headers: &mut HeaderMap) {
    let denied = QuotaStatus { remaining: 0, ..quota };
    append_fields(exchange, &Quotas::from_iter([denied]), soft, headers);
}

fn jitter_s(exchange: &Exchange) -> u64 {
    let mut byte = [0];
    exchange.worker.random(&mut byte);
    byte.first().map_or(0, |byte| u64::from(*byte) % (JITTER_S_MAX + 1))
}

fn exceeded(exchange: &Exchange, quota: QuotaStatus, retry_after_s: u64) -> Problem {
    let metric = quota.metric;
    let resets_at = quota.window.end.rfc3339();
    // A larger plan does not enlarge a share of a pool.
    let upgrades = if quota.pooled {
        Vec::new()
    } else {
        upgrade_options(&exchange.snapshot().plans, quota.limit, metric)
    };
    let row = Reason::QuotaExhausted.row();
    Problem::new(row.status.as_u16(), row.code, metric.exceeded_title())
        .of_type(QUOTA_EXCEEDED)
        .detail(format!(
            "All {} {} of this window are used; the next one starts at {resets_at}.",
            quota.limit,
            match metric {
                Metric::AiRequests => "AI requests",
                Metric::ApiCalls
                | Metric::ConcurrentSessions
                | Metric::Storage
                | Metric::Users
                | Metric::Projects => "API calls",
            }
        ))
        .with("violated-policies", vec![quota.rate_limit_name()])
        .with("resets_at", resets_at)
        .with("retry_after", retry_after_s)
        .with("upgrade_options", upgrades)
}
