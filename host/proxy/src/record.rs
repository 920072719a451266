//! Step 12: what is left of an exchange: one log line and a few numbers.
//!
//! The record rides with the exchange and then with the response body; dropping it, for
//! whatever cause, records. Numbers are counted per worker and added to the shared series
//! at the next tick. Invariant: the only place that records, and the set of series is
//! bounded by what operators declare (routes, plans, policies), by closed enums and, for
//! tenants, by [`tenants`].

mod tally;
mod tenants;

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc};

use http::{Method, StatusCode, uri::PathAndQuery};
use model::{
    clock::Clock, plan::Plan, policy::Policy, quota::Metric, region::Region, route::Route,
    snapshot::TenantEntry,
};
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    local::{LocalHistogram, LocalIntCounter},
};
use tokio::time::Instant;

pub(crate) use self::{tally::Tally, tenants::TenantSeries};
use crate::{
    config::MetricsConfig,
    connection::Connection,
    rescue::Reason,
    worker::{Pinned, Worker},
};

/// Characters of a path in the log (1,024): a line stays a line.
const LOGGED_PATH_MAX: usize = 1_024;
/// Upper bounds of the time buckets, in seconds: a local answer to a slow report.
const SECONDS_BOUNDS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// The series of a proxy.
pub(crate) struct Series {
    requests: IntCounterVec,
    seconds: HistogramVec,
    refusals: IntCounterVec,
    policies: IntCounterVec,
    upstream_errors: IntCounterVec,
    levels: IntCounterVec,
    unreserved: IntCounter,
    in_flight: IntGauge,
    pub(crate) tenants: Arc<TenantSeries>,
}

impl Series {
    pub(crate) fn register(
        registry: &Registry,
        config: &MetricsConfig,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, prometheus::Error> {
        let tenants = TenantSeries::new(config, Arc::clone(clock));
        registry.register(Box::new(tenants::Collected::new(Arc::clone(&tenants))?))?;
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        let seconds = HistogramOpts::new(
            "edge_request_seconds",
            "Time from the request's head to the response's last byte",
        )
        .buckets(SECONDS_BOUNDS.to_vec());
        let seconds = HistogramVec::new(seconds, &["route"])?;
        registry.register(Box::new(seconds.clone()))?;
        let in_flight = IntGauge::new("edge_requests_in_flight", "Exchanges open")?;
        registry.register(Box::new(in_flight.clone()))?;
        let unreserved = IntCounter::new(
            "edge_uploads_unreserved_total",
            "Uploads let through without room set aside: their plan allows it while the database \
             is away",
        )?;
        registry.register(Box::new(unreserved.clone()))?;
        Ok(Self {
            requests: counter(
                "edge_requests_total",
                "Requests by route, plan and status class",
                &["route", "plan", "class"],
            )?,
            refusals: counter(
                "edge_refusals_total",
                "Responses made by the edge, by reason and who is to blame",
                &["reason", "blame"],
            )?,
            policies: counter(
                "edge_policy_outcomes_total",
                "Hook calls by policy and outcome",
                &["policy", "outcome"],
            )?,
            levels: counter(
                "edge_level_reports_total",
                "Changes of levels that responses reported, by metric and outcome",
                &["metric", "outcome"],
            )?,
            upstream_errors: counter(
                "edge_upstream_errors_total",
                "Failed upstream exchanges by reason",
                &["reason"],
            )?,
            seconds,
            unreserved,
            in_flight,
            tenants,
        })
    }

    pub(crate) fn level_report(&self, metric: Metric, outcome: &'static str) {
        self.levels.with_label_values(&[metric.as_str(), outcome]).inc();
    }

    /// An upload went on without room.
    pub(crate) fn unreserved(&self) {
        self.unreserved.inc();
    }

    pub(crate) fn in_flight_changed(&self, by: i64) {
        self.in_flight.add(by);
    }
}

type RequestKey = (*const Route, *const Plan, u16);

/// One worker's counts since the last tick, under one snapshot. Keys are addresses of
/// what the snapshot holds, so no label is hashed on the path of a request.
pub(crate) struct Books {
    requests: RefCell<HashMap<RequestKey, LocalIntCounter>>,
    seconds: RefCell<HashMap<*const Route, LocalHistogram>>,
    policies: RefCell<HashMap<(*const u8, &'static str), LocalIntCounter>>,
}

impl Books {
    pub(crate) fn new() -> Self {
        Self {
            requests: RefCell::default(),
            seconds: RefCell::default(),
            policies: RefCell::default(),
        }
    }

    /// Adds the counts to the shared series.
    pub(crate) fn flush(&self) {
        self.requests.borrow().values().for_each(LocalIntCounter::flush);
        self.seconds.borrow().values().for_each(LocalHistogram::flush);
        self.policies.borrow().values().for_each(LocalIntCounter::flush);
    }
}

impl Drop for Books {
    fn drop(&mut self) {
        self.flush();
    }
}

/// How an exchange ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The client went away before the response was complete.
    Open,
    Complete,
    /// The upstream's body broke off.
    Aborted,
}

/// What is known about an exchange so far.
pub(crate) struct Record {
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    pinned: Rc<Pinned>,
    started: Instant,
    method: Method,
    path: Option<PathAndQuery>,
    id: Option<http::HeaderValue>,
    tenant: Option<Arc<TenantEntry>>,
    admitted: bool,
    route: Option<Arc<Route>>,
    region: Option<Arc<Region>>,
    upstream_started: Option<Instant>,
    upstream_ms: Option<u64>,
    status: Option<StatusCode>,
    reason: Option<Reason>,
    bytes: u64,
    end: End,
}

impl Record {
    pub(crate) fn open(
        worker: &Rc<Worker>,
        connection: &Rc<Connection>,
        pinned: &Rc<Pinned>,
    ) -> Self {
        Self {
            worker: Rc::clone(worker),
            connection: Rc::clone(connection),
            pinned: Rc::clone(pinned),
            started: Instant::now(),
            method: Method::GET,
            path: None,
            id: None,
            tenant: None,
            admitted: false,
            route: None,
            region: None,
            upstream_started: None,
            upstream_ms: None,
            status: None,
            reason: None,
            bytes: 0,
            end: End::Open,
        }
    }

