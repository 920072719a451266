//! One client connection, as its exchanges see it.
//!
//! Made at accept; the peer's address and everything written from it is worked out once.
//! The wire leaves its verdicts here and the service picks them up.

use std::{cell::Cell, fmt::Write as _, net::IpAddr};

use http::HeaderValue;

use crate::{
    config::ProxyConfig, rescue::Reason, session::OfConnection, timer::Slot, wire::gate::Gate,
};

/// A connection.
pub(crate) struct Connection {
    /// The peer.
    pub(crate) peer: IpAddr,
    /// Whether its word about its own clients is taken.
    pub(crate) trusted: bool,
    /// The peer as an `X-Forwarded-For` value.
    pub(crate) forwarded_for: HeaderValue,
    /// The peer as a `Forwarded` value.
    pub(crate) forwarded: HeaderValue,
    /// How the peer reached us.
    pub(crate) scheme: &'static str,
    /// The host that TLS was opened for; a request for another one is misdirected.
    pub(crate) server_name: Option<Box<str>>,
    requests: Cell<u64>,
    active: Cell<u32>,
    refused: Cell<Option<(u64, Reason)>>,
    broken_body: Cell<Option<Reason>>,
    /// Deadline of the bytes awaited from the client.
    pub(crate) read_slot: Slot,
    idle_timeout_ms: Cell<Option<u64>>,
    /// The sessions that it is.
    pub(crate) sessions: OfConnection,
}

impl Connection {
    pub(crate) fn new(
        peer: IpAddr,
        server_name: Option<Box<str>>,
        config: &ProxyConfig,
        read_slot: Slot,
    ) -> Self {
        let peer = peer.to_canonical();
        let scheme = if server_name.is_some() { "https" } else { "http" };
        Self {
            peer,
            trusted: config.trusts(peer),
            forwarded_for: text(format_args!("{peer}")),
            forwarded: forwarded(peer, scheme),
            scheme,
            server_name,
            requests: Cell::new(0),
            active: Cell::new(0),
            refused: Cell::new(None),
            broken_body: Cell::new(None),
            read_slot,
            idle_timeout_ms: Cell::new(None),
            sessions: OfConnection::default(),
        }
    }

    /// Closes the connection when it stays without an exchange for so long.
    pub(crate) fn close_when_idle_for(&self, timeout_ms: u64) {
        self.idle_timeout_ms.set(Some(timeout_ms));
    }

    /// Counts a request in; the reason when its head was refused on the wire.
    pub(crate) fn begin(&self) -> Option<Reason> {
        self.requests.set(self.requests.get() + 1);
        self.active.set(self.active.get() + 1);
        let refused = self.refused.get().filter(|(number, _)| *number == self.requests.get());
        refused.map(|(_, reason)| reason)
    }

    /// Counts it out. hyper does not read again by itself when it last found nothing, so
    /// the deadline of the next head starts here.
    pub(crate) fn end(&self) {
        self.active.set(self.active.get().saturating_sub(1));
        if let (true, Some(timeout_ms)) = (self.is_idle(), self.idle_timeout_ms.get()) {
            self.read_slot.arm_once(timeout_ms);
        }
    }

    /// Whether no exchange is open.
    pub(crate) fn is_idle(&self) -> bool {
        self.active.get() == 0
    }

    pub(crate) fn take_verdict(&self, gate: &Gate) {
        if let Some(refused) = gate.refused() {
            self.refused.set(Some(refused));
        }
        if let Some(flaw) = gate.broken() {
            self.break_body(Reason::Malformed(flaw));
        }
    }

    pub(crate) fn break_body(&self, reason: Reason) {
        self.broken_body.set(Some(reason));
    }

    /// Why the body in progress cannot be read; an aborted one has no better reason.
    pub(crate) fn body_failure(&self) -> Reason {
        self.broken_body.get().unwrap_or(Reason::BodyAborted)
    }
}

/// RFC 7239: an IPv6 address is bracketed and quoted.
fn forwarded(peer: IpAddr, scheme: &str) -> HeaderValue {
    match peer {
        IpAddr::V4(v4) => text(format_args!("for={v4};proto={scheme}")),
        IpAddr::V6(v6) => text(format_args!("for=\"[{v6}]\";proto={scheme}")),
    }
}

/// A header value made of text that is known to be visible ASCII.
pub(crate) fn text(arguments: std::fmt::Arguments<'_>) -> HeaderValue {
    let mut text = String::new();
    let _ = text.write_fmt(arguments);
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
