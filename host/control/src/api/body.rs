//! Request bodies: a JSON object within a bound of bytes and time.
//!
//! Invariant: whatever a client sends or withholds, it is answered, and never more than
//! [`BODY_BYTES_MAX`] of it is held.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::{HeaderMap, header},
};
use serde_json::{Map, Value};

use super::{Api, problem::ApiError};

/// Longest body, in bytes: a tenant with every secret at its longest is a third of it.
pub(crate) const BODY_BYTES_MAX: usize = 1 << 20;
/// How long a body may take to arrive, in ms: a slow sender holds a connection, not us.
const BODY_TIMEOUT_MS: u64 = 10_000;

/// A JSON object, and the bytes it came as.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) bytes: Bytes,
    pub(crate) members: Map<String, Value>,
}

impl FromRequest<Api> for Document {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        let is_json = says_json(request.headers());
        let bytes = read(request, api).await?;
        if is_json { parse(bytes) } else { Err(ApiError::MediaType) }
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
            (false, true) => parse(bytes).map(Some).map(Self),
            (false, false) => Err(ApiError::MediaType),
        }
    }
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

fn parse(bytes: Bytes) -> Result<Document, ApiError> {
    match serde_json::from_slice(&bytes).map_err(ApiError::MalformedJson)? {
        Value::Object(members) => Ok(Document { bytes, members }),
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