    pub(crate) fn request(&mut self, method: &Method, path: &PathAndQuery) {
        self.method = method.clone();
        self.path = Some(path.clone());
    }

    pub(crate) fn tenant(&mut self, entry: &Arc<TenantEntry>) {
        self.tenant = Some(Arc::clone(entry));
    }

    pub(crate) fn route(&mut self, route: &Arc<Route>) {
        self.route = Some(Arc::clone(route));
    }

    pub(crate) fn region(&mut self, region: &Arc<Region>) {
        self.region = Some(Arc::clone(region));
    }

    pub(crate) fn admit(&mut self) {
        self.admitted = true;
    }

    /// What admitted the request takes it back.
    pub(crate) fn refuse(&mut self) {
        self.admitted = false;
    }

    /// The tenant, if its quotas admitted the request.
    pub(crate) fn admitted(&self) -> Option<Arc<TenantEntry>> {
        self.tenant.clone().filter(|_| self.admitted)
    }

    pub(crate) fn upstream_begins(&mut self) {
        self.upstream_started = Some(Instant::now());
    }

    pub(crate) fn upstream_ends(&mut self) {
        let elapsed = self.upstream_started.map(|started| started.elapsed().as_millis());
        self.upstream_ms = elapsed.map(|ms| u64::try_from(ms).unwrap_or(u64::MAX));
    }

    pub(crate) fn reason(&mut self, reason: Reason) {
        self.reason = Some(reason);
    }

    pub(crate) fn answer(&mut self, status: StatusCode, id: &http::HeaderValue) {
        self.status = Some(status);
        self.id = Some(id.clone());
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    pub(crate) fn complete(&mut self) {
        self.end = End::Complete;
    }

    pub(crate) fn aborted(&mut self) {
        self.end = End::Aborted;
    }

    /// Counts one hook call.
    pub(crate) fn policy(&self, policy: &Policy, outcome: &'static str) {
        let mut policies = self.pinned.books.policies.borrow_mut();
        let counter = policies.entry((policy.name.as_ptr(), outcome)).or_insert_with(|| {
            let series = &self.worker.series.policies;
            series.with_label_values(&[&policy.name, outcome]).local()
        });
        counter.inc();
    }

    fn count(&self) {
        let series = &self.worker.series;
        if let Some(reason) = self.reason {
            let row = reason.row();
            series.refusals.with_label_values(&[reason.label(), row.blame.as_str()]).inc();
            if row.blame == crate::rescue::Blame::Upstream {
                series.upstream_errors.with_label_values(&[reason.label()]).inc();
            }
        }
        if self.end == End::Aborted {
            series.upstream_errors.with_label_values(&["body-aborted"]).inc();
        }
        let class = self.status.map_or(499, |status| status.as_u16()) / 100;
        let route = self.route.as_ref().map_or(std::ptr::null(), Arc::as_ptr);
        let plan = self.tenant.as_ref().map_or(std::ptr::null(), |entry| Arc::as_ptr(&entry.plan));
        let name = self.route.as_ref().map_or("", |route| &*route.name);
        let mut requests = self.pinned.books.requests.borrow_mut();
        let counter = requests.entry((route, plan, class)).or_insert_with(|| {
            let plan = self.tenant.as_ref().map_or("", |entry| &*entry.plan.name);
            series.requests.with_label_values(&[name, plan, class_label(class)]).local()
        });
        counter.inc();
        let mut seconds = self.pinned.books.seconds.borrow_mut();
        let histogram = seconds
            .entry(route)
            .or_insert_with(|| series.seconds.with_label_values(&[name]).local());
        let elapsed = self.started.elapsed().as_secs_f64();
        histogram.observe(elapsed);
        self.worker.tally.count(self.tenant.as_ref(), self.route.as_ref(), class, elapsed);
    }

    fn log(&self) {
        let path = self.path.as_ref().map_or("", |path| path.as_str());
        let path = path.get(..LOGGED_PATH_MAX).unwrap_or(path);
        let id = self.id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or("");
        tracing::info!(
            target: "access",
            method = self.method.as_str(),
            path,
            status = self.status.map_or(499, |status| status.as_u16()),
            tenant = self.tenant.as_ref().map(|entry| entry.record.tenant.slug.as_str()),
            route = self.route.as_ref().map(|route| &*route.name),
            region = self.region.as_ref().map(|region| &*region.name),
            upstream_ms = self.upstream_ms,
            bytes = self.bytes,
            reason = self.reason.map(Reason::label),
            end = match self.end {
                End::Open => "client-gone",
                End::Complete => "complete",
                End::Aborted => "aborted",
            },
            client = %self.connection.peer,
            request_id = id,
        );
    }
}

const fn class_label(class: u16) -> &'static str {
    match class {
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.worker.leave();
        self.connection.end();
        self.count();
        if tracing::enabled!(target: "access", tracing::Level::INFO) {
            self.log();
        }
    }
}
