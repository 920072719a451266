//! One client connection, from its first byte to its last.
//!
//! Under TLS the protocol is what ALPN agreed on; in clear text it is told from the first
//! bytes: the HTTP/2 preface, or HTTP/1. Invariant:
//! both protocols serve the same walk, and both hear when the edge drains.

use std::{
    future::poll_fn,
    net::IpAddr,
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
    time::Duration,
};

use hyper::{
    rt::Executor,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::TokioTimer;
use tokio::{io::AsyncReadExt as _, net::TcpStream, sync::watch, task};

use super::{Command, stream::Stream};
use crate::{
    config::Limits,
    connection::Connection,
    handle::handle,
    tls::{self, Handshakes},
    wire::io::Downstream,
    worker::Worker,
};

/// What an HTTP/2 client sends first (RFC 9113 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of the read that tells the protocol: a usual request head fits.
const FIRST_READ_BYTES: usize = 4_096;

/// Who was accepted.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    pub(crate) peer: IpAddr,
    /// Of an address that speaks TLS.
    pub(crate) handshakes: Option<Handshakes>,
}

/// Serves a connection until it closes.
pub(crate) async fn connection(
    worker: Rc<Worker>,
    client: Client,
    commands: watch::Receiver<Command>,
) {
    let opened = or_command(open(&worker, client), commands.clone()).await;
    let Some(Opened { connection, stream, protocol, first }) = opened.flatten() else { return };
    match protocol {
        Protocol::H1 => {
            connection.close_when_idle_for(worker.config.limits.head_timeout_ms);
            let io = Downstream::new(stream, &worker, &connection, true, &first);
            drop(first);
            h1(worker, connection, io, commands).await;
        }
        Protocol::H2 => {
            let io = Downstream::new(stream, &worker, &connection, false, &first);
            h2(worker, connection, io, commands).await;
        }
    }
}

/// A connection of which the protocol is known.
struct Opened {
    connection: Rc<Connection>,
    stream: Stream,
    protocol: Protocol,
    /// What was read of it already.
    first: Vec<u8>,
}

async fn open(worker: &Rc<Worker>, client: Client) -> Option<Opened> {
    let Client { mut stream, peer, handshakes } = client;
    let connection =
        |name| Rc::new(Connection::new(peer, name, &worker.config, worker.wheel.slot()));
    let mut first = Vec::new();
    let Some((tls, handshakes)) = worker.tls.as_ref().zip(handshakes) else {
        let connection = connection(None);
        let protocol = sniff(worker, &connection, &mut stream, &mut first).await?;
        return Some(Opened { connection, stream: Stream::Clear(stream), protocol, first });
    };
    let accepted = tls::accept(tls, &handshakes, stream).await?;
    let protocol = if accepted.is_h2 { Protocol::H2 } else { Protocol::H1 };
    let connection = connection(Some(accepted.server_name));
    let stream = Stream::Tls(Box::new(accepted.stream));
    Some(Opened { connection, stream, protocol, first })
}

enum Protocol {
    H1,
    H2,
}

/// Reads until the bytes are the preface or cannot become it; `None` when the client goes
/// away or takes too long.
async fn sniff(
    worker: &Worker,
    connection: &Connection,
    stream: &mut TcpStream,
    first: &mut Vec<u8>,
) -> Option<Protocol> {
    connection.read_slot.arm(worker.config.limits.head_timeout_ms);
    first.reserve(FIRST_READ_BYTES);
    loop {
        let mut read = pin!(stream.read_buf(first));
        let count = poll_fn(|cx| match read.as_mut().poll(cx) {
            Poll::Ready(count) => Poll::Ready(count.ok()),
            Poll::Pending => connection.read_slot.poll(cx).map(|()| None),
        })
        .await?;
        if count == 0 {
            return None;
        }
        let seen = first.len().min(PREFACE.len());
        if first.get(..seen) != PREFACE.get(..seen) {
            connection.read_slot.disarm();
            return Some(Protocol::H1);
        }
        if seen == PREFACE.len() {
            connection.read_slot.disarm();
            return Some(Protocol::H2);
        }
    }
}

/// `None` when a command comes first: nothing has begun, so nothing is lost.
async fn or_command<T>(
    future: impl Future<Output = T>,
    mut commands: watch::Receiver<Command>,
) -> Option<T> {
    tokio::select! {
        biased;
        value = future => Some(value),
        _ = commands.wait_for(|command| *command != Command::Serve) => None,
    }
}

async fn h1(
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    io: Downstream,
    commands: watch::Receiver<Command>,
) {
    let limits = worker.config.limits.clone();
    let service =
        service_fn(move |request| handle(Rc::clone(&worker), Rc::clone(&connection), request));
    let mut builder = http1::Builder::new();
    // Heads are timed by `Downstream`, which sees them first; hyper's own timer would cost
    // an allocation per request.
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(limits.h1_buffer_bytes_max);
    let serving = builder.serve_connection(io, service);
    until_drained(serving, http1::Connection::graceful_shutdown, commands).await;
}

async fn h2(
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    io: Downstream,
    commands: watch::Receiver<Command>,
) {
    let limits = worker.config.limits.clone();
    let service =
        service_fn(move |request| handle(Rc::clone(&worker), Rc::clone(&connection), request));
    let serving = h2_builder(&limits).serve_connection(io, service);
    until_drained(serving, http2::Connection::graceful_shutdown, commands).await;
}

/// Every limit is stated: hyper's defaults are made for trusted peers.
fn h2_builder(limits: &Limits) -> http2::Builder<Local> {
    let mut builder = http2::Builder::new(Local);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.h2_streams_max)
        .initial_stream_window_size(limits.h2_stream_window_bytes)
        .initial_connection_window_size(limits.h2_conn_window_bytes)
        .max_header_list_size(limits.h2_header_list_bytes_max)
        .max_local_error_reset_streams(limits.h2_local_error_resets_max)
        .max_send_buf_size(limits.h2_send_buffer_bytes_max)
        .keep_alive_interval(Duration::from_millis(limits.h2_ping_interval_ms))
        .keep_alive_timeout(Duration::from_millis(limits.h2_ping_interval_ms));
    builder
}

/// Runs a connection; on a command it is asked to finish what is open and close.
async fn until_drained<C, E>(
    connection: C,
    shut_down: impl FnOnce(Pin<&mut C>),
    mut commands: watch::Receiver<Command>,
) where
    C: Future<Output = Result<(), E>>,
    E: std::error::Error,
{
    let mut connection = pin!(connection);
    let mut command = pin!(commands.wait_for(|command| *command != Command::Serve));
    let mut shut_down = Some(shut_down);
    let ended = poll_fn(|cx| {
        if shut_down.is_some()
            && command.as_mut().poll(cx).is_ready()
            && let Some(shut_down) = shut_down.take()
        {
            shut_down(connection.as_mut());
        }
        connection.as_mut().poll(cx)
    });
    if let Err(error) = ended.await {
        tracing::debug!(%error, "a connection ended");
    }
}

/// Streams of an HTTP/2 connection are tasks of the same worker.
#[derive(Clone, Copy, Debug)]
struct Local;

impl<F: Future<Output = ()> + 'static> Executor<F> for Local {
    fn execute(&self, future: F) {
        task::spawn_local(future);
    }
}
