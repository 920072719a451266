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

/// The reservation of `{reservation_id}`; not yet looked up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReservationPath(pub(crate) Uuid);

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

impl FromRequestParts<Api> for ReservationPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let id = segment(parts, api, "reservation_id").await?;
        id.parse().map(Self).map_err(|_| ApiError::NotFound)
    }
}

impl FromRequestParts<Api> for PlanPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        segment(parts, api, "plan").await.map(Self)
    }
}

/// A part of the path; one with a zero character, which no database holds, is no name.
async fn segment(parts: &mut Parts, api: &Api, name: &str) -> Result<String, ApiError> {
    let params =
        RawPathParams::from_request_parts(parts, api).await.map_err(|_| ApiError::NotFound)?;
    let found = params.iter().find(|(param, _)| *param == name);
    let value = found.map(|(_, value)| value).filter(|value| !value.contains('\0'));
    value.map(str::to_owned).ok_or(ApiError::NotFound)
}

#[cfg(test)]
mod tests {
    use crate::testing::{Backend, Control, acme, on_both, path_of};

    on_both![a_zero_character_names_nothing_and_no_query_may_hold_one];

    async fn a_zero_character_names_nothing_and_no_query_may_hold_one(on: Backend) {
        let control = Control::start(on).await;
        let tenant = path_of(&control.create(&acme()).await);
        let platform = "/api/v1/admin";
        let tokens = tenant.replace("/admin/", "/");
        for name in ["%00", "a%00b"] {
            for (method, path) in [
                ("GET", format!("{platform}/tenants/{name}")),
                ("GET", format!("{platform}/plans/{name}/versions")),
                ("DELETE", format!("{tenant}/keys/{name}")),
                ("DELETE", format!("{tenant}/plan-changes/{name}")),
                ("DELETE", format!("{tokens}/tokens/{name}")),
                ("POST", format!("{tokens}/tokens/{name}/rotate")),
                ("DELETE", format!("{platform}/tokens/{name}")),
                ("POST", format!("{platform}/tokens/{name}/rotate")),
            ] {
                let answer = control.with((method, &path), &[], "").await;
                let code = &answer.json["code"];
                assert_eq!((answer.status, code), (404, &"not-found".into()), "{method} {path}");
            }
            for field in ["slug", "plan", "status", "cursor"] {
                let path = format!("{platform}/tenants?{field}={name}");
                let answer = control.get(&path).await;
                assert_eq!(answer.bad_fields(), [field]);
                let detail = &answer.json["errors"][0]["detail"];
                assert_eq!(detail, "may not hold the zero character (U+0000)");
            }
        }
    }
}
