//! What clients were told, and whether they should have been.
//!
//! Called for every answer. Invariant: an answer that the edge may never give is a
//! violation at once; refusals that need the authority's account to judge are kept for
//! [`crate::verdict`].

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hyper::{HeaderMap, StatusCode};
use model::{clock::UnixMs, quota::Metric};

use crate::{
    tenants::{TENANTS, Tenant},
    time,
    truth::MARK,
    violations::Violations,
};

/// Longest `Retry-After` of a 503, in seconds: the longest session guard.
const UNAVAILABLE_RETRY_S_MAX: u64 = 20;
/// Time between two kept refusals of one tenant and metric, in ms.
const KEPT_EVERY_MS: u64 = 100;

/// A refusal that says "used up".
#[derive(Clone, Copy, Debug)]
pub struct Denied {
    /// Index of the tenant.
    pub tenant: usize,
    /// What is used up.
    pub metric: Metric,
    /// When it was answered.
    pub at: UnixMs,
}

/// How long an answer took.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    pub wait: Duration,
    /// Which edge gave it.
    pub edge: usize,
    /// Whether that edge was neither killed nor frozen meanwhile.
    pub calm: bool,
}

/// Counts per tenant.
#[derive(Debug, Default)]
pub struct Tally {
    /// 200.
    pub served: AtomicU64,
    /// The backend's own 503.
    pub failed: AtomicU64,
    /// 429.
    pub denied: AtomicU64,
    /// The edge's 503.
    pub unavailable: AtomicU64,
    /// No answer: the edge was killed meanwhile.
    pub broken: AtomicU64,
}

/// All answers.
#[derive(Debug)]
pub struct Answers {
    tallies: Vec<Tally>,
    kept: Mutex<Vec<Denied>>,
    latest: Mutex<BTreeMap<(usize, Metric), UnixMs>>,
    waits: Mutex<Vec<Duration>>,
    /// Of edges that were neither killed nor frozen.
    calm: Mutex<Vec<Duration>>,
    /// The longest of these, told.
    worst: Mutex<(Duration, String)>,
    violations: Arc<Violations>,
}

impl Answers {
    /// None yet.
    #[must_use]
    pub fn new(violations: Arc<Violations>) -> Self {
        let tallies = TENANTS.iter().map(|_| Tally::default()).collect();
        Self {
            tallies,
            kept: Mutex::default(),
            latest: Mutex::default(),
            waits: Mutex::default(),
            calm: Mutex::default(),
            worst: Mutex::default(),
            violations,
        }
    }

