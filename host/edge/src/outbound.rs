//! Calls that policies make: HTTP to listed origins, and to public addresses only.
//!
//! A call runs on the program's own runtime and ends with the hook that waits for it. Names
//! are resolved and checked for every connection, as for webhooks. Invariant: the address that
//! was checked is the one that is connected to; a redirect is an answer like any other.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use control::notify::{self, AllowedNetworks, WebhookUrl};
use model::{
    BoxFuture,
    outbound::{Fetch, Fetched, Outbound, OutboundError},
};
use prometheus::{IntCounterVec, Opts, Registry};
use reqwest::{Client, Url};
use tokio::{runtime::Handle, task::AbortHandle};

/// Makes the calls of every policy.
#[derive(Clone, Debug)]
pub struct Caller {
    runtime: Handle,
    allowed: Arc<AllowedNetworks>,
    /// For `https`, to any permitted address.
    encrypted: Client,
    /// For `http`, to addresses that the operator opened.
    plain: Client,
    calls: IntCounterVec,
}

impl Caller {
    /// On the current runtime. `allowed` is reached beside the public addresses, and without
    /// TLS.
    ///
    /// # Errors
    /// TLS cannot be set up, or the series is there already.
    pub fn new(allowed: AllowedNetworks, registry: &Registry) -> anyhow::Result<Self> {
        let allowed = Arc::new(allowed);
        let calls = IntCounterVec::new(
            Opts::new("policy_outbound_calls_total", "Calls that policies made, by outcome"),
            &["outcome"],
        )?;
        registry.register(Box::new(calls.clone()))?;
        Ok(Self {
            runtime: Handle::current(),
            encrypted: notify::guarded(&allowed, false)?,
            plain: notify::guarded(&allowed, true)?,
            allowed,
            calls,
        })
    }

    async fn made(self, call: Fetch) -> Result<Fetched, OutboundError> {
        let url = self.permitted(&call)?;
        let client = if url.scheme() == "http" { &self.plain } else { &self.encrypted };
        let sent = client
            .request(call.method, url)
            .headers(call.headers)
            .body(call.body)
            .timeout(Duration::from_millis(call.timeout_ms))
            .send();
        let mut answer = sent.await.map_err(|error| failure(&error))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let mut body = BytesMut::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| failure(&error))? {
            if body.len() + chunk.len() > call.answer_bytes_max {
                return Err(OutboundError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Fetched { status, headers, body: Bytes::from(body) })
    }

    /// The URL, in the one reading that is compared, checked and connected to.
    fn permitted(&self, call: &Fetch) -> Result<Url, OutboundError> {
        let url =
            Url::parse(&call.url).map_err(|_| OutboundError::Invalid("the URL is malformed"))?;
        let listed = |origin: &str| Url::parse(origin).is_ok_and(|o| o.origin() == url.origin());
        let known = matches!(url.scheme(), "http" | "https");
        if !known || !call.origins.iter().any(|origin| listed(origin)) {
            return Err(OutboundError::Denied);
        }
        WebhookUrl::parse(url.as_str(), &self.allowed).map_err(|_| OutboundError::Denied)?;
        Ok(url)
    }
}

/// Why a text is no origin.
///
/// # Errors
/// What it should be.
pub fn check_origin(text: &str) -> Result<(), &'static str> {
    const WANT: &str = "must be https://HOST[:PORT], without a user, a path or a query";
    let url = Url::parse(text).map_err(|_| WANT)?;
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let nobody = url.username().is_empty() && url.password().is_none();
    let known = matches!(url.scheme(), "http" | "https") && url.host_str().is_some();
    if bare && nobody && known && !text.contains('@') { Ok(()) } else { Err(WANT) }
}

fn failure(error: &reqwest::Error) -> OutboundError {
    if notify::is_closed(error) {
        OutboundError::Denied
    } else if error.is_timeout() {
        OutboundError::Timeout
    } else if error.is_builder() {
        OutboundError::Invalid("it cannot be sent")
    } else {
        OutboundError::Connection
    }
}

/// Ends a task when nobody waits for it any more.
struct Ends(AbortHandle);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Outbound for Caller {
    fn fetch(&self, call: Fetch) -> BoxFuture<'static, Result<Fetched, OutboundError>> {
        let calls = self.calls.clone();
        let task = self.runtime.spawn(self.clone().made(call));
        let ends = Ends(task.abort_handle());
        Box::pin(async move {
            let made = task.await.unwrap_or(Err(OutboundError::Connection));
            drop(ends);
            let outcome = match &made {
                Ok(_) => "answered",
                Err(OutboundError::Denied) => "denied",
                Err(OutboundError::Invalid(_)) => "invalid",
                Err(OutboundError::Timeout) => "timeout",
                Err(OutboundError::Connection) => "connection",
                Err(OutboundError::TooLarge) => "too_large",
            };
            calls.with_label_values(&[outcome]).inc();
            made
        })
    }
}

#[cfg(test)]
mod tests;
