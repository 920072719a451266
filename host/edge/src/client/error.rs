//! What can go wrong with a call, in words that say what to do.
//!
//! Invariant: text of the server is shown without its control characters, so that no name
//! of a tenant moves the cursor of an operator's terminal.

use std::{error::Error, fmt::Write as _};

use serde_json::Value;

/// Why a call gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The command itself cannot be done as it was given.
    #[error("{0}")]
    Usage(String),
    /// HTTPS cannot be spoken here.
    #[error("HTTPS cannot be used: {0}\n  is the package ca-certificates installed?")]
    Tls(String),
    /// No connection.
    #[error(
        "cannot reach {server}: {reason}\n  is it running? `leanvibe-edge serve` starts it; \
        --server or LEANVIBE_EDGE_SERVER says where it is"
    )]
    Unreachable {
        /// Scheme, host and port.
        server: String,
        /// The system's words.
        reason: String,
    },
    /// The connection ended before the answer did.
    #[error("{server} broke off: {reason}{}", unknown_outcome(*.unknown))]
    Broken {
        /// Scheme, host and port.
        server: String,
        /// What happened to the connection.
        reason: String,
        /// Whether the server may have done what was asked.
        unknown: bool,
    },
    /// No answer in time.
    #[error("{server} did not answer in time{}", unknown_outcome(*.unknown))]
    Slow {
        /// Scheme, host and port.
        server: String,
        /// Whether the server may have done what was asked.
        unknown: bool,
    },
    /// The server refused.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// Something answered that is not the control API.
    #[error(
        "the answer ({status}) is not the control API's\n  does --server name the control API? \
        It listens on control.listen, by default http://127.0.0.1:9080"
    )]
    NotTheApi {
        /// HTTP status.
        status: u16,
    },
    /// No tenant of this slug.
    #[error("there is no tenant of the slug {0:?}\n  `leanvibe-edge tenant list --all` shows them")]
    NoSuchSlug(String),
    /// The API answered with something that this release does not understand.
    #[error("the server's answer has no readable {0:?}\n  is the server of the same release?")]
    Unreadable(&'static str),
}

fn unknown_outcome(unknown: bool) -> &'static str {
    if unknown { "\n  it may have been done all the same: look before you repeat it" } else { "" }
}

impl ClientError {
    /// The stable code of a refusal.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused(problem) => Some(&problem.code),
            _ => None,
        }
    }
}

/// A refusal: RFC 9457, as far as a person needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problem {
    status: u16,
    code: String,
    title: String,
    detail: String,
    /// Field and what is wrong with it.
    errors: Vec<(String, String)>,
    alternatives: Vec<String>,
    retry_after_s: Option<u64>,
    /// What a plugin that is refused said.
    log: Vec<String>,
}

impl Problem {
    /// The HTTP status.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.status
    }

    pub(super) fn read(status: u16, json: &Value) -> Self {
        let text = |from: &Value, name: &str| plain(from[name].as_str().unwrap_or_default());
        let list = |name: &str| json[name].as_array().map(Vec::as_slice).unwrap_or_default();
        Self {
            status,
            code: text(json, "code"),
            title: text(json, "title"),
            detail: text(json, "detail"),
            errors: list("errors")
                .iter()
                .map(|error| (text(error, "field"), text(error, "detail")))
                .collect(),
            alternatives: list("alternatives")
                .iter()
                .filter_map(Value::as_str)
                .map(plain)
                .collect(),
            retry_after_s: json["retry_after"].as_u64(),
            log: list("log").iter().filter_map(Value::as_str).map(plain).collect(),
        }
    }

    /// What a person may do about it, where the words of the server do not say.
    fn hint(&self) -> Option<String> {
        Some(match (self.status, self.code.as_str()) {
            (401, _) => "the server does not take this token: check LEANVIBE_EDGE_TOKEN or \
                --token-file, or have a new one issued (`leanvibe-edge token issue`)"
                .into(),
            (403, "forbidden") => "the token's role and scopes do not reach this".into(),
            (412, _) => "someone changed it meanwhile: look at it, then repeat the command".into(),
            (429 | 503, _) => match self.retry_after_s {
                Some(seconds) => format!("try again in {seconds} s"),
                None => "try again in a while".into(),
            },
            _ => return None,
        })
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.title)?;
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        for (field, detail) in &self.errors {
            write!(f, "\n  {field}: {detail}")?;
        }
        for alternative in &self.alternatives {
            write!(f, "\n  instead: {alternative}")?;
        }
        for line in &self.log {
            write!(f, "\n  log: {line}")?;
        }
        self.hint().map_or(Ok(()), |hint| write!(f, "\n  {hint}"))
    }
}

/// Text without control characters: they are written out.
#[must_use]
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            // Writing to a String cannot fail.
            let _infallible = write!(plain, "{}", c.escape_default());
        } else {
            plain.push(c);
        }
    }
    plain
}

/// The deepest cause of an error, which is the one that says something; reqwest's own text
/// would repeat the URL.
pub(super) fn causes(error: &reqwest::Error) -> String {
    let mut deepest: &dyn Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    plain(&deepest.to_string())
}
