//! The walk of a request.
//!
//! Invariant: a panic anywhere in the walk costs this exchange and no other.

use std::{
    convert::Infallible,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
};

use http::{Request, Response, Version};
use hyper::body::Incoming;
use model::policy::ResponseHead;

use crate::{
    connection::Connection,
    exchange::Exchange,
    forward::{self, Answered},
    level, local, ofrep, policy, quota, request,
    rescue::Reason,
    reserve,
    response::{self, Reply, Stop},
    route, session, tenant, upstream,
    worker::Worker,
};

/// Answers one request, whatever happens.
pub(crate) async fn handle(
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<Reply>, Infallible> {
    let refused = connection.begin();
    let room = worker.enter();
    let mut exchange = Exchange::open(&worker, &connection, request.method());
    let h1 = request.version() != Version::HTTP_2;
    let outcome = match (refused, room) {
        (Some(reason), _) => Err(reason.into()),
        (None, false) => Err(Reason::Overloaded.into()),
        (None, true) => {
            // Pinned where it is made: the future is large, and moving it costs.
            let mut walk = pin!(walk(&mut exchange, request));
            poll_fn(|cx| guarded(walk.as_mut(), cx)).await
        }
    };
    Ok(response::respond(exchange, outcome, h1))
}

async fn walk(x: &mut Exchange, request: Request<Incoming>) -> Result<Answered, Stop> {
    let request = request::normalise(x, request)?;
    let mut request = local::divert(x, request).await?;
    let caller = tenant::resolve(x, &mut request).await?;
    let request = ofrep::divert(x, &caller, request).await?;
    let route = route::find(x, &request)?;
    let permit = quota::admit(x, &caller.entry, route.metrics()).await?;
    let (permit, leaving) = session::admit(x, &caller, &route, &request, permit).await?;
    let holds = reserve::admit(x, &caller, &route, &request.body).await?;
    let mut judged = policy::on_request(x, &caller, request).await?;
    reserve::cover(x, &holds, &judged.payload).await?;
    let kept = judged.kept.take();
    let mut upstream = upstream::choose(x, &caller.entry, judged.target.as_ref())?;
    let answered = forward::send(x, permit, &caller, &mut upstream, judged, &holds).await;
    let mut answered = answered.map_err(|reason| reserve::stop(&holds, reason))?;
    level::report(x, &caller, &route, &holds, &mut answered);
    session::answered(x, &caller, &route, leaving, answered.status).await;
    let Answered { status, headers, body } = answered;
    let served_by = kept.is_some().then(|| upstream.name());
    let head = ResponseHead { status, headers, served_by };
    let head = policy::on_response(x, &caller, kept, head).await?;
    Ok(Answered { status: head.status, headers: head.headers, body })
}

/// Turns a panic into an answer. Nothing shared is left half changed by one: workers
/// share only values behind atomics, channels and short borrows.
fn guarded(
    walk: Pin<&mut impl Future<Output = Result<Answered, Stop>>>,
    cx: &mut Context<'_>,
) -> Poll<Result<Answered, Stop>> {
    let polled = catch_unwind(AssertUnwindSafe(|| walk.poll(cx)));
    polled.unwrap_or_else(|_| Poll::Ready(Err(Reason::Internal.into())))
}
