//! One request and its response: what every step of the walk may look at.
//!
//! Opened before anything is known about the request, closed with its record. Invariant:
//! the snapshot pinned here is the only one that the exchange ever reads.

use std::{cell::OnceCell, future::poll_fn, pin::pin, rc::Rc, sync::Arc, task::Poll};

use http::{HeaderValue, Method};
use model::{clock::UnixMs, limiter::Verdict, quota::MetricSet};

use crate::{
    connection::Connection,
    record::Record,
    rescue::Reason,
    session::Attendance,
    timer::Slot,
    worker::{Pinned, Worker},
};

/// An open exchange.
pub(crate) struct Exchange {
    pub(crate) worker: Rc<Worker>,
    pub(crate) connection: Rc<Connection>,
    pub(crate) pinned: Rc<Pinned>,
    pub(crate) received_at: UnixMs,
    /// `X-Request-Id`, ours or that of a trusted proxy.
    pub(crate) id: HeaderValue,
    pub(crate) timers: Rc<Timers>,
    /// The response may carry no body.
    pub(crate) is_head: bool,
    /// What the request counts as, once admitted.
    pub(crate) metrics: MetricSet,
    /// How the rate of its tenant stands, once asked.
    pub(crate) rate: Option<Verdict>,
    pub(crate) record: Box<Record>,
}

/// What ends an exchange early: the deadlines of the step in progress and of the whole, and
/// the loss of its session.
pub(crate) struct Timers {
    step: Slot,
    total: Slot,
    session: OnceCell<Attendance>,
}

impl Timers {
    /// Starts or restarts the step in progress.
    pub(crate) fn step(&self, timeout_ms: u64) {
        self.step.arm(timeout_ms);
    }

    /// Ends the step.
    pub(crate) fn step_done(&self) {
        self.step.disarm();
    }

    /// From now on the exchange lasts no longer than its session.
    pub(crate) fn attend(&self, session: Attendance) {
        // A request enters one session, once.
        let _first = self.session.set(session);
    }

    /// The upstream took the request.
    pub(crate) fn confirm_session(&self) {
        if let Some(session) = self.session.get() {
            session.confirm();
        }
    }

    /// Whether its session may no longer be served.
    pub(crate) fn session_is_lost(&self) -> bool {
        self.session.get().is_some_and(Attendance::is_lost)
    }

    /// Ready with the reason when time is up, or the session is lost.
    pub(crate) fn poll(&self, cx: &std::task::Context<'_>, step: Reason) -> Poll<Reason> {
        if self.step.poll(cx).is_ready() {
            return Poll::Ready(step);
        }
        if self.session.get().is_some_and(|session| session.poll(cx).is_ready()) {
            return Poll::Ready(Reason::SessionLost);
        }
        self.total.poll(cx).map(|()| Reason::TotalTimeout)
    }
}

impl Exchange {
    /// Step 2 of the walk.
    pub(crate) fn open(worker: &Rc<Worker>, connection: &Rc<Connection>, method: &Method) -> Self {
        let (step, total) = (worker.wheel.slot(), worker.wheel.slot());
        let timers = Rc::new(Timers { step, total, session: OnceCell::new() });
        timers.total.arm(worker.config.limits.total_timeout_ms);
        let received_at = worker.now();
        let pinned = worker.pin();
        Self {
            id: request_id(worker, received_at),
            record: Box::new(Record::open(worker, connection, &pinned)),
            worker: Rc::clone(worker),
            connection: Rc::clone(connection),
            pinned,
            received_at,
            timers,
            is_head: *method == Method::HEAD,
            metrics: MetricSet::default(),
            rate: None,
        }
    }

    /// The route's own bound on the whole exchange, counted from now.
    pub(crate) fn total_timeout(&self, timeout_ms: u64) {
        self.timers.total.arm(timeout_ms);
    }

    /// The request id as text.
    pub(crate) fn id_text(&self) -> &str {
        self.id.to_str().unwrap_or_default()
    }

    /// Waits for `future`, but for a step no longer than `timeout_ms`.
    pub(crate) async fn within<F: Future>(
        &self,
        timeout_ms: u64,
        late: Reason,
        future: F,
    ) -> Result<F::Output, Reason> {
        self.timers.step(timeout_ms);
        let mut future = pin!(future);
        let timers = Rc::clone(&self.timers);
        let done = poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Ok(value)),
            Poll::Pending => timers.poll(cx, late).map(Err),
        })
        .await;
        self.timers.step_done();
        done
    }

    /// Waits for `future` as long as the whole exchange may last.
    pub(crate) async fn in_time<F: Future>(&self, future: F) -> Result<F::Output, Reason> {
        let mut future = pin!(future);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Ok(value)),
            Poll::Pending => self.timers.poll(cx, Reason::TotalTimeout).map(Err),
        })
        .await
    }

    /// The limits in force.
    pub(crate) fn limits(&self) -> &crate::config::Limits {
        &self.worker.config.limits
    }

    /// The snapshot in force.
    pub(crate) fn snapshot(&self) -> &Arc<model::snapshot::Snapshot> {
        &self.pinned.snapshot
    }
}

/// A UUID v7, so that ids sort by arrival.
fn request_id(worker: &Worker, now: UnixMs) -> HeaderValue {
    let mut random = [0; 10];
    worker.random(&mut random);
    let id = uuid::Builder::from_unix_timestamp_millis(now.0, &random).into_uuid();
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    let text = id.hyphenated().encode_lower(&mut text);
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
