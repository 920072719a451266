//! Step 11: the one place that writes responses.
//!
//! An upstream's answer, a policy's, a service's, or the edge's own (a row of [`crate::rescue`] as
//! problem+json). Invariant: every response carries the request id, and its body carries
//! the record, so the exchange is settled and recorded when the last byte is handed on
//! or the client is gone.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode,
    header::{ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use hyper::body::{Body, Frame, SizeHint};
use model::{
    gate::Denial, headers::HOP_BY_HOP, limiter::Verdict, policy::LocalResponse, problem,
    reservation::Exceeded, sessions::SessionRefusal,
};

use crate::{
    exchange::Exchange,
    forward::{
        Answered,
        body::{Aborted, Download},
        fields,
    },
    local::{LocalBody, Served},
    quota, rate,
    record::Record,
    rescue::Reason,
    reserve, session,
};

/// Why the walk ended before its end.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The edge answers.
    Reason(Reason),
    /// The quotas do.
    Denied(Denial),
    /// They do: there is no room for what would be stored or made.
    NoRoom(Box<Exceeded>),
    /// The rate of the tenant does.
    Limited(Verdict),
    /// Its session may not be alive.
    Session(SessionRefusal),
    /// A policy does.
    Answer(Box<LocalResponse>),
    /// A service of this process does.
    Served(Box<Response<LocalBody>>),
}

impl From<Reason> for Stop {
    fn from(reason: Reason) -> Self {
        Self::Reason(reason)
    }
}

/// Step 11 of the walk.
pub(crate) fn respond(
    exchange: Exchange,
    outcome: Result<Answered, Stop>,
    h1: bool,
) -> Response<Reply> {
    match outcome {
        Ok(answered) => {
            write(exchange, answered.status, answered.headers, Content::Download(answered.body))
        }
        Err(Stop::Answer(answer)) => local(exchange, *answer),
        Err(Stop::Served(answer)) => served(exchange, *answer),
        Err(Stop::Reason(reason)) => rescue(exchange, reason, h1),
        Err(Stop::NoRoom(why)) => no_room(exchange, &why, h1),
        Err(Stop::Limited(verdict)) => {
            let refusal = rate::refusal(&exchange, verdict);
            refused(exchange, refusal)
        }
        Err(Stop::Denied(denial)) => {
            let refusal = quota::refusal(&exchange, denial);
            refused(exchange, refusal)
        }
        Err(Stop::Session(refusal)) => {
            let refusal = session::refusal(&exchange, refusal);
            refused(exchange, refusal)
        }
    }
}

fn local(exchange: Exchange, answer: LocalResponse) -> Response<Reply> {
    let LocalResponse { status, mut headers, body } = answer;
    HOP_BY_HOP.iter().for_each(|name| drop(headers.remove(*name)));
    headers.remove(CONTENT_LENGTH);
    write(exchange, status, headers, whole(body))
}

fn served(exchange: Exchange, answer: Response<LocalBody>) -> Response<Reply> {
    let (parts, body) = answer.into_parts();
    let mut headers = parts.headers;
    let method = if exchange.is_head { Method::HEAD } else { Method::GET };
    fields::strip_response(&method, parts.status, &mut headers);
    let body = Served::new(body, &exchange);
    write(exchange, parts.status, headers, Content::Served(body))
}

fn rescue(mut exchange: Exchange, reason: Reason, h1: bool) -> Response<Reply> {
    let row = reason.row();
    let mut headers = HeaderMap::new();
    if let Some(seconds) = row.retry_after_s {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if row.status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if row.status == StatusCode::METHOD_NOT_ALLOWED {
        const METHODS: HeaderValue =
            HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
        headers.insert(ALLOW, METHODS);
    }
    if row.close && h1 {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    exchange.record.reason(reason);
    problem(exchange, reason.problem(), headers)
}

fn refused(
    mut exchange: Exchange,
    (reason, body, headers): (Reason, problem::Problem, HeaderMap),
) -> Response<Reply> {
    exchange.record.reason(reason);
    problem(exchange, body, headers)
}

/// `quotas.md` section 3: without `Retry-After`, which some clients take for an invitation.
fn no_room(mut exchange: Exchange, why: &Exceeded, h1: bool) -> Response<Reply> {
    let reason = reserve::reason(why);
    let mut headers = HeaderMap::new();
    if reason.row().close && h1 {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    exchange.record.reason(reason);
    let body = why.problem(&exchange.snapshot().plans);
    problem(exchange, body, headers)
}

fn problem(
    exchange: Exchange,
    problem: problem::Problem,
    mut headers: HeaderMap,
) -> Response<Reply> {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(problem::CONTENT_TYPE));
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = problem.with("request_id", exchange.id_text()).to_json();
    write(exchange, status, headers, whole(body.into()))
}

/// RFC 9110 9.3.2, 15.3.5, 15.4.5: an answer of ours without a body keeps its length only
/// for HEAD. (An upstream's is cut by hyper, which knows the request that it answers.)
fn bodiless(
    exchange: &Exchange,
    status: StatusCode,
    headers: &mut HeaderMap,
    whole: &mut Option<Bytes>,
) {
    let silent = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if exchange.is_head && !silent {
        let length = whole.as_ref().map_or(0, Bytes::len);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    if exchange.is_head || silent {
        *whole = None;
    }
}

fn whole(bytes: Bytes) -> Content {
    Content::Whole(Some(bytes).filter(|bytes| !bytes.is_empty()))
}

fn write(
    mut exchange: Exchange,
    status: StatusCode,
    mut headers: HeaderMap,
    mut content: Content,
) -> Response<Reply> {
    if let Content::Whole(whole) = &mut content {
        bodiless(&exchange, status, &mut headers, whole);
    }
    fields::write_response(&exchange, &mut headers);
    if let Some(entry) = exchange.record.admitted() {
        let quotas = quota::standing(&exchange, &entry);
        quota::append_fields(&exchange, &quotas, false, &mut headers);
    }
    exchange.record.answer(status, &exchange.id);
    let mut reply = Reply { content, record: exchange.record };
    if reply.is_end_stream() {
        // Nobody polls an empty body.
        reply.record.complete();
    }
    let mut response = Response::new(reply);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// A response body with the record of its exchange.
pub(crate) struct Reply {
    content: Content,
    record: Box<Record>,
}

enum Content {
    Whole(Option<Bytes>),
    Download(Download),
    Served(Served),
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let polled = match &mut self.content {
            Content::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Download(download) => download.poll_frame(cx),
            Content::Served(served) => served.poll_frame(cx),
        };
        if let Poll::Ready(frame) = &polled {
            match frame {
                Some(Ok(frame)) => {
                    self.record.sent(frame.data_ref().map_or(0, Bytes::len));
                    if self.is_end_stream() {
                        self.record.complete();
                    }
                }
                Some(Err(Aborted)) => self.record.aborted(),
                None => self.record.complete(),
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(bytes) => bytes.is_none(),
            Content::Download(download) => download.is_end_stream(),
            Content::Served(served) => served.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Content::Download(download) => download.size_hint(),
            Content::Served(served) => served.size_hint(),
        }
    }
}
