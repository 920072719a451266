//! `GET /admin/tenants/{id}`.

use axum::{extract::State, response::Response};

use super::view::answer;
use crate::api::{Api, path::TenantPath, problem::ApiError};

pub(in crate::api) async fn read(
    State(api): State<Api>,
    TenantPath(id): TenantPath,
) -> Result<Response, ApiError> {
    let stored = api.store.tenant(id).await?.ok_or(ApiError::NotFound)?;
    Ok(answer(&stored, &api.catalog.borrow(), &api.store))
}
