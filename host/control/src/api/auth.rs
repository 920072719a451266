//! Who calls: an extractor, so that a handler's signature is its permission.
//!
//! Every handler under `/api/v1` takes an [`Admin`] first. Invariant: every failure has
//! one answer, and tokens are compared in constant time.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};

use super::{Api, problem::ApiError};

/// Proof that the request carries the admin token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admin(());

impl FromRequestParts<Api> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        bearer(&parts.headers)
            .filter(|token| api.admin_token.verifies(token))
            .map(|_| Self(()))
            .ok_or(ApiError::Unauthenticated)
    }
}

/// The bearer token of the only `Authorization` field.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut fields = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else { return None };
    let (scheme, token) = field.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start_matches(' '))
}
