//! Path patterns as in `routes.toml`: `*` is one segment, a trailing `**` any number.
//!
//! Called per request on the path as the edge normalised it. Invariant: a pattern
//! matches whole segments only, so `/v1/ai/**` never matches `/v1/aim`.

use alloc::borrow::Cow;

use crate::json::{Error, Json, Result};

/// A pattern that has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern<'a> {
    text: Cow<'a, str>,
}

impl<'a> Pattern<'a> {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(json: &mut Json<'a>) -> Result<Self> {
        let text = json.string()?;
        check(&text)?;
        Ok(Self { text })
    }

    /// Whether a path (without query) matches.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        self.captures(path, |_| {})
    }

    /// Like [`Pattern::matches`], and hands out what each `*` matched, then what `**` did.
    pub fn captures<'p>(&self, path: &'p str, mut capture: impl FnMut(&'p str)) -> bool {
        let mut rest = Some(path.strip_prefix('/').unwrap_or(path));
        for want in self.text.split('/').skip(1) {
            if want == "**" {
                capture(rest.unwrap_or_default());
                return true;
            }
            let Some(left) = rest else { return false };
            let (segment, after) = match left.split_once('/') {
                Some((segment, after)) => (segment, Some(after)),
                None => (left, None),
            };
            rest = after;
            match want {
                "*" if segment.is_empty() => return false,
                "*" => capture(segment),
                want if want != segment => return false,
                _ => {}
            }
        }
        rest.is_none()
    }

    /// The pattern as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

fn check(text: &str) -> Result<()> {
    let Some(body) = text.strip_prefix('/') else {
        return Err(Error::new("a path starts with '/'"));
    };
    let (inside, last) = body.rsplit_once('/').unwrap_or(("", body));
    if inside.split('/').any(|segment| segment == "**") {
        return Err(Error::new("'**' may stand only at the end"));
    }
    let partial = |segment: &str| segment.contains('*') && segment != "*" && segment != "**";
    if inside.split('/').chain([last]).any(partial) {
        return Err(Error::new("'*' must be a whole segment"));
    }
    let odd = |b: u8| b <= b' ' || b >= 0x7f || matches!(b, b'?' | b'#');
    if text.bytes().any(odd) {
        return Err(Error::new("a path has no space, '?', '#' or unescaped character"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Result<Pattern<'static>> {
        let mut got = None;
        Json::document(&format!("{{\"p\":{text:?}}}"), |_, json| {
            let pattern = Pattern::read(json)?;
            got = Some(Pattern { text: pattern.text.into_owned().into() });
            Ok(())
        })?;
        got.ok_or_else(|| Error::new("nothing was read"))
    }

    #[test]
    fn patterns_match_by_segment() {
        for (text, path, want) in [
            ("/**", "/", true),
            ("/**", "/a/b", true),
            ("/v1/ai/**", "/v1/ai", true),
            ("/v1/ai/**", "/v1/ai/", true),
            ("/v1/ai/**", "/v1/ai/chat", true),
            ("/v1/ai/**", "/v1/aim", false),
            ("/v1/*/files", "/v1/p1/files", true),
            ("/v1/*/files", "/v1//files", false),
            ("/v1/*/files", "/v1/p1/files/x", false),
            ("/a", "/a/", false),
            ("/", "/", true),
        ] {
            assert_eq!(pattern(text).expect(text).matches(path), want, "{text} on {path}");
        }
    }

    #[test]
    fn captures_come_in_order() {
        let mut got = Vec::new();
        assert!(pattern("/u/*/f/**").expect("a pattern").captures("/u/7/f/a/b", |c| got.push(c)));
        assert_eq!(got, ["7", "a/b"]);
    }

    #[test]
    fn broken_patterns_say_why() {
        for (text, want) in [
            ("v1", "p: a path starts with '/'"),
            ("/a/**/b", "p: '**' may stand only at the end"),
            ("/a*", "p: '*' must be a whole segment"),
            ("/a?b", "p: a path has no space, '?', '#' or unescaped character"),
        ] {
            assert_eq!(pattern(text).expect_err(text).to_string(), want);
        }
    }
}
