//! The ground truth: a backend that counts what arrives.
//!
//! It knows nothing of leases: a request that it answered with 503 is refunded by the plan
//! (or charged all the same, by `charge_on = "admission"`), every other one counts. A token
//! is taken before a request leaves, so what arrives before a window's end was taken in that
//! window or an earlier one. Invariant (checked at every arrival): up to each window's end,
//! the charged arrivals of a metric are no more than its limits added up.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Result;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use model::{clock::UnixMs, quota::Metric, window::Window};
use tokio::net::TcpListener;

use crate::{
    limits::Limits,
    random::Random,
    tenants::{TENANTS, metrics},
    time,
    violations::Violations,
};

/// Marks the backend's own 503, so that it is not taken for the edge's.
pub const MARK: &str = "x-chaos-backend";

/// What arrived in one window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Requests.
    pub arrived: u64,
    /// Of these, answered with 503 and refunded for it.
    pub refunded: u64,
}

impl Count {
    /// What holds a token for good.
    #[must_use]
    pub const fn charged(&self) -> u64 {
        self.arrived - self.refunded
    }
}

/// Tenant and metric.
type Account = (usize, Metric);

/// All counts.
#[derive(Debug)]
pub struct Truth {
    seed: u64,
    requests: AtomicU64,
    counts: Mutex<BTreeMap<Account, BTreeMap<Window, Count>>>,
    limits: Arc<Limits>,
    violations: Arc<Violations>,
}

impl Truth {
    /// Nothing has arrived.
    #[must_use]
    pub fn new(seed: u64, limits: Arc<Limits>, violations: Arc<Violations>) -> Self {
        let counts = Mutex::new(BTreeMap::new());
        Self { seed, requests: AtomicU64::new(0), counts, limits, violations }
    }

    /// Serves on a free port until the program ends.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn serve(self: &Arc<Self>) -> Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let truth = Arc::clone(self);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let truth = Arc::clone(&truth);
                let service = service_fn(move |request| {
                    let answer = truth.answer(&request);
                    std::future::ready(Ok::<_, std::convert::Infallible>(answer))
                });
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        Ok(addr)
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        let tenant = path
            .rsplit('/')
            .next()
            .and_then(|name| TENANTS.iter().position(|tenant| tenant.name == name));
        let Some(tenant) = tenant else {
            self.violations.add(format!("a request of nobody arrived: {path}"));
            return Response::new(Full::default());
        };
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let failing = TENANTS
            .get(tenant)
            .is_some_and(|tenant| Random::new(self.seed, number).chance(tenant.failing_percent));
        self.arrive(tenant, path.starts_with("/v1/ai/"), failing, time::now());
        let mut response = Response::new(Full::new(Bytes::from_static(b"counted")));
        if failing {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response.headers_mut().insert(MARK, hyper::header::HeaderValue::from_static("1"));
        }
        response
    }

    /// Counts one arrival, and whether it is one too many.
    fn arrive(&self, tenant: usize, ai: bool, failing: bool, at: UnixMs) {
        let admission = TENANTS.get(tenant).is_some_and(|tenant| tenant.charged_on_admission);
        for &metric in metrics(ai) {
            let Some(window) = Window::of(metric, at, model::anchor::Anchor::default()) else {
                continue;
            };
            let mut counts = self.lock();
            let windows = counts.entry((tenant, metric)).or_default();
            let count = windows.entry(window).or_default();
            count.arrived += 1;
            count.refunded += u64::from(failing && !admission);
            let charged: u64 = windows.values().map(Count::charged).sum();
            let windows = windows.keys();
            let limit: u64 =
                windows.map(|window| self.limits.highest(tenant, metric, *window)).sum();
            if charged > limit {
                let name = TENANTS.get(tenant).map_or("", |tenant| tenant.name);
                self.violations.once(
                    &format!("over-admission {name} {}", metric.as_str()),
                    format!(
                        "OVER-ADMISSION: {name}: {charged} charged {} arrived, limit {limit}",
                        metric.as_str()
                    ),
                );
            }
        }
    }

    /// What arrived for a tenant and metric in a window.
    #[must_use]
    pub fn count(&self, tenant: usize, metric: Metric, window: Window) -> Count {
        let counts = self.lock();
        let windows = counts.get(&(tenant, metric));
        windows.and_then(|windows| windows.get(&window)).copied().unwrap_or_default()
    }

    /// The windows of a tenant and metric in which something arrived.
    #[must_use]
    pub fn windows(&self, tenant: usize, metric: Metric) -> Vec<Window> {
        let counts = self.lock();
        counts.get(&(tenant, metric)).map(|it| it.keys().copied().collect()).unwrap_or_default()
    }

    /// Requests that arrived at all.
    #[must_use]
    pub fn arrivals(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Account, BTreeMap<Window, Count>>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-30T23:59:59Z, and a second later.
    const LAST: UnixMs = UnixMs(1_796_083_199_000);
    const NEXT: UnixMs = UnixMs(1_796_083_200_000);

    fn truth() -> (Truth, Arc<Violations>) {
        let violations = Arc::new(Violations::default());
        (Truth::new(1, Arc::new(Limits::new()), Arc::clone(&violations)), violations)
    }

    #[test]
    fn one_arrival_too_many_is_found_at_once_and_a_new_window_has_its_own_limit() {
        let (truth, violations) = truth();
        let tiny = 0;
        for _ in 0..40 {
            truth.arrive(tiny, false, false, LAST);
        }
        for _ in 0..40 {
            truth.arrive(tiny, false, false, NEXT);
        }
        assert_eq!(violations.all(), Vec::<String>::new());
        truth.arrive(tiny, false, false, NEXT);
        assert_eq!(violations.all().len(), 1, "{:?}", violations.all());
        let windows = truth.windows(tiny, Metric::ApiCalls);
        let counts: Vec<u64> = windows
            .iter()
            .map(|window| truth.count(tiny, Metric::ApiCalls, *window).charged())
            .collect();
        assert_eq!(counts, [40, 41]);
    }

    #[test]
    fn failures_are_refunded_unless_the_plan_charges_on_admission() {
        let (truth, violations) = truth();
        let (failing, strict) = (4, 5);
        for _ in 0..1_501 {
            truth.arrive(failing, false, true, NEXT);
        }
        assert_eq!(violations.all(), Vec::<String>::new());
        for _ in 0..1_501 {
            truth.arrive(strict, false, true, NEXT);
        }
        assert_eq!(violations.all().len(), 1);
    }
}
