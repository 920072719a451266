//! Route classes: which requests count as what.
//!
//! Declared in `policies/routes.toml`, matched on every request in declared order, first
//! match wins. Patterns are matched on the normalised path, segment by segment: `*` is
//! one segment, a trailing `**` is any number of them.

use std::sync::Arc;

use http::Method;
use serde::{Deserialize, Serialize};

use crate::{
    level::MeterRule,
    quota::{Metric, MetricSet},
    reservation::Reserves,
    sessions::SessionRule,
};

/// What a request on a route counts as, beside an API call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouteTag {
    /// An AI request: also takes a token of `ai_requests`.
    Ai,
    /// Stores bytes.
    Upload,
    /// Creates a user.
    UserCreate,
    /// Creates a project.
    ProjectCreate,
}

/// A route class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Stable name; the `route` label of metrics and logs.
    pub name: Arc<str>,
    /// Methods it matches; empty matches all.
    pub methods: Vec<Method>,
    /// Pattern of the path.
    pub path: Pattern,
    /// What it counts as.
    pub tags: Vec<RouteTag>,
    /// Whole time of a request on this route, replacing the edge's default.
    pub timeout_ms: Option<u64>,
    /// What its responses say about the tenant's levels.
    pub meters: Vec<MeterRule>,
    /// What its requests need room for before they are forwarded.
    pub reserves: Vec<Reserves>,
    /// Which session its requests belong to.
    pub session: Option<SessionRule>,
}

impl Route {
    /// The consumable quotas that a request on this route needs a token of.
    #[must_use]
    pub fn metrics(&self) -> MetricSet {
        let calls = MetricSet::of(Metric::ApiCalls);
        if self.tags.contains(&RouteTag::Ai) { calls.with(Metric::AiRequests) } else { calls }
    }
}

/// A path pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    segments: Vec<Segment>,
    rest: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(Box<str>),
    Any,
}

/// Why a text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// No leading slash.
    #[error("must start with '/'")]
    NotAbsolute,
    /// `**` elsewhere than at the end.
    #[error("'**' may stand only at the end")]
    RestInside,
    /// `*` as a part of a segment.
    #[error("'*' must be a whole segment")]
    PartialWildcard,
}

impl Pattern {
    /// The pattern that every path matches: `/**`.
    #[must_use]
    pub const fn everything() -> Self {
        Self { segments: Vec::new(), rest: true }
    }

    /// Parses a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let body = text.strip_prefix('/').ok_or(PatternError::NotAbsolute)?;
        let mut parts: Vec<&str> = body.split('/').collect();
        let rest = parts.last() == Some(&"**");
        if rest {
            parts.pop();
        }
        let segments = parts
            .into_iter()
            .map(|part| match part {
                "*" => Ok(Segment::Any),
                "**" => Err(PatternError::RestInside),
                part if part.contains('*') => Err(PatternError::PartialWildcard),
                part => Ok(Segment::Literal(part.into())),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { segments, rest })
    }

    /// Whether a normalised path (without query) matches. `/**` matches every path, and
    /// `/a/**` matches `/a` too.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        if self.rest && self.segments.is_empty() {
            return true;
        }
        let mut parts = path.strip_prefix('/').unwrap_or(path).split('/');
        for segment in &self.segments {
            match (segment, parts.next()) {
                (_, None) => return false,
                (Segment::Literal(want), Some(part)) if **want != *part => return false,
                (Segment::Any, Some("")) => return false,
                (Segment::Literal(_) | Segment::Any, Some(_)) => {}
            }
        }
        self.rest || parts.next().is_none()
    }
}

/// All route classes, in declared order.
#[derive(Clone, Debug, Default)]
pub struct RouteTable(pub Vec<Arc<Route>>);

impl RouteTable {
    /// The first route that matches.
    #[must_use]
    pub fn find(&self, method: &Method, path: &str) -> Option<&Arc<Route>> {
        self.0.iter().find(|route| {
            (route.methods.is_empty() || route.methods.contains(method)) && route.path.matches(path)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_by_segment() {
        let cases = [
            ("/**", "/", true),
            ("/**", "/a/b", true),
            ("/v1/ai/**", "/v1/ai", true),
            ("/v1/ai/**", "/v1/ai/chat", true),
            ("/v1/ai/**", "/v1/aim", false),
            ("/v1/*/files", "/v1/p1/files", true),
            ("/v1/*/files", "/v1//files", false),
            ("/v1/*/files", "/v1/p1/files/x", false),
            ("/a", "/a/", false),
            ("/", "/", true),
        ];
        for (pattern, path, want) in cases {
            let parsed = Pattern::parse(pattern).expect(pattern);
            assert_eq!(parsed.matches(path), want, "{pattern} on {path}");
        }
    }

    #[test]
    fn broken_patterns_say_why() {
        assert_eq!(Pattern::parse("v1"), Err(PatternError::NotAbsolute));
        assert_eq!(Pattern::parse("/a/**/b"), Err(PatternError::RestInside));
        assert_eq!(Pattern::parse("/a*"), Err(PatternError::PartialWildcard));
    }
}
