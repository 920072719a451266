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

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        sync::oneshot,
    };

    use super::*;
    use crate::testing::{Backend, Control};

    #[tokio::test]
    async fn a_shutdown_ends_idle_connections_and_the_server() {
        let control = Control::start(Backend::Sqlite).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async { stopped.await.expect("a stop") };
        let serving = tokio::spawn(serve(listener, control.deps.clone(), shutdown));
        let mut connection = TcpStream::connect(address).await.expect("a connection");
        connection.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
        let mut answer = vec![0; 12];
        connection.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(answer, b"HTTP/1.1 200");
        stop.send(()).expect("a server");
        serving.await.expect("a task").expect("a clean end");
        let mut rest = Vec::new();
        connection.read_to_end(&mut rest).await.expect("a closed connection");
        assert!(TcpStream::connect(address).await.is_err());
    }
}
