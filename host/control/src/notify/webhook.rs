//! Webhooks after the Standard Webhooks specification: one signed POST, one answer.
//!
//! Names are resolved and checked for every connection, literal addresses before it;
//! proxies of the environment and redirects are not followed. Invariant: no connection is
//! made to an address that [`AllowedNetworks`] does not permit, and none without TLS to one
//! that the operator did not open.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use model::{clock::UnixMs, secret::Secret};
use reqwest::{
    Client, Response, StatusCode, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    header::{CONTENT_TYPE, USER_AGENT},
    redirect::Policy,
};
use sha2::Sha256;
use uuid::Uuid;

use super::{AllowedNetworks, Failure, cause};

/// How long a receiver may take from the first packet to its whole answer, in ms: it should
/// queue, not work.
const TIMEOUT_MS: u64 = 10_000;
/// Bytes that are read of the answer to a refused call: what a reason needs.
const ANSWER_BYTES_MAX: usize = 1_024;
/// Longest URL, in bytes: what every server and log can hold.
const URL_BYTES_MAX: usize = 2_048;
/// What a secret's text starts with.
pub(crate) const SECRET_PREFIX: &str = "whsec_";

/// A URL that a webhook may be called at, as far as its text tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookUrl(Url);

/// Why a text is no URL of a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookUrlError {
    /// Not a URL, or one of another scheme.
    #[error("must be an https:// URL of at most {URL_BYTES_MAX} bytes")]
    Malformed,
    /// It has a user, a password or a fragment.
    #[error("may hold neither a user, nor a password, nor a fragment")]
    Parts,
    /// Not encrypted.
    #[error("must be https://; http:// is for networks that the operator allows")]
    Plain,
    /// A literal address that is not public.
    #[error("names an address that webhooks may not reach")]
    Closed,
}

impl WebhookUrl {
    /// Reads a URL. Names are checked when they are resolved, with every call.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str, allowed: &AllowedNetworks) -> Result<Self, WebhookUrlError> {
        let url = Url::parse(text).map_err(|_| WebhookUrlError::Malformed)?;
        let known = matches!(url.scheme(), "https" | "http") && url.host_str().is_some();
        // Its canonical form is what is kept; that may be longer.
        if url.as_str().len() > URL_BYTES_MAX || !known {
            return Err(WebhookUrlError::Malformed);
        }
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err(WebhookUrlError::Parts);
        }
        let plain = url.scheme() == "http";
        match literal(&url) {
            Some(address) if plain && !allowed.opens(address) => Err(WebhookUrlError::Plain),
            Some(address) if !allowed.permits(address) => Err(WebhookUrlError::Closed),
            None if plain && allowed.is_empty() => Err(WebhookUrlError::Plain),
            _ => Ok(Self(url)),
        }
    }

    /// The URL in its canonical spelling.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// The address in a URL that has one in place of a name.
fn literal(url: &Url) -> Option<IpAddr> {
    let host = url.host_str()?;
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// One call of a webhook.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) url: &'a str,
    /// The event's id: the same whenever the event is sent again.
    pub(crate) event: Uuid,
    /// When it is sent.
    pub(crate) at: UnixMs,
    pub(crate) body: &'a str,
    /// Every secret that the receiver may know by now.
    pub(crate) secrets: &'a [Secret],
}

/// Calls webhooks.
#[derive(Clone, Debug)]
pub(crate) struct Webhooks {
    allowed: Arc<AllowedNetworks>,
    /// For `https`, to any permitted address.
    encrypted: Result<Client, String>,
    /// For `http`, to addresses that the operator opened.
    plain: Result<Client, String>,
}

impl Webhooks {
    pub(crate) fn new(allowed: AllowedNetworks) -> Self {
        let allowed = Arc::new(allowed);
        let client = |plain| guarded(&allowed, plain).map_err(|error| cause(&error));
        Self { encrypted: client(false), plain: client(true), allowed: Arc::clone(&allowed) }
    }

