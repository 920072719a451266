//! Clients: keep-alive connections to every edge, far above the limits.
//!
//! Invariant: a client never gives a request up, so that no request which arrived is
//! refunded for a client that went away.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, body::Body, client::conn::http1::SendRequest, header::HOST};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::sleep};

use crate::{
    answers::{Answers, Wait},
    edges::Edges,
    random::Random,
    tenants::{TENANTS, Tenant},
    violations::Violations,
};

/// Connections to each edge.
pub const CONNECTIONS: u64 = 8;
/// Pause before a connection is tried again.
const RECONNECT: Duration = Duration::from_millis(50);
/// A wait beyond this at an edge that nobody disturbed is one without a bound.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Of the requests of a skewed tenant at other edges than the first, this share is sent, in
/// percent: 100 to 1 over four edges.
const SKEW_PERCENT: u64 = 1;

/// What the clients share.
#[derive(Debug)]
pub struct Load {
    edges: Arc<Edges>,
    answers: Arc<Answers>,
    violations: Arc<Violations>,
    seed: u64,
    /// Requests a second over all connections.
    rate: AtomicU64,
}

impl Load {
    /// Starts all connections; they go on until the program ends.
    pub fn start(
        edges: Arc<Edges>,
        answers: Arc<Answers>,
        violations: Arc<Violations>,
        (seed, rate): (u64, u64),
    ) -> Arc<Self> {
        let load = Arc::new(Self { edges, answers, violations, seed, rate: AtomicU64::new(rate) });
        for edge in 0..load.edges.count() {
            for connection in 0..CONNECTIONS {
                let stream = edge as u64 * CONNECTIONS + connection;
                tokio::spawn(Arc::clone(&load).run(edge, Random::new(load.seed, stream + 1)));
            }
        }
        load
    }

    /// From now on so many requests a second; 0 is none.
    pub fn set_rate(&self, rate: u64) {
        self.rate.store(rate, Ordering::Relaxed);
    }

    async fn run(self: Arc<Self>, edge: usize, mut random: Random) {
        let addr = self.edges.addr(edge);
        loop {
            if let Ok(sender) = connect(addr).await {
                self.use_connection(edge, sender, &mut random).await;
            }
            sleep(RECONNECT).await;
        }
    }

    /// Sends until the connection breaks.
    async fn use_connection(
        &self,
        edge: usize,
        mut sender: SendRequest<Empty<Bytes>>,
        random: &mut Random,
    ) {
        loop {
            let began = Instant::now();
            let rate = self.rate.load(Ordering::Relaxed);
            if rate == 0 {
                sleep(RECONNECT).await;
                continue;
            }
            let (index, tenant) = choose(edge, random);
            let ai = random.chance(tenant.ai_percent);
            if sender.ready().await.is_err() {
                return;
            }
            let Some(request) = request(tenant.name, ai) else { return };
            match exchange(&mut sender, request).await {
                Ok((status, headers)) => {
                    let wait = began.elapsed();
                    let calm = !self.edges.disturbed(edge, wait);
                    self.answers.take(index, status, &headers, Wait { wait, edge, calm });
                    if wait > WAIT_MAX && calm {
                        let line = format!("{}: an answer ({status}) took {wait:?}", tenant.name);
                        self.violations.once("long wait", line);
                    }
                }
                Err(error) => {
                    let excused = self.edges.disturbed(edge, began.elapsed());
                    return self.answers.broken(index, excused, &format!("{error:#}"));
                }
            }
            let connections = CONNECTIONS * self.edges.count() as u64;
            let every = Duration::from_micros(1_000_000 * connections / rate.max(1));
            sleep(every.saturating_sub(began.elapsed())).await;
        }
    }
}

/// Whose request is the next one at an edge.
fn choose(edge: usize, random: &mut Random) -> (usize, &'static Tenant) {
    let total: u64 = TENANTS.iter().map(|tenant| tenant.weight).sum();
    loop {
        let mut at = random.below(total);
        for (index, tenant) in TENANTS.iter().enumerate() {
            if at < tenant.weight {
                if edge > 0 && tenant.skewed && !random.chance(SKEW_PERCENT) {
                    break;
                }
                return (index, tenant);
            }
            at -= tenant.weight;
        }
    }
}

/// A request of a tenant.
pub fn request(name: &str, ai: bool) -> Option<Request<Empty<Bytes>>> {
    let path = if ai { "/v1/ai/" } else { "/" };
    let request = Request::get(format!("{path}{name}"));
    request.header(HOST, format!("{name}.localhost")).body(Empty::new()).ok()
}

/// A keep-alive connection.
///
/// # Errors
/// Nobody listens.
pub async fn connect<B>(addr: SocketAddr) -> Result<SendRequest<B>>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// One request and its whole answer.
///
/// # Errors
/// The connection broke.
pub async fn exchange(
    sender: &mut SendRequest<Empty<Bytes>>,
    request: Request<Empty<Bytes>>,
) -> Result<(hyper::StatusCode, hyper::HeaderMap)> {
    let (head, body) = sender.send_request(request).await?.into_parts();
    body.collect().await?;
    Ok((head.status, head.headers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skewed_tenant_is_seen_a_hundred_times_more_at_the_first_edge() {
        let skewed = TENANTS.iter().position(|tenant| tenant.skewed).expect("one");
        let seen = |edge| {
            let mut random = Random::new(1, edge as u64);
            (0..100_000).filter(|_| choose(edge, &mut random).0 == skewed).count()
        };
        let (first, other) = (seen(0), seen(1));
        assert!(first > 60 * other && other > 0, "{first} and {other}");
    }
}
