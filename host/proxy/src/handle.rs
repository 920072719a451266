//! The walk of a request.
//!
//! Invariant: a panic anywhere in the walk costs this exchange and no other.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    rc::Rc,
    task::Poll,
};

use http::{Request, Response, Version};
use hyper::body::Incoming;
use model::policy::ResponseHead;

use crate::{
    connection::Connection,
    exchange::Exchange,
    forward::{self, Answered},
    policy, quota, request,
    rescue::Reason,
    response::{self, Reply, Stop},
    route, tenant, upstream,
    worker::Worker,
};

/// Answers one request, whatever happens.
pub(crate) async fn handle(
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    request: Request<Incoming>,
) -> Response<Reply> {
    let refused = connection.begin();
    let room = worker.enter();
    let mut exchange = Exchange::open(&worker, &connection, request.method());
    let h1 = request.version() != Version::HTTP_2;
    let outcome = match (refused, room) {
        (Some(reason), _) => Err(reason.into()),
        (None, false) => Err(Reason::Overloaded.into()),
        (None, true) => guarded(walk(&mut exchange, request)).await,
    };
    response::respond(exchange, outcome, h1)
}

async fn walk(x: &mut Exchange, request: Request<Incoming>) -> Result<Answered, Stop> {
    let mut request = request::normalise(x, request)?;
    let caller = tenant::resolve(x, &mut request)?;
    let route = route::find(x, &request)?;
    let permit = quota::admit(x, &caller.entry, route.metrics()).await?;
    let mut judged = policy::on_request(x, &caller, request).await?;
    let kept = judged.kept.take();
    let upstream = upstream::choose(x, &caller.entry, judged.target.as_ref())?;
    let answered = forward::send(x, permit, &caller, &upstream, judged).await?;
    let Answered { status, headers, body } = answered;
    let served_by = kept.is_some().then(|| upstream.name());
    let head = ResponseHead { status, headers, served_by };
    let head = policy::on_response(x, &caller, kept, head).await?;
    Ok(Answered { status: head.status, headers: head.headers, body })
}

/// Turns a panic into an answer. Nothing shared is left half changed by one: workers
/// share only values behind atomics, channels and short borrows.
async fn guarded(walk: impl Future<Output = Result<Answered, Stop>>) -> Result<Answered, Stop> {
    let mut walk = pin!(walk);
    std::future::poll_fn(|cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| walk.as_mut().poll(cx)));
        polled.unwrap_or_else(|_| Poll::Ready(Err(Reason::Internal.into())))
    })
    .await
}
