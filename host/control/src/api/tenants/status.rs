//! `POST /admin/tenants/{id}/suspend` and `/resume`: no request of the tenant, or of one
//! below it, is admitted from the answer on; and admitted again.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use model::tenant::{Status, TenantId};

use super::view::answer;
use crate::{
    api::{
        Api, auth::Admin, body::MaybeDocument, fields::Fields, path::TenantPath, problem::ApiError,
        rules,
    },
    store::{StatusChange, TenantPatch},
};

pub(in crate::api) async fn suspend(
    _: Admin,
    State(api): State<Api>,
    TenantPath(id): TenantPath,
    MaybeDocument(document): MaybeDocument,
) -> Result<Response, ApiError> {
    let mut fields = Fields::new(document.map(|document| document.members).unwrap_or_default());
    let reason = fields.optional("reason", rules::suspend_reason);
    fields.finish()?;
    change(&api, id, StatusChange::To(Status::Suspended, reason)).await
}

pub(in crate::api) async fn resume(
    _: Admin,
    State(api): State<Api>,
    TenantPath(id): TenantPath,
    MaybeDocument(document): MaybeDocument,
) -> Result<Response, ApiError> {
    Fields::new(document.map(|document| document.members).unwrap_or_default()).finish()?;
    change(&api, id, StatusChange::Resume).await
}

async fn change(api: &Api, id: TenantId, status: StatusChange) -> Result<Response, ApiError> {
    let patch = TenantPatch { status: Some(status), ..TenantPatch::default() };
    let stored = api.store.patch_tenant(id, patch, None).await?;
    let catalog = Arc::clone(&api.catalog.borrow());
    Ok(answer(&stored, &catalog))
}
