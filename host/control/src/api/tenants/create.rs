//! `POST /admin/tenants`: 201 with the new tenant in its trial.
//!
//! Invariant: all bad fields are named at once, and a retry with the same
//! `Idempotency-Key` gets the first answer, byte for byte.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use model::{
    catalog::Catalog,
    tenant::{Tenant, TenantId},
};
use sha2::{Digest, Sha256};

use super::view::{TenantView, etag};
use crate::{
    api::{Api, auth::Admin, body::Document, fields::Fields, problem::ApiError, rules},
    store::{Created, IdempotencyKey, NewTenant, Once, Seen, StoredAnswer},
};

/// Longest `Idempotency-Key`, in bytes.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Version of a tenant that was just created.
const FIRST_VERSION: u64 = 1;
/// Says that an answer was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

pub(in crate::api) async fn create(
    _: Admin,
    State(api): State<Api>,
    headers: HeaderMap,
    document: Document,
) -> Result<Response, ApiError> {
    let key = idempotency_key(&headers, &document)?;
    if let Some(key) = &key {
        match api.store.seen(key).await? {
            Seen::Never => {}
            Seen::Answered(answer) => return Ok(replay(answer)),
            Seen::Otherwise => return Err(ApiError::KeyReused),
        }
    }
    let catalog = Arc::clone(&api.catalog.borrow());
    let new = read(&api, &catalog, document)?;
    let Some(key) = key else {
        let tenant = api.store.create_tenant(new).await?;
        return Ok(created(tenant.id, body(&tenant, &catalog)));
    };
    let answer = Box::new(move |tenant: &_| body(tenant, &catalog));
    match api.store.create_tenant_once(new, Once { key, answer }).await? {
        Created::Now(answer) => Ok(created(answer.tenant, answer.body)),
        Created::Before(answer) => Ok(replay(answer)),
    }
}

fn read(api: &Api, catalog: &Catalog, document: Document) -> Result<NewTenant, ApiError> {
    let mut fields = Fields::new(document.members);
    let organization_name = fields.required("organization_name", rules::name);
    let display_name = fields.optional("display_name", rules::name);
    let slug = fields.required("slug", rules::slug);
    let admin_email = fields.required("admin_email", rules::email);
    let plan = fields.required("plan", |value| rules::plan(value, catalog));
    let data_residency = residency(api, catalog, &mut fields);
    let parent = fields.optional("parent_tenant_id", |value| {
        let parent = rules::tenant_id(value)?;
        if api.store.knows(parent) { Ok(parent) } else { Err("is no tenant".to_owned()) }
    });
    let (Some(organization_name), Some(slug), Some(admin_email), Some(plan)) =
        (organization_name, slug, admin_email, plan)
    else {
        return Err(fields.refuse());
    };
    fields.finish()?;
    Ok(NewTenant {
        slug,
        organization_name,
        display_name,
        admin_email,
        plan,
        data_residency,
        parent,
    })
}

/// The group asked for; a child may leave it out and inherits, a root needs a default.
fn residency(api: &Api, catalog: &Catalog, fields: &mut Fields) -> Option<String> {
    if fields.has("data_residency") || fields.has("parent_tenant_id") {
        return fields.optional("data_residency", |value| rules::residency(value, catalog));
    }
    fields.take("data_residency");
    if api.default_residency.is_none() {
        fields.reject(
            "data_residency",
            "is required for a tenant without a parent: this installation has no default",
        );
    }
    api.default_residency.clone()
}

fn idempotency_key(
    headers: &HeaderMap,
    document: &Document,
) -> Result<Option<IdempotencyKey>, ApiError> {
    let Some(field) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let key = field.to_str().unwrap_or_default();
    if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX {
        let detail = format!("must have 1 to {IDEMPOTENCY_KEY_BYTES_MAX} ASCII characters");
        return Err(ApiError::field("Idempotency-Key", detail));
    }
    Ok(Some(IdempotencyKey {
        scope: "create-tenant",
        key: key.to_owned(),
        fingerprint: Sha256::digest(&document.bytes).into(),
    }))
}

fn body(tenant: &Tenant, catalog: &Catalog) -> Vec<u8> {
    serde_json::to_vec(&TenantView::new(tenant, &[], catalog)).unwrap_or_default()
}

fn created(id: TenantId, body: Vec<u8>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::LOCATION, location(id)),
    ];
    (StatusCode::CREATED, etag(FIRST_VERSION), headers, body).into_response()
}

fn replay(answer: StoredAnswer) -> Response {
    let replayed = [(REPLAYED, HeaderValue::from_static("true"))];
    (replayed, created(answer.tenant, answer.body)).into_response()
}

fn location(id: TenantId) -> HeaderValue {
    HeaderValue::try_from(format!("/api/v1/admin/tenants/{id}"))
        .unwrap_or_else(|_| HeaderValue::from_static("/api/v1/admin/tenants"))
}
