//! One GET of a key set.
//!
//! Called by the fetching thread only. Invariant: goes nowhere but to the configured URL
//! (no redirect, no proxy of the environment), and reads a bounded answer in bounded time.

use std::{net::IpAddr, time::Duration};

pub(super) use reqwest::Url;
use reqwest::{Client, StatusCode, redirect::Policy};

/// Milliseconds for the whole exchange (5,000): half of the interval between two.
const TIMEOUT_MS: u64 = 5_000;
/// Bytes of a document (65,536): 32 keys with certificate chains fit.
const BYTES_MAX: usize = 65_536;

/// Why there is no document. The label of metrics is in [`FetchError::label`].
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("{}", chain(.0))]
    Transport(#[from] reqwest::Error),
    #[error("the issuer answers {0}")]
    Status(StatusCode),
    #[error("the document is larger than {BYTES_MAX} bytes")]
    TooLarge,
}

impl FetchError {
    pub(super) const fn label(&self) -> &'static str {
        match self {
            Self::Transport(_) => "unreachable",
            Self::Status(_) => "status",
            Self::TooLarge => "too-large",
        }
    }
}

/// reqwest's own text ends before the cause.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// A URL that keys may come from: https, or http to this machine.
pub(super) fn checked(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("jwks_url: {error}"))?;
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err("jwks_url: may hold no user, password or fragment".to_owned());
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        _ => Err("jwks_url: must be https (http only to localhost)".to_owned()),
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// The client of all issuers.
pub(super) fn client() -> Result<Client, String> {
    let client = Client::builder()
        .timeout(Duration::from_millis(TIMEOUT_MS))
        .redirect(Policy::none())
        .no_proxy()
        .user_agent("leanvibe-edge")
        .build();
    // Without certificates of the system, for example.
    client.map_err(|error| format!("no client for key sets: {}", chain(&error)))
}

/// The document behind a URL.
pub(super) async fn document(client: &Client, url: &Url) -> Result<Vec<u8>, FetchError> {
    let mut answer = client.get(url.clone()).header("accept", "application/json").send().await?;
    if answer.status() != StatusCode::OK {
        return Err(FetchError::Status(answer.status()));
    }
    let mut document = Vec::new();
    while let Some(piece) = answer.chunk().await? {
        if document.len() + piece.len() > BYTES_MAX {
            return Err(FetchError::TooLarge);
        }
        document.extend_from_slice(&piece);
    }
    Ok(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clear_text_stays_on_this_machine() {
        for good in [
            "https://id.example/keys",
            "http://127.0.0.1:9/keys",
            "http://127.9.9.9/",
            "http://[::1]:9/keys",
            "http://localhost:9/keys",
        ] {
            assert!(checked(good).is_ok(), "{good}");
        }
        for bad in [
            "http://id.example/keys",
            "http://localhost.example/keys",
            "http://10.0.0.1/keys",
            "ftp://127.0.0.1/keys",
            "file:///etc/passwd",
            "https://user:pw@id.example/keys",
            "https://id.example/keys#x",
            "keys.json",
            "",
        ] {
            assert!(checked(bad).is_err(), "{bad}");
        }
    }
}
