//! The service of this process that is served on `api.<base domain>`: the control API.
//!
//! Between normalising and resolving the tenant (steps 3 and 4), a request may leave the
//! walk for it: no tenant, no quota, no policy. The host is shared with the tenants' own
//! APIs, and the credential decides (`tenancy.md` 1.4): an API key or a JWT speaks for a
//! tenant and goes on; everything else below a path of the service is for the service.
//! Invariant: grammar, limits and deadlines hold as for any other request, and the service
//! runs on no worker.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, Version, header::HOST};
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use model::{
    BoxFuture,
    route::{Pattern, Route},
    snapshot::HostMatch,
};
use tokio::sync::mpsc;

use crate::{
    exchange::{Exchange, Timers},
    forward::{body::Aborted, fields},
    request::NormalRequest,
    rescue::Reason,
    response::Stop,
    tenant,
    worker::Worker,
};

/// Requests of the service in flight per worker (64): a flood of them costs the data plane
/// no more.
const CALLS_MAX: usize = 64;
/// Pieces of a request body on their way to the service (2): it is slower than a socket.
const PIECES_MAX: usize = 2;
/// Label of the service's requests in metrics and logs.
const ROUTE: &str = "control-api";

/// A body that goes to or comes from a service.
pub type LocalBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// A service of this process, served by the data plane on the shared host.
pub trait LocalService: Send + Sync {
    /// Whether a normalised path is one of its own. Called per request to the shared host.
    fn serves(&self, path: &str) -> bool;

    /// Answers a request. Must not compute or block on the caller's thread.
    fn call(&self, request: Request<LocalBody>) -> BoxFuture<'static, Response<LocalBody>>;
}

/// A service with what the walk needs of it.
pub(crate) struct Local {
    service: Arc<dyn LocalService>,
    route: Arc<Route>,
}

impl Local {
    pub(crate) fn new(service: Arc<dyn LocalService>) -> Self {
        let route = Route {
            name: ROUTE.into(),
            methods: Vec::new(),
            path: Pattern::everything(),
            tags: Vec::new(),
            timeout_ms: None,
            meters: Vec::new(),
            reserves: Vec::new(),
            session: None,
        };
        Self { service, route: Arc::new(route) }
    }
}

/// Gives the request back when it is for a tenant, and ends the walk when it is not.
///
/// # Errors
/// The service's answer, or why there is none.
pub(crate) async fn divert(
    exchange: &mut Exchange,
    request: NormalRequest,
) -> Result<NormalRequest, Stop> {
    if !is_for_service(exchange, &request) {
        return Ok(request);
    }
    // Boxed: rare, and large beside what the other requests need.
    let answer = Box::pin(serve(exchange, request)).await?;
    Err(Stop::Served(Box::new(answer)))
}

fn is_for_service(exchange: &Exchange, request: &NormalRequest) -> bool {
    let Some(local) = &exchange.worker.local else { return false };
    let is_shared = |name: &str| {
        name.starts_with("api.") && matches!(exchange.snapshot().host(name), HostMatch::Shared)
    };
    request.host_name().is_some_and(is_shared)
        && local.service.serves(request.head.path_and_query.path())
        && !tenant::speaks_for_a_tenant(&request.head.headers)
}

async fn serve(
    exchange: &mut Exchange,
    request: NormalRequest,
) -> Result<Response<LocalBody>, Reason> {
    let worker = Rc::clone(&exchange.worker);
    let Some(local) = &worker.local else { return Err(Reason::Internal) };
    let Some(_seat) = Seat::take(&worker) else { return Err(Reason::Overloaded) };
    exchange.record.route(&local.route);
    let NormalRequest { head, body, .. } = request;
    let (pieces, fed) = Fed::channel(body.size_hint());
    let mut call = Request::new(fed.map_err(Into::into).boxed_unsync());
    *call.method_mut() = head.method;
    *call.uri_mut() = Uri::from(head.path_and_query);
    *call.version_mut() = Version::HTTP_11;
    *call.headers_mut() = head.headers;
    if let Ok(host) = HeaderValue::from_str(&head.authority) {
        call.headers_mut().insert(HOST, host);
    }
    call.headers_mut().insert(fields::REQUEST_ID, exchange.id.clone());
    let mut answer = local.service.call(call);
    let exchange = &*exchange;
    let mut feeding = pin!(feed(exchange, body, pieces));
    let mut is_fed = false;
    let both = poll_fn(|cx| {
        if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
            return Poll::Ready(Ok(answer));
        }
        if !is_fed {
            ready!(feeding.as_mut().poll(cx))?;
            is_fed = true;
        }
        Poll::Pending
    });
    exchange.in_time(both).await?
}

/// A place among the requests of the service.
struct Seat(Rc<Worker>);

impl Seat {
    fn take(worker: &Rc<Worker>) -> Option<Self> {
        let taken = worker.local_calls.get();
        (taken < CALLS_MAX).then(|| {
            worker.local_calls.set(taken + 1);
            Self(Rc::clone(worker))
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.local_calls.set(self.0.local_calls.get().saturating_sub(1));
    }
}

/// Hands the client's body on, piece by piece, until its end or until nobody wants more.
async fn feed(
    exchange: &Exchange,
    mut body: Incoming,
    pieces: mpsc::Sender<Piece>,
) -> Result<(), Reason> {
    let limits = exchange.limits();
    let mut left = limits.request_body_bytes_max;
    loop {
        let frame =
            exchange.within(limits.body_idle_timeout_ms, Reason::BodyTimeout, body.frame()).await?;
        let piece = match frame {
            None => Piece::End,
            Some(Err(_)) => return Err(exchange.connection.body_failure()),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => Piece::Data(data),
                Err(_trailers) => continue,
            },
        };
        if let Piece::Data(data) = &piece {
            left = left.checked_sub(data.len() as u64).ok_or(Reason::BodyTooLarge)?;
        }
        let is_last = matches!(piece, Piece::End);
        if pieces.send(piece).await.is_err() || is_last {
            return Ok(());
        }
    }
}

enum Piece {
    Data(Bytes),
    End,
}

/// A request body on its way to the service, on another thread.
struct Fed {
    pieces: mpsc::Receiver<Piece>,
    hint: SizeHint,
    is_whole: bool,
}

impl Fed {
    fn channel(hint: SizeHint) -> (mpsc::Sender<Piece>, Self) {
        let (sender, pieces) = mpsc::channel(PIECES_MAX);
        let is_whole = hint.exact() == Some(0);
        (sender, Self { pieces, hint, is_whole })
    }
}

impl Body for Fed {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        if self.is_whole {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(self.pieces.poll_recv(cx)) {
            Some(Piece::Data(data)) => Some(Ok(Frame::data(data))),
            Some(Piece::End) => {
                self.is_whole = true;
                None
            }
            // Cut off: never passed on as complete.
            None => Some(Err(Aborted)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.is_whole
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_whole { SizeHint::with_exact(0) } else { self.hint }
    }
}

/// A service's response body on its way to the client, within the exchange's time.
pub(crate) struct Served {
    body: LocalBody,
    timers: Rc<Timers>,
}

impl Served {
    pub(crate) fn new(body: LocalBody, exchange: &Exchange) -> Self {
        Self { body, timers: Rc::clone(&exchange.timers) }
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(|_| Aborted)));
        }
        self.timers.poll(cx, Reason::TotalTimeout).map(|_late| Some(Err(Aborted)))
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