    /// Calls a webhook; done when it answers with success.
    pub(crate) async fn send(&self, call: Call<'_>) -> Result<(), Failure> {
        let url = WebhookUrl::parse(call.url, &self.allowed)
            .map_err(|error| Failure::lasting(format!("the URL {error}")))?;
        let client = if url.0.scheme() == "http" { &self.plain } else { &self.encrypted };
        let client = client.as_ref().map_err(Failure::again)?;
        let signature = signatures(&call)
            .ok_or_else(|| Failure::lasting("there is no readable secret to sign with"))?;
        let answer = client
            .post(url.0)
            .header(USER_AGENT, concat!("leanvibe-edge/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", call.event.to_string())
            .header("webhook-timestamp", seconds(call.at).to_string())
            .header("webhook-signature", signature)
            .body(call.body.to_owned())
            .send()
            .await
            .map_err(|error| unanswered(&error))?;
        judge(answer).await
    }
}

fn seconds(at: UnixMs) -> u64 {
    at.0 / 1_000
}

/// `v1,` and a signature by each secret, apart by spaces; `None` without a readable secret.
fn signatures(call: &Call<'_>) -> Option<String> {
    let signed = |secret: &Secret| {
        let key = STANDARD.decode(secret.expose().strip_prefix(SECRET_PREFIX)?).ok()?;
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
        mac.update(format!("{}.{}.{}", call.event, seconds(call.at), call.body).as_bytes());
        Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
    };
    let signatures: Vec<_> = call.secrets.iter().filter_map(signed).collect();
    (!signatures.is_empty()).then(|| signatures.join(" "))
}

/// A client that connects to nothing that `allowed` does not permit and follows no redirect;
/// `plain` is for URLs without TLS. Literal addresses are [`WebhookUrl::parse`]'s.
///
/// # Errors
/// TLS cannot be set up.
pub fn guarded(allowed: &Arc<AllowedNetworks>, plain: bool) -> reqwest::Result<Client> {
    let resolver = Arc::new(Checked { allowed: Arc::clone(allowed), plain });
    Client::builder()
        .dns_resolver(resolver)
        .redirect(Policy::none())
        .no_proxy()
        .timeout(Duration::from_millis(TIMEOUT_MS))
        // A kept connection would outlive what its address was checked against.
        .pool_max_idle_per_host(0)
        .build()
}

/// What an answer means.
async fn judge(answer: Response) -> Result<(), Failure> {
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    if status == StatusCode::GONE {
        return Err(Failure::stop("answered 410 Gone: nothing is sent there any more"));
    }
    if status.is_redirection() {
        return Err(Failure::again(format!("answered {status}; redirects are not followed")));
    }
    let said = beginning(answer).await;
    let colon = if said.is_empty() { "" } else { ": " };
    Err(Failure::again(format!("answered {status}{colon}{said}")))
}

/// The beginning of an answer's body, for the reason.
async fn beginning(mut answer: Response) -> String {
    let mut bytes = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        let room = ANSWER_BYTES_MAX - bytes.len();
        bytes.extend(chunk.iter().take(room));
        if bytes.len() == ANSWER_BYTES_MAX {
            break;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn unanswered(error: &reqwest::Error) -> Failure {
    if error.is_timeout() {
        return Failure::again(format!("gave no answer within {} s", TIMEOUT_MS / 1_000));
    }
    match closed(error) {
        Some(closed) => Failure::lasting(closed.to_string()),
        None => Failure::again(cause(error)),
    }
}

/// Whether a call of a [`guarded`] client failed because its name leads to an address that may
/// not be reached.
#[must_use]
pub fn is_closed(error: &reqwest::Error) -> bool {
    closed(error).is_some()
}

fn closed(error: &reqwest::Error) -> Option<&Closed> {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(closed) = error.downcast_ref::<Closed>() {
            return Some(closed);
        }
        source = error.source();
    }
    None
}

/// A name that leads only to addresses that a webhook may not reach.
#[derive(Debug, thiserror::Error)]
enum Closed {
    #[error("the host's name leads to an address that webhooks may not reach")]
    Private,
    #[error("the host is not in a network that the operator allows, so it must be https://")]
    Plain,
}

/// Resolves names to permitted addresses.
#[derive(Debug)]
struct Checked {
    allowed: Arc<AllowedNetworks>,
    plain: bool,
}

impl Checked {
    /// The addresses that may be connected to. One that may not spoils all of them: a name
    /// with a private address beside a public one is a trick or a mistake.
    fn permitted(&self, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Closed> {
        let all = |permits: &dyn Fn(IpAddr) -> bool| found.iter().all(|at| permits(at.ip()));
        if self.plain && !all(&|address| self.allowed.opens(address)) {
            return Err(Closed::Plain);
        }
        if !all(&|address| self.allowed.permits(address)) {
            return Err(Closed::Private);
        }
        Ok(found)
    }
}

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let checked = Self { allowed: Arc::clone(&self.allowed), plain: self.plain };
        Box::pin(async move {
            // The port is the URL's, put in later.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let permitted = checked.permitted(found)?;
            Ok(Box::new(permitted.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests;
