//! The port between policies that call out and who makes the calls.
//!
//! Called by a host function of a running policy, whose request waits, within the bounds that
//! the call names. Invariant: whoever implements it connects to no address that it has not
//! checked, follows no redirect, and calls no origin that is not listed.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};

use crate::BoxFuture;

/// How this edge calls itself in `CDN-Loop` (RFC 8586).
pub const CDN_ID: &str = "leanvibe-edge";

/// One call.
#[derive(Clone, Debug)]
pub struct Fetch {
    /// Origins that may be called, as URLs without a path.
    pub origins: Arc<[Box<str>]>,
    /// Not `CONNECT` or `TRACE`.
    pub method: Method,
    /// As the policy wrote it.
    pub url: String,
    /// Checked fields, none of one hop; with `CDN-Loop`.
    pub headers: HeaderMap,
    /// Whole body.
    pub body: Bytes,
    /// From the first packet to the last byte of the answer.
    pub timeout_ms: u64,
    /// Bytes of the answer's body; more are an error.
    pub answer_bytes_max: usize,
}

/// The answer to a call.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Status, also of a redirect.
    pub status: StatusCode,
    /// Its fields.
    pub headers: HeaderMap,
    /// Whole body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutboundError {
    /// Not a listed origin, or it leads to an address that may not be reached.
    #[error("the origin may not be called")]
    Denied,
    /// The request cannot be sent.
    #[error("the request is malformed: {0}")]
    Invalid(&'static str),
    /// It took too long.
    #[error("no answer in time")]
    Timeout,
    /// No connection, or a broken one.
    #[error("the connection failed")]
    Connection,
    /// The answer is too large.
    #[error("the answer is too large")]
    TooLarge,
}

/// Makes calls. Dropping the future ends the call.
pub trait Outbound: Send + Sync + fmt::Debug {
    /// Makes one.
    fn fetch(&self, call: Fetch) -> BoxFuture<'static, Result<Fetched, OutboundError>>;
}
