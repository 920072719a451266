//! Step 6, its first half: the tenant's rate, before anything is charged.
//!
//! One call of the bucket per request of a tenant with a rate; it waits only where several
//! edges share the rate and this one has nothing of it at hand. Invariant: what the rate
//! refuses takes no token of a quota.

use std::{fmt::Write as _, sync::Arc};

use http::{HeaderMap, HeaderValue, header::RETRY_AFTER};
use model::{
    limiter::{Taken, Verdict},
    problem::{Problem, QUOTA_EXCEEDED},
    snapshot::TenantEntry,
};

use crate::{
    exchange::Exchange,
    quota::{self, Quotas},
    rescue::Reason,
    response::Stop,
};

/// Name of the rate in the `RateLimit` fields and in `violated-policies`.
const NAME: &str = "rate";

/// Takes the request's place in the rate of its tenant, if it has one.
///
/// # Errors
/// The refusal, or the end of the exchange's time.
pub(crate) async fn admit(exchange: &mut Exchange, entry: &TenantEntry) -> Result<(), Stop> {
    let Some(bucket) = entry.bucket(&*exchange.worker.limiter) else { return Ok(()) };
    let verdict = match Arc::clone(bucket).take(1) {
        Taken::Now(verdict) => verdict,
        Taken::Later(verdict) => exchange.in_time(verdict).await?,
    };
    exchange.rate = Some(verdict);
    if verdict.allowed { Ok(()) } else { Err(Stop::Limited(verdict)) }
}

/// The items of a rate: what may be taken at once, in the time that earns it again.
pub(crate) fn items(verdict: &Verdict, policy: &mut String, limit: &mut String) {
    let separator = if policy.is_empty() { "" } else { ", " };
    let (burst, per_second) = (verdict.rate.burst(), verdict.rate.per_second());
    let window = burst.div_ceil(per_second);
    let seconds = if verdict.allowed { verdict.full_ms } else { verdict.wait_ms }.div_ceil(1000);
    let _ = write!(policy, "{separator}\"{NAME}\";q={burst};w={window}");
    let _ = write!(limit, "{separator}\"{NAME}\";r={};t={seconds}", verdict.remaining);
}

/// The response to a refusal: its reason, body, and fields.
pub(crate) fn refusal(exchange: &Exchange, verdict: Verdict) -> (Reason, Problem, HeaderMap) {
    let retry_after_s = verdict.wait_ms.div_ceil(1000).max(1);
    let mut headers = HeaderMap::new();
    quota::append_fields(exchange, &Quotas::new(), false, &mut headers);
    headers.insert(RETRY_AFTER, HeaderValue::from(retry_after_s));
    let rate = verdict.rate;
    let problem = Reason::RateExceeded
        .problem()
        .of_type(QUOTA_EXCEEDED)
        .detail(format!(
            "{} requests a second are served, and {} at once.",
            rate.per_second(),
            rate.burst()
        ))
        .with("violated-policies", vec![NAME])
        .with("retry_after", retry_after_s);
    (Reason::RateExceeded, problem, headers)
}
