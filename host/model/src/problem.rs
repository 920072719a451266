//! RFC 9457 problem details: the body of every refusal, on the edge and on the API.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

/// Where our own problem types live; the code follows.
pub const TYPE_BASE: &str = "https://leanvibe.ai/problems/";
/// IANA's type for an exhausted quota.
pub const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";
/// IANA's type for a passing lack of capacity.
pub const TEMPORARY_REDUCED_CAPACITY: &str =
    "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";
/// Media type of the body.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// One bad field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// Name of the field: a JSON path, a query parameter or a header.
    pub field: String,
    /// What is wrong and how to fix it.
    pub detail: String,
}

/// A problem.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Problem {
    /// Stable type.
    #[serde(rename = "type", serialize_with = "full_type")]
    pub kind: &'static str,
    /// Short text, the same for every occurrence.
    pub title: &'static str,
    /// HTTP status.
    pub status: u16,
    /// Stable short code; the last part of our own types.
    pub code: &'static str,
    /// What happened here, for a person. Never internal.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Every bad field.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// Members of this type alone (`retry_after`, `upgrade_options`, …).
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

fn full_type<S: Serializer>(kind: &str, out: S) -> Result<S::Ok, S::Error> {
    if kind.starts_with("https://") {
        out.serialize_str(kind)
    } else {
        out.collect_str(&format_args!("{TYPE_BASE}{kind}"))
    }
}

impl Problem {
    /// A problem of one of our own types.
    #[must_use]
    pub fn new(status: u16, code: &'static str, title: &'static str) -> Self {
        Self {
            kind: code,
            title,
            status,
            code,
            detail: String::new(),
            errors: Vec::new(),
            extra: Map::new(),
        }
    }

    /// The same with another type URI.
    #[must_use]
    pub fn of_type(mut self, kind: &'static str) -> Self {
        self.kind = kind;
        self
    }

    /// The same with a detail.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// The same with a member.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.extra.insert(name.to_owned(), value.into());
        self
    }

    /// The body.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_else(|_| b"{}".to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_is_a_uri_and_members_are_flat() {
        let problem = Problem::new(404, "not-found", "Not found").with("retry_after", 3);
        let json: Value = serde_json::from_slice(&problem.to_json()).expect("JSON");
        assert_eq!(json["type"], "https://leanvibe.ai/problems/not-found");
        assert_eq!(json["retry_after"], 3);
        assert!(json.get("errors").is_none());
    }
}
