//! Step 5: what kind of request this is.
//!
//! The route names the request in metrics, says what it counts as and how long it may
//! take. Invariant: it is matched on the normalised path, the one that is forwarded.

use std::sync::Arc;

use model::route::Route;

use crate::{exchange::Exchange, request::NormalRequest, rescue::Reason};

/// Step 5 of the walk.
///
/// # Errors
/// No route matches.
pub(crate) fn find(exchange: &mut Exchange, request: &NormalRequest) -> Result<Arc<Route>, Reason> {
    let head = &request.head;
    let route = exchange.snapshot().routes.find(&head.method, head.path_and_query.path());
    let route = Arc::clone(route.ok_or(Reason::NoRoute)?);
    if let Some(timeout_ms) = route.timeout_ms {
        exchange.total_timeout(timeout_ms);
    }
    exchange.record.route(&route);
    Ok(route)
}
