//! Connections of one worker to upstream endpoints.
//!
//! A [`Link`] is both ends of hyper's client connection in one value: whoever holds it
//! drives it, so an upstream connection is no task of its own and no wake-up crosses
//! tasks. Idle links rest here, the last used on top. Invariant: a link comes back only
//! after its response was read to the end, with nothing left to send and nothing read
//! beyond (hyper is ready for the next request only then).

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Waker},
};

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::{
    config::Limits,
    forward::body::Outgoing,
    rescue::Reason,
    timer::Wheel,
    upstream::{Busy, wire::Wire},
};

/// One connection to an endpoint.
pub(crate) struct Link {
    pub(crate) sender: http1::SendRequest<Outgoing>,
    driver: http1::Connection<TokioIo<Wire>, Outgoing>,
    done: bool,
    endpoint: SocketAddr,
    idle_since_ms: u64,
    /// Whether a byte came since it was last set to false.
    pub(crate) heard: Rc<Cell<bool>>,
    /// The request that uses it, as its endpoint counts it.
    pub(crate) busy: Option<Busy>,
    /// Open links of the endpoint, this one included.
    open: Rc<Cell<usize>>,
}

impl Link {
    /// Moves bytes both ways as far as they go without waiting.
    pub(crate) fn drive(&mut self, cx: &mut Context<'_>) {
        if !self.done {
            self.done = Pin::new(&mut self.driver).poll(cx).is_ready();
        }
    }

    /// Whether the connection is over.
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    fn is_reusable(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        !self.done && self.sender.is_ready()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.open.set(self.open.get().saturating_sub(1));
    }
}

/// The links of a worker that rest.
pub(crate) struct Pool {
    wheel: Rc<Wheel>,
    builder: http1::Builder,
    open_max: usize,
    idle_max: usize,
    idle_keep_ms: u64,
    endpoints: RefCell<HashMap<SocketAddr, Endpoint>>,
}

#[derive(Default)]
struct Endpoint {
    #[expect(clippy::vec_box, reason = "a link moves between pool, walk and body: as a pointer")]
    idle: Vec<Box<Link>>,
    open: Rc<Cell<usize>>,
}

impl Pool {
    pub(crate) fn new(limits: &Limits, wheel: &Rc<Wheel>) -> Rc<Self> {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(limits.h1_buffer_bytes_max);
        Rc::new(Self {
            wheel: Rc::clone(wheel),
            builder,
            open_max: limits.upstream_connections_max,
            idle_max: limits.upstream_idle_max,
            idle_keep_ms: limits.upstream_idle_keep_ms,
            endpoints: RefCell::default(),
        })
    }

    /// The freshest idle link that is still alive.
    pub(crate) fn take(&self, endpoint: SocketAddr) -> Option<Box<Link>> {
        let mut endpoints = self.endpoints.borrow_mut();
        let idle = &mut endpoints.get_mut(&endpoint)?.idle;
        while let Some(mut link) = idle.pop() {
            if link.is_reusable() {
                return Some(link);
            }
        }
        None
    }

    /// A new link.
    ///
    /// # Errors
    /// The endpoint refused, or has as many links as it may have.
    pub(crate) async fn connect(&self, endpoint: SocketAddr) -> Result<Box<Link>, Reason> {
        let claim = self.claim(endpoint)?;
        let stream = TcpStream::connect(endpoint).await.map_err(|error| {
            tracing::debug!(%endpoint, %error, "cannot connect");
            Reason::ConnectFailed
        })?;
        // Without it a small request after a large one waits for a delayed ACK.
        stream.set_nodelay(true).map_err(|_| Reason::ConnectFailed)?;
        let heard = Rc::<Cell<bool>>::default();
        let handshake = self.builder.handshake(TokioIo::new(Wire::new(stream, &heard))).await;
        let (sender, driver) = handshake.map_err(|_| Reason::ConnectFailed)?;
        let open = claim.keep();
        let mut link = Box::new(Link {
            sender,
            driver,
            done: false,
            endpoint,
            idle_since_ms: 0,
            heard,
            busy: None,
            open,
        });
        if link.is_reusable() { Ok(link) } else { Err(Reason::UpstreamClosed) }
    }

    fn claim(&self, endpoint: SocketAddr) -> Result<Claim, Reason> {
        let mut endpoints = self.endpoints.borrow_mut();
        let open = Rc::clone(&endpoints.entry(endpoint).or_default().open);
        if open.get() >= self.open_max {
            return Err(Reason::UpstreamBusy);
        }
        open.set(open.get() + 1);
        Ok(Claim(Some(open)))
    }

    /// Takes a link back, unless it is of no more use.
    pub(crate) fn give_back(&self, mut link: Box<Link>) {
        link.busy = None;
        if !link.is_reusable() {
            return;
        }
        link.idle_since_ms = self.wheel.coarse_now_ms();
        let mut endpoints = self.endpoints.borrow_mut();
        let idle = &mut endpoints.entry(link.endpoint).or_default().idle;
        if idle.len() < self.idle_max {
            idle.push(link);
        }
    }

    /// Drops what rested too long, and what is left of endpoints that are gone.
    pub(crate) fn expire(&self, now_ms: u64) {
        let keep_ms = self.idle_keep_ms;
        self.endpoints.borrow_mut().retain(|_, endpoint| {
            endpoint.idle.retain(|link| now_ms.saturating_sub(link.idle_since_ms) < keep_ms);
            endpoint.open.get() > 0
        });
    }
}

/// A place among an endpoint's links; given up unless kept.
struct Claim(Option<Rc<Cell<usize>>>);

impl Claim {
    fn keep(mut self) -> Rc<Cell<usize>> {
        self.0.take().unwrap_or_default()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(open) = &self.0 {
            open.set(open.get().saturating_sub(1));
        }
    }
}
