//! Bodies on their way through: streamed, bounded, driven by whoever reads them.
//!
//! Nothing is buffered beyond hyper's own buffers, so a slow side holds back the other.
//! Invariant: a body that ends early ends in an error on the other side, never as a
//! complete one.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http::{
    HeaderMap,
    header::{
        AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST,
        SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    },
};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use model::{BoxFuture, reservation::Refused};

use crate::{
    connection::Connection,
    exchange::Timers,
    pool::{Link, Pool},
    rescue::Reason,
    reserve::{self, Holds},
};

/// Why a body ended early; for hyper, which closes what it was writing to.
#[derive(Debug, thiserror::Error)]
#[error("body aborted")]
pub(crate) struct Aborted;

/// A request body before it is known where it goes.
pub(crate) enum Payload {
    /// As it comes from the client.
    Stream(Incoming),
    /// Buffered or written by a policy.
    Whole(Bytes),
}

impl From<Incoming> for Payload {
    fn from(body: Incoming) -> Self {
        if body.is_end_stream() { Self::Whole(Bytes::new()) } else { Self::Stream(body) }
    }
}

/// A request body on its way to the upstream.
pub(crate) enum Outgoing {
    /// All of it at once; `None` when sent or empty.
    Whole(Option<Bytes>),
    /// As it comes.
    Upload(Box<Upload>),
}

/// What the forwarder may ask about an upload that hyper holds.
#[derive(Default)]
pub(crate) struct UploadState {
    failure: Cell<Option<Reason>>,
    awaits_client: Cell<bool>,
    unsent: Cell<bool>,
}

impl UploadState {
    /// Why the upload ended early.
    pub(crate) fn failure(&self) -> Option<Reason> {
        self.failure.get()
    }

    /// Whether not one byte of the request went out, in the end.
    pub(crate) fn is_unsent(&self) -> bool {
        self.unsent.get()
    }

    /// Remembers it.
    pub(crate) fn unsent(&self, unsent: bool) {
        self.unsent.set(unsent);
    }

    /// Whom the exchange waits for: the client's body or the upstream's answer.
    pub(crate) fn late(&self) -> Reason {
        if self.awaits_client.get() { Reason::BodyTimeout } else { Reason::FirstByteTimeout }
    }
}

/// More room, when it is given.
type Room = BoxFuture<'static, Result<u64, Refused>>;

/// A streamed request body.
pub(crate) struct Upload {
    incoming: Incoming,
    bytes_left: u64,
    timers: Rc<Timers>,
    client_timeout_ms: u64,
    upstream_timeout_ms: u64,
    connection: Rc<Connection>,
    state: Rc<UploadState>,
    holds: Holds,
    /// A piece that waits for room.
    waiting: Option<(Frame<Bytes>, Room)>,
}

impl Upload {
    pub(crate) fn new(
        incoming: Incoming,
        limits: &crate::config::Limits,
        timers: &Rc<Timers>,
        connection: &Rc<Connection>,
        state: &Rc<UploadState>,
        holds: &Holds,
    ) -> Self {
        Self {
            incoming,
            bytes_left: limits.request_body_bytes_max,
            timers: Rc::clone(timers),
            client_timeout_ms: limits.body_idle_timeout_ms,
            upstream_timeout_ms: limits.first_byte_timeout_ms,
            connection: Rc::clone(connection),
            state: Rc::clone(state),
            holds: holds.clone(),
            waiting: None,
        }
    }