    /// One answer.
    pub fn take(&self, tenant: usize, status: StatusCode, headers: &HeaderMap, took: Wait) {
        let (Some(tally), Some(of)) = (self.tallies.get(tenant), TENANTS.get(tenant)) else {
            return;
        };
        let counter = match status.as_u16() {
            200 => &tally.served,
            503 if headers.contains_key(MARK) => &tally.failed,
            503 => {
                self.check_unavailable(of, headers);
                &tally.unavailable
            }
            429 => {
                self.check_denied(tenant, of, headers);
                &tally.denied
            }
            other => {
                let line = format!("{}: answered with {other}: {headers:?}", of.name);
                return self.violations.once(&format!("status {other}"), line);
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let Wait { wait, edge, calm } = took;
        self.waits.lock().unwrap_or_else(PoisonError::into_inner).push(wait);
        if calm {
            self.calm.lock().unwrap_or_else(PoisonError::into_inner).push(wait);
            let mut worst = self.worst.lock().unwrap_or_else(PoisonError::into_inner);
            if wait > worst.0 {
                let at = time::stamp();
                *worst = (wait, format!("{status} for {} at edge {edge}, {at}", of.name));
            }
        }
    }

    /// A request without an answer; `excused` when its edge was being killed.
    pub fn broken(&self, tenant: usize, excused: bool, why: &str) {
        if let Some(tally) = self.tallies.get(tenant) {
            tally.broken.fetch_add(1, Ordering::Relaxed);
        }
        if !excused {
            let line = format!("an edge that nobody disturbed broke off: {why}");
            self.violations.once("broken off", line);
        }
    }

    /// Counts of a tenant.
    #[must_use]
    pub fn of(&self, tenant: usize) -> Option<&Tally> {
        self.tallies.get(tenant)
    }

    /// Refusals with 429, of all tenants.
    #[must_use]
    pub fn denied(&self) -> u64 {
        self.tallies.iter().map(|tally| tally.denied.load(Ordering::Relaxed)).sum()
    }

    /// Refusals with the edge's 503, by tenant.
    #[must_use]
    pub fn unavailable(&self) -> Vec<u64> {
        self.tallies.iter().map(|tally| tally.unavailable.load(Ordering::Relaxed)).collect()
    }

    /// A sample of the refusals that say "used up".
    #[must_use]
    pub fn kept(&self) -> Vec<Denied> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The waits for answers so far, shortest first.
    #[must_use]
    pub fn waits(&self) -> Vec<Duration> {
        sorted(&self.waits)
    }

    /// The same of edges that were neither killed nor frozen, and which was the longest.
    #[must_use]
    pub fn calm_waits(&self) -> (Vec<Duration>, String) {
        let worst = self.worst.lock().unwrap_or_else(PoisonError::into_inner);
        (sorted(&self.calm), worst.1.clone())
    }

    fn check_unavailable(&self, tenant: &Tenant, headers: &HeaderMap) {
        let retry = retry_after_s(headers);
        if !retry.is_some_and(|s| (1..=UNAVAILABLE_RETRY_S_MAX).contains(&s)) {
            let line = format!("{}: a 503 with Retry-After {retry:?}: {headers:?}", tenant.name);
            self.violations.once("retry of a 503", line);
        }
    }

    fn check_denied(&self, index: usize, tenant: &Tenant, headers: &HeaderMap) {
        if retry_after_s(headers).is_none_or(|s| s == 0) {
            let line = format!("{}: a 429 without Retry-After: {headers:?}", tenant.name);
            self.violations.once("retry of a 429", line);
        }
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
        let ai = text("ratelimit").contains("\"daily-ai\"");
        let metric = if ai { Metric::AiRequests } else { Metric::ApiCalls };
        let (at, key) = (time::now(), (index, metric));
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.get(&key).is_none_or(|before| at.ms_since(*before) >= KEPT_EVERY_MS) {
            latest.insert(key, at);
            let denied = Denied { tenant: index, metric, at };
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(denied);
        }
    }
}

fn sorted(waits: &Mutex<Vec<Duration>>) -> Vec<Duration> {
    let mut waits = waits.lock().unwrap_or_else(PoisonError::into_inner).clone();
    waits.sort_unstable();
    waits
}

/// `Retry-After` as whole seconds; `None` when absent or a date.
fn retry_after_s(headers: &HeaderMap) -> Option<u64> {
    headers.get("retry-after")?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            let value = hyper::header::HeaderValue::from_static(value);
            (hyper::header::HeaderName::from_static(name), value)
        };
        fields.iter().map(field).collect()
    }

    #[test]
    fn only_answers_that_an_edge_may_give_pass() {
        let violations = Arc::new(Violations::default());
        let answers = Answers::new(Arc::clone(&violations));
        let take = |status: u16, fields: &[_]| {
            let status = StatusCode::from_u16(status).expect("a status");
            let took = Wait { wait: Duration::ZERO, edge: 0, calm: true };
            answers.take(0, status, &headers(fields), took);
        };
        take(200, &[]);
        take(503, &[(MARK, "1")]);
        take(503, &[("retry-after", "3")]);
        take(429, &[("retry-after", "1"), ("ratelimit", "\"daily-ai\";r=0")]);
        assert_eq!(violations.all(), Vec::<String>::new());
        assert_eq!(answers.kept().first().map(|one| one.metric), Some(Metric::AiRequests));
        assert_eq!((answers.denied(), answers.unavailable().iter().sum()), (1, 1u64));
        take(500, &[]);
        take(503, &[("retry-after", "600")]);
        take(429, &[]);
        answers.broken(0, true, "killed");
        assert_eq!(violations.all().len(), 3, "{:?}", violations.all());
        answers.broken(0, false, "closed");
        assert_eq!(violations.all().len(), 4);
    }
}
