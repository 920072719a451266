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
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use model::{clock::UnixMs, quota::Metric, window::Window};
use tokio::net::TcpListener;

use crate::{
    limits::Limits,
    live::{self, Live},
    random::Random,
    stored::Stored,
    tenants::{TENANTS, metrics},
    time,
    violations::Violations,
};

/// Marks the backend's own 503, so that it is not taken for the edge's.
pub const MARK: &str = "x-chaos-backend";

/// What the backend answers with.
type Answer = Response<UnsyncBoxBody<Bytes, std::convert::Infallible>>;

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
    pub live: Arc<Live>,
    pub stored: Arc<Stored>,
}

impl Truth {
    /// Nothing has arrived.
    #[must_use]
    pub fn new(seed: u64, limits: Arc<Limits>, violations: Arc<Violations>) -> Self {
        let counts = Mutex::new(BTreeMap::new());
        let live = Arc::new(Live::new(Arc::clone(&violations)));
        let stored = Arc::new(Stored::new(Arc::clone(&violations)));
        let requests = AtomicU64::new(0);
        Self { seed, requests, counts, limits, violations, live, stored }
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
                    let truth = Arc::clone(&truth);
                    async move { truth.dispatch(request).await }
                });
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        Ok(addr)
    }

    /// By what the path is about: sessions, storage, or a tenant whose calls are counted.
    async fn dispatch(&self, request: Request<Incoming>) -> Result<Answer, hyper::Error> {
        let mut parts = request.uri().path().trim_start_matches('/').split('/');
        let (first, name) = (parts.next().unwrap_or(""), parts.next().and_then(|n| n.parse().ok()));
        let whole = |response: Response<Full<Bytes>>| Ok(response.map(BodyExt::boxed_unsync));
        match (first, name) {
            ("live", Some(edge)) => {
                let stream = self.live.open(usize::try_from(edge).unwrap_or(0));
                let number = stream.number();
                let mut response = Response::new(stream.boxed_unsync());
                response.headers_mut().insert(live::NUMBER, number.into());
                Ok(response)
            }
            ("logout", None) => whole(Response::new(Full::default())),
            ("stored", Some(name)) => whole(self.store(name, request).await?),
            _ => whole(self.answer(&request)),
        }
    }

    /// Keeps a body that arrives whole, or deletes one.
    async fn store(
        &self,
        name: u64,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, hyper::Error> {
        let is_delete = request.method() == Method::DELETE;
        let bytes = request.into_body().collect().await?.to_bytes().len() as u64;
        let mut response = Response::new(Full::default());
        if is_delete {
            let gone = self.stored.delete(name).to_string();
            if let Ok(delta) = format!("-{gone}").parse() {
                response.headers_mut().insert("x-storage-delta-bytes", delta);
            }
        } else {
            self.stored.put(name, bytes);
        }
        Ok(response)
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