    fn fail(&self, reason: Reason) -> Option<Result<Frame<Bytes>, Aborted>> {
        self.state.failure.set(Some(reason));
        Some(Err(Aborted))
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        if self.waiting.is_some() {
            return self.poll_room(cx);
        }
        let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) else {
            if !self.state.awaits_client.replace(true) {
                self.timers.step(self.client_timeout_ms);
            }
            return Poll::Pending;
        };
        self.state.awaits_client.set(false);
        self.timers.step(self.upstream_timeout_ms);
        Poll::Ready(match frame {
            None => {
                reserve::ended(&self.holds);
                None
            }
            Some(Err(_)) => self.fail(self.connection.body_failure()),
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                match self.bytes_left.checked_sub(bytes) {
                    Some(left) => {
                        self.bytes_left = left;
                        return self.make_room(frame, bytes, cx);
                    }
                    None => self.fail(Reason::BodyTooLarge),
                }
            }
        })
    }

    /// Lets a piece pass that there is room for; asks for more otherwise.
    fn make_room(
        &mut self,
        frame: Frame<Bytes>,
        bytes: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        if let Some(hold) = reserve::of_body(&self.holds) {
            if !hold.is_live() {
                let reason = hold.refuse(Refused::Unavailable);
                return Poll::Ready(self.fail(reason));
            }
            if !hold.take(bytes) {
                let room = hold.step(bytes);
                self.waiting = Some((frame, room));
                return self.poll_room(cx);
            }
        }
        self.pass(frame)
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let Some((_, room)) = &mut self.waiting else { return Poll::Ready(None) };
        let room = ready!(room.as_mut().poll(cx));
        let (Some((frame, _)), Some(hold)) = (self.waiting.take(), reserve::of_body(&self.holds))
        else {
            return Poll::Ready(None);
        };
        let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
        match room {
            Ok(room) => {
                hold.widen(room);
                self.make_room(frame, bytes, cx)
            }
            Err(refused) => {
                let reason = hold.refuse(refused);
                Poll::Ready(self.fail(reason))
            }
        }
    }

    fn pass(&self, frame: Frame<Bytes>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        if self.incoming.is_end_stream() {
            reserve::ended(&self.holds);
        }
        Poll::Ready(Some(Ok(decent(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_none() && self.incoming.is_end_stream()
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Upload(upload) => upload.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Upload(upload) => upload.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Upload(upload) => upload.incoming.size_hint(),
        }
    }
}

/// A response body on its way to the client; drives the connection it comes from.
pub(crate) struct Download {
    incoming: Incoming,
    link: Option<Box<Link>>,
    pool: Rc<Pool>,
    timers: Rc<Timers>,
    idle_timeout_ms: u64,
    awaits_upstream: bool,
    broken: bool,
}

impl Download {
    pub(crate) fn new(
        incoming: Incoming,
        link: Box<Link>,
        pool: &Rc<Pool>,
        timers: &Rc<Timers>,
        idle_timeout_ms: u64,
    ) -> Self {
        let mut this = Self {
            incoming,
            link: Some(link),
            pool: Rc::clone(pool),
            timers: Rc::clone(timers),
            idle_timeout_ms,
            awaits_upstream: false,
            broken: false,
        };
        if this.incoming.is_end_stream() {
            this.finish();
        }
        this
    }

    fn finish(&mut self) {
        if let Some(link) = self.link.take() {
            self.pool.give_back(link);
        }
    }

    /// Progress comes only from driving the link, so the channel needs no waker.
    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let mut quiet = Context::from_waker(Waker::noop());
        if let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(&mut quiet) {
            return Poll::Ready(frame);
        }
        if let Some(link) = &mut self.link {
            link.drive(cx);
        }
        Pin::new(&mut self.incoming).poll_frame(&mut quiet)
    }

    fn poll_timers(&mut self, cx: &Context<'_>) -> Poll<Reason> {
        if !std::mem::replace(&mut self.awaits_upstream, true) {
            self.timers.step(self.idle_timeout_ms);
        }
        self.timers.poll(cx, Reason::FirstByteTimeout)
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        if self.broken {
            return Poll::Ready(Some(Err(Aborted)));
        }
        if self.timers.session_is_lost() {
            return self.breaks(cx);
        }
        let Poll::Ready(frame) = self.poll_incoming(cx) else {
            ready!(self.poll_timers(cx));
            return self.breaks(cx);
        };
        if std::mem::take(&mut self.awaits_upstream) {
            self.timers.step_done();
        }
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                if self.incoming.is_end_stream() {
                    self.finish();
                }
                Some(Ok(decent(frame)))
            }
            Some(Err(_)) => return self.breaks(cx),
            None => {
                self.finish();
                None
            }
        })
    }

    /// Fails at the next poll: hyper drops what it has not yet written when a body fails,
    /// and waiting once lets it write head and bytes that did come.
    fn breaks(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        self.link = None;
        self.broken = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// RFC 9110 6.5.1: trailers never frame, route or authenticate a message.
fn decent(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            forbid(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}

fn forbid(trailers: &mut HeaderMap) {
    let forbidden = [
        AUTHORIZATION,
        CONNECTION,
        CONTENT_ENCODING,
        CONTENT_LENGTH,
        CONTENT_TYPE,
        COOKIE,
        HOST,
        SET_COOKIE,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ];
    forbidden.iter().for_each(|name| drop(trailers.remove(name)));
    let owned: Vec<_> = trailers
        .keys()
        .filter(|name| model::headers::is_host_owned(name.as_str()) || name.as_str().contains('_'))
        .cloned()
        .collect();
    owned.iter().for_each(|name| drop(trailers.remove(name)));
}
