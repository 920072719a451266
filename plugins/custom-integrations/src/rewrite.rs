//! Two ways to rewrite a path. The query stays as it is.
//!
//! Invariant: the result starts with one slash and holds only bytes that the path or the
//! configuration held; the edge checks it again.

use alloc::{borrow::Cow, string::String, vec::Vec};

use kit::{
    json::{Error, Json, Result},
    pattern::Pattern,
};

use crate::config::pair;

/// `/v1/legacy/x` to `/v2/x`.
#[derive(Debug)]
pub struct Prefix<'a> {
    from: Cow<'a, str>,
    to: Cow<'a, str>,
}

impl<'a> Prefix<'a> {
    pub(crate) fn read(json: &mut Json<'a>) -> Result<Self> {
        let (from, to) = pair(json, ("from", plain_path), ("to", plain_path))?;
        Ok(Self { from, to })
    }

    /// The new path, when the prefix is there as whole segments.
    #[must_use]
    pub fn apply(&self, path: &str) -> Option<String> {
        let from = self.from.trim_end_matches('/');
        let rest =
            path.strip_prefix(from).filter(|rest| rest.is_empty() || rest.starts_with('/'))?;
        let mut path = String::from(self.to.trim_end_matches('/'));
        path.push_str(rest);
        if path.is_empty() {
            path.push('/');
        }
        Some(path)
    }
}

/// `/u/*/files/**` to `/users/{1}/files/{2}`.
#[derive(Debug)]
pub struct Template<'a> {
    from: Pattern<'a>,
    to: Cow<'a, str>,
}

impl<'a> Template<'a> {
    pub(crate) fn read(json: &mut Json<'a>) -> Result<Self> {
        let (from, to) = pair(json, ("from", Pattern::read), ("to", plain_path))?;
        let template = Self { from, to };
        template.check().map_err(|error| error.inside(format_args!("to")))?;
        Ok(template)
    }

    /// Every `{n}` stands for a wildcard of `from`.
    fn check(&self) -> Result<()> {
        let wildcards = self.from.as_str().split('/').filter(|part| part.starts_with('*')).count();
        let known = |part: Part<'_>| match part {
            Part::Literal(text) => !text.contains(['{', '}']),
            Part::Capture(number) => (1..=wildcards).contains(&number),
        };
        if parts(&self.to).all(known) {
            Ok(())
        } else {
            Err(Error::new("'{n}' stands for the n-th wildcard of \"from\", counted from 1"))
        }
    }

    /// The new path, when the pattern matches.
    #[must_use]
    pub fn apply(&self, path: &str) -> Option<String> {
        let mut captured = Vec::new();
        if !self.from.captures(path, |part| captured.push(part)) {
            return None;
        }
        let mut path = String::new();
        for part in parts(&self.to) {
            path.push_str(match part {
                Part::Literal(text) => text,
                Part::Capture(number) => {
                    captured.get(number.wrapping_sub(1)).copied().unwrap_or_default()
                }
            });
        }
        Some(path)
    }
}

enum Part<'t> {
    Literal(&'t str),
    Capture(usize),
}

/// Takes `/a/{1}/b` apart. What looks like no capture stays text.
fn parts(template: &str) -> impl Iterator<Item = Part<'_>> {
    let mut rest = template;
    core::iter::from_fn(move || {
        if let Some((number, after)) = capture(rest) {
            rest = after;
            return Some(Part::Capture(number));
        }
        let end =
            rest.char_indices().skip(1).find(|(_, c)| *c == '{').map_or(rest.len(), |(at, _)| at);
        let (literal, after) = rest.split_at(end);
        rest = after;
        (!literal.is_empty()).then_some(Part::Literal(literal))
    })
}

fn capture(text: &str) -> Option<(usize, &str)> {
    let (number, rest) = text.strip_prefix('{')?.split_once('}')?;
    Some((number.parse().ok()?, rest))
}

fn plain_path<'a>(json: &mut Json<'a>) -> Result<Cow<'a, str>> {
    let path = json.string()?;
    let odd = |b: u8| b <= b' ' || b >= 0x7f || matches!(b, b'?' | b'#' | b'\\');
    let dots = |part: &str| part == "." || part == "..";
    if !path.starts_with('/') || path.starts_with("//") {
        return Err(Error::new("a path starts with one '/'"));
    }
    if path.bytes().any(odd) || path.split('/').any(dots) {
        return Err(Error::new("a path has no space, '?', '#', '.' or '..' segment"));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(from: &str, to: &str, path: &str) -> Option<String> {
        let text = format!(r#"{{"p":{{"from":"{from}","to":"{to}"}}}}"#);
        let mut got = None;
        Json::document(&text, |_, json| {
            got = Prefix::read(json)?.apply(path);
            Ok(())
        })
        .expect("a prefix");
        got
    }

    fn template(from: &str, to: &str, path: &str) -> Result<Option<String>> {
        let text = format!(r#"{{"p":{{"from":"{from}","to":"{to}"}}}}"#);
        let mut got = None;
        Json::document(&text, |_, json| {
            got = Template::read(json)?.apply(path);
            Ok(())
        })?;
        Ok(got)
    }

    #[test]
    fn a_prefix_is_replaced_as_whole_segments() {
        for (from, to, path, want) in [
            ("/v1", "/v2", "/v1/x", Some("/v2/x")),
            ("/v1", "/v2", "/v1", Some("/v2")),
            ("/v1", "/v2", "/v1x", None),
            ("/v1/", "/v2/", "/v1/x", Some("/v2/x")),
            ("/v1", "/", "/v1/x", Some("/x")),
            ("/v1", "/", "/v1", Some("/")),
            ("/", "/v2", "/x", Some("/v2/x")),
        ] {
            assert_eq!(prefix(from, to, path).as_deref(), want, "{from} {to} {path}");
        }
    }

    #[test]
    fn a_template_puts_captures_where_it_says() {
        for (from, to, path, want) in [
            ("/u/*/f/**", "/users/{1}/files/{2}", "/u/7/f/a/b", Some("/users/7/files/a/b")),
            ("/*/*", "/{2}-{1}{2}", "/a/b", Some("/b-ab")),
            ("/u/*", "/users/{1}", "/u/7/x", None),
        ] {
            assert_eq!(template(from, to, path).expect("a template").as_deref(), want);
        }
    }

    #[test]
    fn a_template_with_an_unknown_part_is_refused() {
        for to in ["/{0}", "/{2}", "/{id}", "/{", "/}"] {
            assert!(template("/*", to, "/a").is_err(), "{to}");
        }
        assert!(template("/*", "users", "/a").is_err());
        assert!(template("/*", "/../{1}", "/a").is_err());
    }
}
