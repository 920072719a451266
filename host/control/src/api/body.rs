//! Request bodies: a JSON object within a bound of bytes and time.
//!
//! Invariant: whatever a client sends or withholds, it is answered, and never more than
//! [`BODY_BYTES_MAX`] of it is held.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::{HeaderMap, header, request::Parts},
};
use serde_json::{Map, Value};

use super::{Api, problem::ApiError};

/// Longest body, in bytes: a tenant with every secret at its longest is a third of it.
pub(crate) const BODY_BYTES_MAX: usize = 1 << 20;
/// How long a body may take to arrive, in ms: a slow sender holds a connection, not us.
const BODY_TIMEOUT_MS: u64 = 10_000;

/// A JSON object.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) members: Map<String, Value>,
}

impl FromRequest<Api> for Document {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        let is_json = says_json(request.headers());
        let bytes = read(request, api).await?;
        if is_json { parse(&bytes) } else { Err(ApiError::MediaType) }
    }
}

/// A JSON object, or no body at all.
#[derive(Debug)]
pub(crate) struct MaybeDocument(pub(crate) Option<Document>);

impl FromRequest<Api> for MaybeDocument {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        let is_json = says_json(request.headers());
        let bytes = read(request, api).await?;
        match (bytes.is_empty(), is_json) {
            (true, _) => Ok(Self(None)),
            (false, true) => parse(&bytes).map(Some).map(Self),
            (false, false) => Err(ApiError::MediaType),
        }
    }
}

/// A request's head, and the whole of its body.
pub(super) async fn take(request: Request, api: &Api) -> Result<(Parts, Bytes), ApiError> {
    let (parts, body) = request.into_parts();
    let bytes = read(Request::from_parts(parts.clone(), body), api).await?;
    Ok((parts, bytes))
}

async fn read(request: Request, api: &Api) -> Result<Bytes, ApiError> {
    let reading = Bytes::from_request(request, api);
    match tokio::time::timeout(Duration::from_millis(BODY_TIMEOUT_MS), reading).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(rejection)) if rejection.status().as_u16() == 413 => Err(ApiError::BodyTooLarge),
        Ok(Err(_)) => Err(ApiError::BodyBroken),
        Err(_) => Err(ApiError::BodyTooSlow),
    }
}

fn parse(bytes: &[u8]) -> Result<Document, ApiError> {
    match serde_json::from_slice(bytes).map_err(ApiError::MalformedJson)? {
        Value::Object(members) => Ok(Document { members }),
        _ => Err(ApiError::NotAnObject),
    }
}

/// `application/json`, or a merge patch; parameters do not matter.
fn says_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|field| field.to_str().ok())
        .map(|field| field.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
        .is_some_and(|kind| kind == "application/json" || kind == "application/merge-patch+json")
}

#[cfg(test)]
mod tests {
    use super::BODY_BYTES_MAX;
    use crate::testing::{Backend, Control, acme};

    const CREATE: (&str, &str) = ("POST", "/api/v1/admin/tenants");
    const JSON: [(&str, &str); 1] = [("content-type", "application/json; charset=utf-8")];

    #[tokio::test]
    async fn malformed_json_is_answered_with_its_position() {
        let control = Control::start(Backend::Sqlite).await;
        let answer = control.with(CREATE, &JSON, "{\n  \"slug\": ,\n}").await;
        assert_eq!((answer.status, &answer.json["code"]), (400, &"malformed-json".into()));
        assert_eq!((&answer.json["line"], &answer.json["column"]), (&2.into(), &11.into()));
        let deep = "[".repeat(10_000);
        for body in ["", "[]", "7", "null", "{} {}", "\u{0}", deep.as_str()] {
            assert_eq!(control.with(CREATE, &JSON, body).await.status, 400, "{body:.20}");
        }
    }

    #[tokio::test]
    async fn only_json_is_read() {
        let control = Control::start(Backend::Sqlite).await;
        let body = acme().to_string();
        for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx"] {
            let answer = control.with(CREATE, &[("content-type", kind)], &body).await;
            assert_eq!((answer.status, &answer.json["status"]), (415, &415.into()), "{kind}");
        }
        assert_eq!(control.with(CREATE, &[], &body).await.status, 415);
        assert_eq!(control.with(CREATE, &JSON, &body).await.status, 201);
    }

    #[tokio::test]
    async fn a_body_beyond_the_bound_is_refused() {
        let control = Control::start(Backend::Sqlite).await;
        let answer = control.with(CREATE, &JSON, &" ".repeat(BODY_BYTES_MAX + 1)).await;
        assert_eq!((answer.status, &answer.json["code"]), (413, &"body-too-large".into()));
        assert_eq!(answer.json["body_bytes_max"], BODY_BYTES_MAX);
        assert_eq!(control.with(CREATE, &JSON, &" ".repeat(BODY_BYTES_MAX)).await.status, 400);
    }
}
