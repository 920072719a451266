//! One form for every path.
//!
//! Called once per request, before anybody looks at the path, and on a path that a policy
//! wrote. Escapes that some servers read as a separator, a dot or a control byte are
//! refused; unreserved characters lose their escapes; dot segments are resolved.
//! Invariant: normalising twice changes nothing, and what passes names the same resource
//! to every server that follows RFC 3986.

use http::uri::PathAndQuery;

use crate::rescue::Flaw;

/// The normal form of a target in origin form.
///
/// # Errors
/// The path could be read in more than one way.
pub(crate) fn normalise(target: &PathAndQuery) -> Result<PathAndQuery, Flaw> {
    let text = target.as_str();
    if !text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(Flaw::Target);
    }
    let path = target.path();
    if !path.starts_with('/') {
        return Err(Flaw::Target);
    }
    // `http://host?query` has an empty path, which means the root.
    if is_normal(path) && text.starts_with('/') {
        return Ok(target.clone());
    }
    let plain = unescape(path)?;
    let mut resolved = resolve(&plain)?;
    if let Some(query) = target.query() {
        resolved.push('?');
        resolved.push_str(query);
    }
    PathAndQuery::try_from(resolved).map_err(|_| Flaw::Path)
}

/// Whether the path is surely in its normal form; most are.
fn is_normal(path: &str) -> bool {
    let mut after_slash = false;
    path.bytes().all(|byte| {
        let plain = match byte {
            b'.' => !after_slash,
            b'%' | b'\\' => false,
            _ => true,
        };
        after_slash = byte == b'/';
        plain
    })
}

/// Judges every escape; keeps those that are needed, with upper-case digits.
fn unescape(path: &str) -> Result<String, Flaw> {
    let mut out = String::with_capacity(path.len());
    // Bytes of the multi-byte character that the last escapes spelled.
    let mut wide = Vec::new();
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => return Err(Flaw::Path),
            b'%' => {
                let digit = |byte: Option<u8>| byte.and_then(|b| char::from(b).to_digit(16));
                let high = digit(bytes.next()).ok_or(Flaw::Path)?;
                let low = digit(bytes.next()).ok_or(Flaw::Path)?;
                let value = u8::try_from(high << 4 | low).map_err(|_| Flaw::Path)?;
                escaped(value, &mut out, &mut wide)?;
            }
            byte => {
                whole_characters(&mut wide)?;
                out.push(char::from(byte));
            }
        }
    }
    whole_characters(&mut wide)?;
    Ok(out)
}

fn escaped(value: u8, out: &mut String, wide: &mut Vec<u8>) -> Result<(), Flaw> {
    match value {
        b'/' | b'\\' | b'.' | 0..=0x1f | 0x7f => Err(Flaw::Path),
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => {
            whole_characters(wide)?;
            out.push(char::from(value));
            Ok(())
        }
        value => {
            if value < 0x80 {
                whole_characters(wide)?;
            } else {
                wide.push(value);
            }
            out.push('%');
            for digit in [value >> 4, value & 15] {
                let digit = char::from_digit(u32::from(digit), 16).unwrap_or('0');
                out.push(digit.to_ascii_uppercase());
            }
            Ok(())
        }
    }
}

/// Overlong and cut-off UTF-8 is where a second decoder finds a slash.
fn whole_characters(wide: &mut Vec<u8>) -> Result<(), Flaw> {
    let valid = std::str::from_utf8(wide).is_ok_and(|text| !text.chars().any(|c| c.is_control()));
    wide.clear();
    if valid { Ok(()) } else { Err(Flaw::Path) }
}

/// RFC 3986 5.2.4, but a path that climbs over its root is refused, and so is a dot
/// segment with parameters (`..;x`), which some servers resolve and others do not.
fn resolve(path: &str) -> Result<String, Flaw> {
    let mut kept: Vec<&str> = Vec::new();
    let mut trailing_slash = false;
    for segment in path.strip_prefix('/').unwrap_or(path).split('/') {
        trailing_slash = false;
        match segment {
            "." => trailing_slash = true,
            ".." => {
                kept.pop().ok_or(Flaw::Path)?;
                trailing_slash = true;
            }
            segment if matches!(segment.split(';').next(), Some("." | "..")) => {
                return Err(Flaw::Path);
            }
            segment => kept.push(segment),
        }
    }
    if trailing_slash {
        kept.push("");
    }
    Ok(format!("/{}", kept.join("/")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normal(text: &str) -> Result<String, Flaw> {
        let target = PathAndQuery::try_from(text).map_err(|_| Flaw::Target)?;
        normalise(&target).map(|path| path.as_str().to_owned())
    }

    #[test]
    fn each_path_has_one_form() {
        for (path, want) in [
            ("/", "/"),
            ("/a//b", "/a//b"),
            ("/a/./b", "/a/b"),
            ("/a/../b?x=/../y", "/b?x=/../y"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/a/b;x=y", "/a/b;x=y"),
            ("/%41%2d%7e", "/A-~"),
            ("/a%20b%c3%a9", "/a%20b%C3%A9"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a...b/..c", "/a...b/..c"),
            ("/%25", "/%25"),
            ("/a?%2e%2e%2f", "/a?%2e%2e%2f"),
            ("?a=b", "/?a=b"),
        ] {
            assert_eq!(normal(path).as_deref(), Ok(want), "{path}");
        }
    }

    #[test]
    fn ambiguous_paths_are_refused() {
        for path in [
            "/%2e%2e/x",
            "/%2E/x",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/a%00",
            "/a%0d%0ab",
            "/%7f",
            "/%c0%af",
            "/%e0%80%af",
            "/%ff",
            "/%c3",
            "/%c3x",
            "/%c2%85",
            "/%",
            "/%4",
            "/%zz",
            "/..",
            "/../x",
            "/a/../../b",
            "/a/..;/b",
            "/a/.;x/b",
            "/\u{e9}",
            "*",
        ] {
            assert!(normal(path).is_err(), "{path}");
        }
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(
            path in "(/([a-z.;%]|\\.\\.|%2[05]|%4[1f]|%c3%a9|/){0,6}){1,4}(\\?[a-z%/.]{0,5})?",
        ) {
            if let Ok(once) = normal(&path) {
                prop_assert_eq!(normal(&once), Ok(once.clone()));
                let path = once.split('?').next().unwrap_or_default();
                prop_assert!(!path.split('/').any(|segment| matches!(segment, "." | "..")));
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,40}") {
            let _ = normal(&text);
        }
    }
}
