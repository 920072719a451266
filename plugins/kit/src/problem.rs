//! RFC 9457 problem details: the body of a policy's refusal.
//!
//! Called when a request is refused. Invariant: the same members in the same order as
//! the edge's own problems (`type`, `title`, `status`, `code`, `detail`), and texts from
//! the request never break the JSON.

use alloc::string::String;
use core::fmt::Write;

/// Where the problem types live; the code follows.
const TYPE_BASE: &str = "https://leanvibe.ai/problems/";
/// The headers of a refusal. Not stored: another plan or config is another answer.
pub const HEADERS: [(&str, &str); 2] =
    [("content-type", "application/problem+json"), ("cache-control", "no-store")];

/// A problem being written.
#[derive(Debug)]
pub struct Problem {
    /// Its HTTP status.
    pub status: u16,
    json: String,
}

impl Problem {
    /// A problem of the type `code`.
    #[must_use]
    pub fn new(status: u16, code: &str, title: &str, detail: &str) -> Self {
        let json = String::from("{");
        let problem = Self { status, json }.text("type", &[TYPE_BASE, code].concat());
        let mut problem = problem.text("title", title);
        problem.name("status");
        // Writing to a String can't fail.
        let _ = write!(problem.json, "{status}");
        problem.text("code", code).text("detail", detail)
    }

    /// The same with a text member.
    #[must_use]
    pub fn text(mut self, name: &str, value: &str) -> Self {
        self.name(name);
        quote(&mut self.json, value);
        self
    }

    /// The same with a member that is a list of texts.
    #[must_use]
    pub fn list<'a>(mut self, name: &str, values: impl Iterator<Item = &'a str>) -> Self {
        self.name(name);
        self.json.push('[');
        for (at, value) in values.enumerate() {
            if at > 0 {
                self.json.push(',');
            }
            quote(&mut self.json, value);
        }
        self.json.push(']');
        self
    }

    /// The body.
    #[must_use]
    pub fn into_body(mut self) -> String {
        self.json.push('}');
        self.json
    }

    fn name(&mut self, name: &str) {
        if self.json.len() > 1 {
            self.json.push(',');
        }
        quote(&mut self.json, name);
        self.json.push(':');
    }
}

fn quote(json: &mut String, text: &str) {
    json.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            '\0'..='\x1f' => {
                // Writing to a String can't fail.
                let _ = write!(json, "\\u{:04x}", u32::from(c));
            }
            c => json.push(c),
        }
    }
    json.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_the_members_of_the_edges_own() {
        let problem = Problem::new(403, "not-so", "Not so", "because").text("feature", "f");
        let body = problem.list("regions", ["a", "b"].into_iter()).into_body();
        assert_eq!(
            body,
            r#"{"type":"https://leanvibe.ai/problems/not-so","title":"Not so","status":403,"code":"not-so","detail":"because","feature":"f","regions":["a","b"]}"#
        );
    }

    #[test]
    fn texts_of_the_request_are_escaped() {
        let body = Problem::new(403, "c", "t", "a\"b\\c\nd").into_body();
        assert!(body.ends_with(r#""detail":"a\"b\\c\u000ad"}"#), "{body}");
    }
}
