//! Step 9: the request goes to its upstream, the head of the answer comes back.
//!
//! Takes the permit by value and turns it into a charge when the first byte may leave.
//! Bodies stream both ways ([`body`]); the fields that the edge writes are in
//! [`fields`]. Retries belong here. Invariant: no permit, no call; framing is never
//! inherited, hyper writes it from the body's own length.

pub(crate) mod body;
pub(crate) mod fields;

use std::{
    future::poll_fn,
    pin::pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use http::{
    HeaderMap, Request, Response, StatusCode, Uri, Version,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};
use hyper::{body::Incoming, client::conn::TrySendError};
use model::gate::Permit;

use self::body::{Download, Upload, UploadState};
pub(crate) use self::{
    body::{Outgoing, Payload},
    fields::Badge,
};
use crate::{
    exchange::Exchange,
    policy::Judged,
    pool::Link,
    rescue::Reason,
    reserve::{self, Holds},
    tenant::Caller,
    upstream::Upstream,
};

/// The upstream's answer.
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Download,
}

/// Step 9 of the walk.
///
/// # Errors
/// No connection, no answer in time, or none that makes sense. Tokens go back as the plan
/// says.
pub(crate) async fn send(
    exchange: &mut Exchange,
    permit: Permit,
    caller: &Caller,
    upstream: &Upstream,
    judged: Judged,
    holds: &Holds,
) -> Result<Answered, Reason> {
    let state = Rc::new(UploadState::default());
    let request = request(exchange, caller, upstream, judged, (&state, holds));
    let method = request.method().clone();
    exchange.record.upstream_begins();
    let link = connected(exchange, upstream, false).await?;
    // From here on bytes may leave; a crash charges the request.
    let charge = permit.spend();
    reserve::forwarded(holds);
    let charge_on = caller.entry.plan.charge_on;
    let outcome = attempt(exchange, upstream, link, request, &state).await;
    exchange.record.upstream_ends();
    let outcome = outcome.and_then(|(response, link)| answered(exchange, response, link));
    let status = outcome.as_ref().ok().map(|answered| answered.status);
    if state.is_unsent() {
        reserve::unsent(holds);
    }
    // A refusal is never charged, whatever was forwarded before it.
    if !charge_on.charges(status) || state.failure() == Some(Reason::RoomRefused) {
        charge.refund();
    }
    outcome.map(|mut answered| {
        fields::strip_response(&method, answered.status, &mut answered.headers);
        answered
    })
}

fn request(
    exchange: &Exchange,
    caller: &Caller,
    upstream: &Upstream,
    judged: Judged,
    (state, holds): (&Rc<UploadState>, &Holds),
) -> Request<Outgoing> {
    let Judged { mut head, payload, client, trailers, .. } = judged;
    fields::write_request(exchange, caller, &upstream.region, &mut head, &client, trailers);
    let body = match payload {
        Payload::Whole(bytes) => Outgoing::Whole(Some(bytes).filter(|bytes| !bytes.is_empty())),
        Payload::Stream(incoming) => {
            let (limits, timers) = (exchange.limits(), &exchange.timers);
            let upload = Upload::new(incoming, limits, timers, &exchange.connection, state, holds);
            Outgoing::Upload(Box::new(upload))
        }
    };
    let mut request = Request::new(body);
    *request.method_mut() = head.method;
    *request.uri_mut() = Uri::from(head.path_and_query);
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = head.headers;
    request
}

/// A resting link, or a new one.
async fn connected(
    exchange: &Exchange,
    upstream: &Upstream,
    fresh: bool,
) -> Result<Box<Link>, Reason> {
    let pool = &exchange.worker.pool;
    if !fresh && let Some(link) = pool.take(upstream.endpoint) {
        return Ok(link);
    }
    let timeout_ms = exchange.limits().connect_timeout_ms;
    let connect = pool.connect(upstream.endpoint);
    exchange.within(timeout_ms, Reason::ConnectTimeout, connect).await?
}

/// Sends on a link; on a new one when the link turns out to be dead before it took any of
/// the request.
async fn attempt(
    exchange: &Exchange,
    upstream: &Upstream,
    link: Box<Link>,
    request: Request<Outgoing>,
    state: &UploadState,
) -> Result<(Response<Incoming>, Box<Link>), Reason> {
    match roundtrip(exchange, link, request, state).await {
        Err(Failed::Unsent(request)) => {
            state.unsent(true);
            let link = connected(exchange, upstream, true).await?;
            let again = roundtrip(exchange, link, *request, state).await;
            state.unsent(matches!(again, Err(Failed::Unsent(_))));
            again.map_err(Failed::reason)
        }
        outcome => outcome.map_err(Failed::reason),
    }
}

enum Failed {
    /// Not one byte was written.
    Unsent(Box<Request<Outgoing>>),
    Reason(Reason),
}

impl Failed {
    fn reason(self) -> Reason {
        match self {
            Self::Unsent(_) => Reason::UpstreamClosed,
            Self::Reason(reason) => reason,
        }
    }
}

async fn roundtrip(
    exchange: &Exchange,
    mut link: Box<Link>,
    request: Request<Outgoing>,
    state: &UploadState,
) -> Result<(Response<Incoming>, Box<Link>), Failed> {
    let mut answer = pin!(link.sender.try_send_request(request));
    exchange.timers.step(exchange.limits().first_byte_timeout_ms);
    let outcome = poll_fn(|cx| {
        link.drive(cx);
        // The answer comes only from driving the link, so it needs no waker of its own.
        match answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => Poll::Ready(outcome.map_err(|error| failed(error, state))),
            Poll::Pending if link.is_done() => {
                Poll::Ready(Err(Failed::Reason(Reason::UpstreamClosed)))
            }
            Poll::Pending => {
                exchange.timers.poll(cx, state.late()).map(|late| Err(Failed::Reason(late)))
            }
        }
    })
    .await;
    exchange.timers.step_done();
    outcome.map(|response| (response, link))
}

fn failed(mut error: TrySendError<Request<Outgoing>>, state: &UploadState) -> Failed {
    if let Some(request) = error.take_message() {
        return Failed::Unsent(Box::new(request));
    }
    let error = error.into_error();
    tracing::debug!(%error, "an upstream failed");
    Failed::Reason(match state.failure() {
        Some(reason) => reason,
        None if error.is_parse() => Reason::UpstreamGarbage,
        None => Reason::UpstreamClosed,
    })
}

/// Refuses answers that have two readings, or that nobody asked for.
fn answered(
    exchange: &Exchange,
    response: Response<Incoming>,
    link: Box<Link>,
) -> Result<Answered, Reason> {
    let (parts, incoming) = response.into_parts();
    if parts.status == StatusCode::SWITCHING_PROTOCOLS || !has_one_framing(&parts.headers) {
        return Err(Reason::UpstreamGarbage);
    }
    let worker = &exchange.worker;
    let idle_ms = exchange.limits().upstream_idle_timeout_ms;
    let body = Download::new(incoming, link, &worker.pool, &exchange.timers, idle_ms);
    Ok(Answered { status: parts.status, headers: parts.headers, body })
}

fn has_one_framing(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    match (codings.next(), lengths.next()) {
        (Some(coding), None) => {
            coding.as_bytes().eq_ignore_ascii_case(b"chunked") && codings.next().is_none()
        }
        (Some(_), Some(_)) => false,
        (None, _) => lengths.next().is_none(),
    }
}
