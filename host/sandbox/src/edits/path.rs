//! The path that a policy may put in place of a request's.
//!
//! A client's path is refused or normalised before policies see it. A policy's is checked
//! here, so that the policy hears of it, and normalised by the proxy like a client's
//! before it is forwarded. Invariant: a path accepted here has one reading in
//! every upstream.

use http::uri::PathAndQuery;

use super::Refusal;

/// Bytes of a path with its query. Equal to the client's request line.
const PATH_BYTES_MAX: usize = 8 << 10;

/// Parses an origin-form target.
pub(crate) fn parse_path(text: &str) -> Result<PathAndQuery, Refusal> {
    if text.len() > PATH_BYTES_MAX {
        return Err(Refusal::Size);
    }
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let segments = path.strip_prefix('/').ok_or(Refusal::Syntax)?;
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
    if !path.bytes().all(|byte| plain(byte) && byte != b'\\') || !query.bytes().all(plain) {
        return Err(Refusal::Syntax);
    }
    // An empty first segment is read as an authority by some, a dot segment by all, and one
    // with parameters by some.
    let is_dots = |segment: &str| matches!(segment.split(';').next(), Some("." | ".."));
    if segments.starts_with('/') || segments.split('/').any(is_dots) {
        return Err(Refusal::Syntax);
    }
    if !escapes_are_harmless(path) {
        return Err(Refusal::Syntax);
    }
    PathAndQuery::try_from(text).map_err(|_| Refusal::Syntax)
}

/// Whether every escape of a path is whole, hides no byte that would change what the path
/// means once decoded, and is part of valid UTF-8: in overlong forms a second decoder
/// finds a slash.
fn escapes_are_harmless(path: &str) -> bool {
    if !path.contains('%') {
        return true;
    }
    let mut decoded = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let (Some(high), Some(low)) = (hex(bytes.next()), hex(bytes.next())) else {
            return false;
        };
        let value = high << 4 | low;
        if matches!(value, b'.' | b'/' | b'\\') {
            return false;
        }
        decoded.push(value);
    }
    std::str::from_utf8(&decoded).is_ok_and(|text| !text.chars().any(char::is_control))
}

fn hex(digit: Option<u8>) -> Option<u8> {
    char::from(digit?).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_with_two_readings_are_refused() {
        for path in [
            "",
            "*",
            "a/b",
            "//evil/x",
            "/..",
            "/a/../b",
            "/a/./b",
            "/.",
            "/a/%2e%2e/b",
            "/a%2Fb",
            "/a%5cb",
            "/a%00b",
            "/a\\b",
            "/a b",
            "/a#b",
            "/a\r\n",
            "/a%",
            "/a%2",
            "/a%zz",
            "/é",
            "/a%0ab",
            "/%7f",
            "http://evil/",
            "/a/..;x/b",
            "/a/.;x/b",
            "/%c0%af",
            "/%ff",
            "/%c3",
            "/%c2%85",
        ] {
            assert_eq!(parse_path(path), Err(Refusal::Syntax), "{path:?}");
        }
        assert_eq!(parse_path(&format!("/{}", "a".repeat(9000))), Err(Refusal::Size));
    }

    #[test]
    fn ordinary_paths_pass_as_they_are() {
        for path in ["/", "/a/b", "/a//b", "/a/b/?q=1&r=%2F..%2f\\", "/%C3%A9", "/a...b", "/a;v=1"]
        {
            assert_eq!(parse_path(path).map(|path| path.to_string()), Ok(path.to_owned()));
        }
    }

    proptest! {
        #[test]
        fn an_accepted_path_is_kept_byte_for_byte(path in "/[!-~]{0,40}") {
            if let Ok(parsed) = parse_path(&path) {
                prop_assert_eq!(parsed.as_str(), &path);
            }
        }
    }
}
