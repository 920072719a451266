//! Entity tags of documents without a version of their own: a digest of what was set.
//!
//! Invariant: a tag changes exactly when what was set changes, so a PUT with `If-Match`
//! never undoes what its sender has not seen.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use super::problem::ApiError;

/// The entity tag of a digest.
pub(super) fn content_tag(digest: &str) -> [(HeaderName, HeaderValue); 1] {
    let tag = HeaderValue::try_from(format!("\"{digest}\""));
    [(header::ETAG, tag.unwrap_or_else(|_| HeaderValue::from_static("\"\"")))]
}

/// The digest that `If-Match` asks for; `None` without one, or for any (`*`). A tag that was
/// never given out matches nothing.
pub(super) fn expected_tag(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(field) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let tag = field.to_str().unwrap_or_default().trim();
    if tag == "*" {
        return Ok(None);
    }
    let digest = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
    digest.map(|digest| Some(digest.to_owned())).ok_or(ApiError::VersionMismatch)
}

#[cfg(test)]
mod tests;
