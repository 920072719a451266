//! What a policy may write: the rules for clients, through [`model::headers`].
//!
//! Invariant: no check here is weaker than the one a client's message passes.

use http::{HeaderName, HeaderValue, StatusCode};
use model::headers::{is_host_owned, is_stripped_from_client};

/// Why an edit is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// No valid name, value, path or status.
    #[error("is not valid")]
    Syntax,
    /// The edge owns it.
    #[error("belongs to the host")]
    Forbidden,
    /// Over the bounds of a message.
    #[error("is too large")]
    Size,
}

/// A field name that a policy may write, in lower case.
pub(crate) fn checked_name(name: &str) -> Result<HeaderName, Refusal> {
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Refusal::Syntax)?;
    // Names with `_` are read by some servers as their twins with `-`.
    if is_host_owned(name.as_str()) || is_stripped_from_client(name.as_str()) {
        return Err(Refusal::Forbidden);
    }
    Ok(name)
}

/// A field value without control bytes and without the white space that a parser would
/// take off its ends.
pub(crate) fn checked_value(value: &[u8]) -> Result<HeaderValue, Refusal> {
    let padded = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if padded(value.first()) || padded(value.last()) {
        return Err(Refusal::Syntax);
    }
    HeaderValue::from_bytes(value).map_err(|_| Refusal::Syntax)
}

/// A final status: 200–599.
pub(crate) fn checked_status(status: u16) -> Result<StatusCode, Refusal> {
    match status {
        200..=599 => StatusCode::from_u16(status).map_err(|_| Refusal::Syntax),
        _ => Err(Refusal::Syntax),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_may_not_send_a_policy_may_not_write() {
        for name in ["", "a b", "a:", ":path", "x\r\ny", "x\0", "é"] {
            assert_eq!(checked_name(name), Err(Refusal::Syntax), "{name:?}");
        }
        for name in [
            "Host",
            "content-length",
            "Transfer-Encoding",
            "connection",
            "te",
            "X-Tenant-Id",
            "x-tenant-anything",
            "x_tenant_id",
            "X-Forwarded-For",
            "via",
            "traceparent",
            "RateLimit",
            "date",
        ] {
            assert_eq!(checked_name(name), Err(Refusal::Forbidden), "{name:?}");
        }
        assert_eq!(checked_name("X-Mine").map(|name| name.to_string()), Ok("x-mine".into()));
    }

    #[test]
    fn values_have_one_reading() {
        for value in ["a\r\nb: c", "a\nb", "a\rb", "a\0b", "\x7f", " a", "a\t"] {
            assert_eq!(checked_value(value.as_bytes()), Err(Refusal::Syntax), "{value:?}");
        }
        for value in ["", "a", "a b", "a\tb", "\u{e9}"] {
            assert!(checked_value(value.as_bytes()).is_ok(), "{value:?}");
        }
    }

    #[test]
    fn only_final_statuses_pass() {
        for status in [0, 99, 100, 101, 199, 600, 999, 1000, u16::MAX] {
            assert_eq!(checked_status(status), Err(Refusal::Syntax), "{status}");
        }
        assert!(checked_status(200).is_ok() && checked_status(599).is_ok());
    }
}
