//! What a path names. Invariant: a name that cannot be one is answered like an unknown
//! one: 404.

use axum::{
    extract::{FromRequestParts, RawPathParams},
    http::request::Parts,
};
use model::tenant::TenantId;
use uuid::Uuid;

use super::{Api, caller::TENANT_PARAMETER, problem::ApiError};

/// The tenant of `{tenant_id}`; not yet looked up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TenantPath(pub(crate) TenantId);

/// The change of plan of `{change_id}`; not yet looked up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlanChangePath(pub(crate) Uuid);

/// The plan of `{plan}`; not yet looked up.
#[derive(Clone, Debug)]
pub(crate) struct PlanPath(pub(crate) String);

/// The key of `{key_id}`; not yet looked up.
#[derive(Clone, Debug)]
pub(crate) struct KeyPath(pub(crate) String);

/// The token of `{token_id}`; not yet looked up.
#[derive(Clone, Debug)]
pub(crate) struct TokenPath(pub(crate) String);

impl FromRequestParts<Api> for TenantPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let id = segment(parts, api, TENANT_PARAMETER).await?;
        id.parse().map(Self).map_err(|_| ApiError::NotFound)
    }
}

impl FromRequestParts<Api> for KeyPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        segment(parts, api, "key_id").await.map(Self)
    }
}

impl FromRequestParts<Api> for TokenPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        segment(parts, api, "token_id").await.map(Self)
    }
}

impl FromRequestParts<Api> for PlanChangePath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let id = segment(parts, api, "change_id").await?;
        id.parse().map(Self).map_err(|_| ApiError::NotFound)
    }
}

impl FromRequestParts<Api> for PlanPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        segment(parts, api, "plan").await.map(Self)
    }
}

async fn segment(parts: &mut Parts, api: &Api, name: &str) -> Result<String, ApiError> {
    let params =
        RawPathParams::from_request_parts(parts, api).await.map_err(|_| ApiError::NotFound)?;
    let found = params.iter().find(|(param, _)| *param == name);
    found.map(|(_, value)| value.to_owned()).ok_or(ApiError::NotFound)
}
