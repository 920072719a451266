//! Runs the API on a listener until told to stop.

use std::{future::Future, time::Duration};

use tokio::net::TcpListener;

use crate::api::{Deps, router};

/// How long running requests may take to end after the shutdown, in ms: every request
/// here ends sooner, but for a client that does not read its answer.
const DRAIN_MS: u64 = 10_000;

/// Serves the API on `listener`. When `shutdown` completes, no new request is taken and
/// the running ones may end.
///
/// # Errors
/// The listener failed.
pub async fn serve(
    listener: TcpListener,
    deps: Deps,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let (begin, begun) = tokio::sync::oneshot::channel();
    let stop = async move {
        shutdown.await;
        // Nobody listens once serving has ended, which is the end of this story anyway.
        let _ = begin.send(());
    };
    let serving = axum::serve(listener, router(deps)).with_graceful_shutdown(stop);
    let overdue = async {
        if begun.await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(Duration::from_millis(DRAIN_MS)).await;
    };
    tokio::select! {
        ended = serving => ended,
        () = overdue => {
            tracing::warn!("control requests were cut off after {DRAIN_MS} ms of draining");
            Ok(())
        }
    }
}
