//! The handshake of one connection.
//!
//! Called by the worker that accepted it. Invariant: it ends within
//! `handshake_timeout_ms`, and no more than `handshakes_max` run at once on a worker.

use std::{rc::Rc, sync::Arc};

use rustls::server::Acceptor;
use tokio::{net::TcpStream, sync::Semaphore, time::timeout};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use super::Tls;

/// A connection whose handshake is done.
pub(crate) struct Accepted {
    pub(crate) stream: TlsStream<TcpStream>,
    /// The host that the client asked for, lower case.
    pub(crate) server_name: Box<str>,
    /// What ALPN agreed on.
    pub(crate) is_h2: bool,
}

/// Bounds the handshakes of one worker.
#[derive(Clone)]
pub(crate) struct Handshakes(Rc<Semaphore>);

impl Handshakes {
    pub(crate) fn new(tls: &Tls) -> Self {
        Self(Rc::new(Semaphore::new(tls.config.handshakes_max.min(Semaphore::MAX_PERMITS))))
    }
}

/// Runs the handshake; `None` when it came to nothing.
pub(crate) async fn accept(
    tls: &Arc<Tls>,
    handshakes: &Handshakes,
    stream: TcpStream,
) -> Option<Accepted> {
    // Waiting for a turn counts: whoever waits that long is gone.
    let outcome = timeout(tls.handshake_timeout(), async {
        let _turn = handshakes.0.acquire().await;
        handshake(tls, stream).await
    });
    match outcome.await {
        Ok(Ok(accepted)) => {
            tls.meters.done(accepted.stream.get_ref().1.handshake_kind());
            Some(accepted)
        }
        Ok(Err(failure)) => {
            tls.meters.failed(failure.outcome);
            tracing::debug!(error = %failure.source, "a TLS handshake failed");
            None
        }
        Err(_) => {
            tls.meters.failed("timeout");
            None
        }
    }
}

struct Failure {
    outcome: &'static str,
    source: std::io::Error,
}

async fn handshake(tls: &Tls, stream: TcpStream) -> Result<Accepted, Failure> {
    let failed = |source| Failure { outcome: "failed", source };
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await.map_err(failed)?;
    let material = tls.material.load_full();
    let name = start.client_hello().server_name().map(str::to_ascii_lowercase);
    let server = material.server(name.as_deref());
    drop(material);
    // Without a name, or with one of nobody's, the resolver has no certificate and rustls
    // says so to the client.
    let known = name.is_some();
    let stream = start
        .into_stream(server)
        .await
        .map_err(|source| Failure { outcome: if known { "failed" } else { "no_name" }, source })?;
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok(Accepted { stream, server_name: name.unwrap_or_default().into(), is_h2 })
}
