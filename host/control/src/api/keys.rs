//! `/admin/tenants/{id}/keys`: data-plane keys issued (shown once), listed and revoked.
//!
//! Invariant: a revoked key is refused by the edge when the revocation is answered.

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use model::clock::UnixMs;
use serde::Serialize;

use super::{
    Api,
    auth::Admin,
    body::MaybeDocument,
    fields::Fields,
    json,
    path::{KeyPath, TenantPath},
    problem::ApiError,
    rules,
};

/// A new key: the only answer that holds its text.
#[derive(Debug, Serialize)]
struct Issued<'a> {
    id: &'a str,
    key: &'a str,
    created_at: String,
    expires_at: Option<String>,
}

#[derive(Debug, Serialize)]
struct Listed {
    id: Box<str>,
    created_at: String,
    expires_at: Option<String>,
    revoked_at: Option<String>,
}

#[derive(Debug, Serialize)]
struct List {
    items: Vec<Listed>,
}

pub(super) async fn issue(
    _: Admin,
    State(api): State<Api>,
    TenantPath(tenant): TenantPath,
    MaybeDocument(document): MaybeDocument,
) -> Result<Response, ApiError> {
    let mut fields = Fields::new(document.map(|document| document.members).unwrap_or_default());
    let now = api.clock.now();
    let expires_at = fields.optional("expires_at", |value| {
        let end = rules::instant(value)?;
        if end > now { Ok(end) } else { Err("must lie in the future".to_owned()) }
    });
    fields.finish()?;
    let issued = api.store.issue_api_key(tenant, expires_at).await?;
    let answer = json(Issued {
        id: &issued.id,
        key: issued.text.expose(),
        created_at: issued.created_at.rfc3339(),
        expires_at: issued.expires_at.map(UnixMs::rfc3339),
    });
    Ok((StatusCode::CREATED, answer).into_response())
}

pub(super) async fn list(
    _: Admin,
    State(api): State<Api>,
    TenantPath(tenant): TenantPath,
) -> Result<Response, ApiError> {
    let keys = api.store.api_keys(tenant).await?;
    let items = keys
        .into_iter()
        .map(|key| Listed {
            id: key.id,
            created_at: key.created_at.rfc3339(),
            expires_at: key.expires_at.map(UnixMs::rfc3339),
            revoked_at: key.revoked_at.map(UnixMs::rfc3339),
        })
        .collect();
    Ok(json(List { items }))
}

pub(super) async fn revoke(
    _: Admin,
    State(api): State<Api>,
    TenantPath(tenant): TenantPath,
    KeyPath(key): KeyPath,
) -> Result<StatusCode, ApiError> {
    api.store.revoke_api_key(tenant, &key).await?;
    Ok(StatusCode::NO_CONTENT)
}
