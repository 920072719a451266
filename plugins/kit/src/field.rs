//! Header names in a config: checked when it is read, not by the first request.
//!
//! Called in `configure`. Invariant: the host decides what may be written; this list only
//! tells an author early, and a name missing here is still refused by the host.

use alloc::borrow::Cow;

use crate::json::{Error, Json, Result};

/// Bytes of a header name. 64: longer than any in use, far below the host's own limit.
const NAME_BYTES_MAX: usize = 64;

/// Fields that the host owns beside the prefixes below: one hop's, framing, identity.
const HOST_OWNED: [&str; 21] = [
    "connection",
    "content-length",
    "date",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "traceparent",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-forwarded-for",
    "x-real-ip",
    "x-request-id",
    "x-forwarded-proto",
];
const HOST_OWNED_PREFIXES: [&str; 3] = ["x-tenant-", "x-forwarded-", "ratelimit"];

/// Reads a header name, lower case.
///
/// # Errors
/// When it is no field name.
pub fn name<'a>(json: &mut Json<'a>) -> Result<Cow<'a, str>> {
    let mut name = json.string()?;
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        name.to_mut().make_ascii_lowercase();
    }
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(token) {
        return Err(Error::new("is not a header name"));
    }
    Ok(name)
}

/// Reads the name of a header that a policy may write.
///
/// # Errors
/// When it is no field name, or the host's own.
pub fn writable_name<'a>(json: &mut Json<'a>) -> Result<Cow<'a, str>> {
    let name = name(json)?;
    let owned = HOST_OWNED.contains(&&*name)
        || HOST_OWNED_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    if owned { Err(Error::new("is a header of the edge's own")) } else { Ok(name) }
}

/// Reads a header value.
///
/// # Errors
/// When it holds a control character or has space around it.
pub fn value<'a>(json: &mut Json<'a>) -> Result<Cow<'a, str>> {
    let value = json.string()?;
    let control = value.bytes().any(|b| (b < b' ' && b != b'\t') || b == 0x7f);
    if control || value.trim_matches([' ', '\t']) != value {
        return Err(Error::new("is not a header value"));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, read: fn(&mut Json<'_>) -> Result<()>) -> Result<()> {
        Json::document(&format!("{{\"a\":{text:?}}}"), |_, json| read(json))
    }

    #[test]
    fn names_are_checked_and_lower_cased() {
        for bad in ["", "a b", "a:b", "é", &"x".repeat(65)] {
            assert!(read(bad, |json| name(json).map(|_| ())).is_err(), "{bad}");
        }
        let mut got = String::new();
        Json::document(r#"{"a":"X-Api-Key"}"#, |_, json| {
            got = name(json)?.into_owned();
            Ok(())
        })
        .expect("a name");
        assert_eq!(got, "x-api-key");
    }

    #[test]
    fn the_edges_own_headers_are_refused() {
        for owned in
            ["Host", "x-tenant-id", "X-Forwarded-Host", "content-length", "ratelimit-policy"]
        {
            assert!(read(owned, |json| writable_name(json).map(|_| ())).is_err(), "{owned}");
        }
        assert!(read("x-source", |json| writable_name(json).map(|_| ())).is_ok());
    }

    #[test]
    fn values_with_line_breaks_are_refused() {
        for bad in ["a\nb", "a\rb", " a", "a ", "\u{0}"] {
            assert!(read(bad, |json| value(json).map(|_| ())).is_err(), "{bad:?}");
        }
        assert!(read("a b", |json| value(json).map(|_| ())).is_ok());
    }
}
