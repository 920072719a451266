//! Step 9: the request goes to its upstream, the head of the answer comes back.
//!
//! Takes the permit by value and turns it into a charge when the first byte may leave.
//! Bodies stream both ways ([`body`]); the fields that the edge writes are in
//! [`fields`]. A request is sent once more at most, and only when nothing of it left, or
//! when it may happen twice and nothing was heard. Invariant: no permit, no call; framing is never
//! inherited, hyper writes it from the body's own length.

pub(crate) mod body;
pub(crate) mod fields;
mod spare;

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

use self::{
    body::{Download, Upload, UploadState},
    spare::Spare,
};
pub(crate) use self::{
    body::{Outgoing, Payload},
    fields::Badge,
    spare::Lists,
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
    upstream: &mut Upstream,
    judged: Judged,
    holds: &Holds,
) -> Result<Answered, Reason> {
    let state = Rc::new(UploadState::default());
    let mut request = request(exchange, caller, upstream, judged, (&state, holds));
    let method = request.method().clone();
    exchange.record.upstream_begins();
    let link = connected(exchange, caller, upstream, &mut request, false).await?;
    // From here on bytes may leave; a crash charges the request.
    let charge = permit.spend();
    reserve::forwarded(holds);
    let charge_on = caller.entry.plan.charge_on;
    let outcome = attempt(exchange, caller, upstream, link, request, &state).await;
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

/// A link to the endpoint, or to the next one when it cannot be reached.
async fn connected(
    exchange: &mut Exchange,
    caller: &Caller,
    upstream: &mut Upstream,
    request: &mut Request<Outgoing>,
    fresh: bool,
) -> Result<Box<Link>, Reason> {
    loop {
        let reason = match reached(exchange, upstream, fresh).await {
            Ok(link) => return Ok(link),
            Err(reason) => reason,
        };
        upstream.failed(exchange, reason);
        if !upstream.moves_on(exchange, &caller.entry, reason) {
            return Err(reason);
        }
        fields::write_region(exchange, caller, &upstream.region, request.headers_mut());
    }
}

/// A resting link, or a new one.
async fn reached(
    exchange: &Exchange,
    upstream: &mut Upstream,
    fresh: bool,
) -> Result<Box<Link>, Reason> {
    let pool = &exchange.worker.pool;
    let resting = if fresh { None } else { pool.take(upstream.address()) };
    let mut link = match resting {
        Some(link) => link,
        None => {
            let timeout_ms = exchange.limits().connect_timeout_ms;
            let connect = pool.connect(upstream.address());
            exchange.within(timeout_ms, Reason::ConnectTimeout, connect).await??
        }
    };
    link.busy = upstream.busy();
    Ok(link)
}

/// Sends on a link; once more, on a new one, when the link turns out to be dead before it
/// took any of the request, or when nothing was heard and the request may happen twice.
async fn attempt(
    exchange: &mut Exchange,
    caller: &Caller,
    upstream: &mut Upstream,
    link: Box<Link>,
    request: Request<Outgoing>,
    state: &UploadState,
) -> Result<(Response<Incoming>, Box<Link>), Reason> {
    let spare = Spare::of(&exchange.worker, &request);
    let mut request = match (roundtrip(exchange, link, request, state).await, spare) {
        (Err(Failed::Unsent(request)), _) => {
            state.unsent(true);
            *request
        }
        (Err(Failed::Silent), Some(spare)) => {
            upstream.failed(exchange, Reason::UpstreamClosed);
            if !upstream.again(exchange, &caller.entry) {
                return Err(Reason::UpstreamClosed);
            }
            let mut request = spare.request();
            fields::write_region(exchange, caller, &upstream.region, request.headers_mut());
            request
        }
        (outcome, _) => return concluded(exchange, upstream, outcome),
    };
    let link = connected(exchange, caller, upstream, &mut request, true).await?;
    let again = roundtrip(exchange, link, request, state).await;
    state.unsent(state.is_unsent() && matches!(again, Err(Failed::Unsent(_))));
    concluded(exchange, upstream, again)
}

/// Tells the endpoint's book how it went.
fn concluded(
    exchange: &Exchange,
    upstream: &Upstream,
    outcome: Result<(Response<Incoming>, Box<Link>), Failed>,
) -> Result<(Response<Incoming>, Box<Link>), Reason> {
    let outcome = outcome.map_err(Failed::reason);
    match &outcome {
        Ok((response, _)) => upstream.answered(exchange, response.status()),
        Err(reason) => upstream.failed(exchange, *reason),
    }
    outcome
}

enum Failed {
    /// Not one byte was written.
    Unsent(Box<Request<Outgoing>>),
    /// The connection ended before one byte of an answer.
    Silent,
    Reason(Reason),
}

impl Failed {
    fn reason(self) -> Reason {
        match self {
            Self::Unsent(_) | Self::Silent => Reason::UpstreamClosed,
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
    link.heard.set(false);
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
    match outcome {
        Ok(response) => Ok((response, link)),
        Err(Failed::Reason(Reason::UpstreamClosed)) if !link.heard.get() => Err(Failed::Silent),
        Err(failed) => Err(failed),
    }
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
