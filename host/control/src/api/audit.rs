//! `/tenants/{tenant_id}/audit` and `/admin/audit`: the chains, to read and to verify.
//!
//! Invariant: an entry is answered as it was hashed, so that the reader can verify the
//! chain alone; `model::audit` says how.

pub(super) mod heads;

use axum::{extract::State, http::Uri, response::Response};
use model::{audit::AuditEntry, tenant::TenantId};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    Api,
    fields::{Fields, query},
    json,
    path::TenantPath,
    problem::ApiError,
    rules,
};
use crate::store::AUDIT_PAGE_MAX;

/// Which part of the chain.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "documents the query that `page` reads")]
pub(super) struct AuditQuery {
    /// Only entries after this number; 0 unless given.
    after: Option<u64>,
    /// The `next_cursor` of the page before, in place of `after`.
    cursor: Option<String>,
    /// 1 to 200; 200 unless given.
    #[schemars(range(min = 1, max = 200))]
    limit: Option<u32>,
}

/// A part of a chain, oldest first.
#[derive(Serialize, JsonSchema)]
pub(super) struct AuditPage {
    /// The chain's id: the tenant's, or the nil UUID for the platform's.
    #[schemars(with = "uuid::Uuid")]
    chain: TenantId,
    #[schemars(with = "Vec<AuditEntryShape>")]
    items: Vec<AuditEntry>,
    /// For `after` of the next page; `null` on the last one.
    next_after: Option<u64>,
    /// The same, as every list has it.
    next_cursor: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(rename = "AuditEntry")]
#[expect(dead_code, reason = "documents model::audit::AuditEntry")]
struct AuditEntryShape {
    /// Position in its chain, from 1.
    seq: u64,
    /// Milliseconds since 1970, UTC.
    at_ms: u64,
    actor: String,
    action: String,
    target: String,
    /// SHA-256 in hex.
    before: Option<String>,
    /// SHA-256 in hex.
    after: Option<String>,
    /// JSON text.
    detail: String,
    /// Hash of the entry before.
    previous: String,
    /// Hash of this entry.
    hash: String,
}

pub(super) async fn of_tenant(
    State(api): State<Api>,
    TenantPath(tenant): TenantPath,
    uri: Uri,
) -> Result<Response, ApiError> {
    if !api.store.knows(tenant) {
        return Err(ApiError::NotFound);
    }
    page(&api, Some(tenant), &uri).await
}

pub(super) async fn of_platform(State(api): State<Api>, uri: Uri) -> Result<Response, ApiError> {
    page(&api, None, &uri).await
}

async fn page(api: &Api, tenant: Option<TenantId>, uri: &Uri) -> Result<Response, ApiError> {
    let mut fields = Fields::new(query(uri)?);
    let after = fields.optional("after", |value| rules::number(value, 0, u64::MAX));
    let cursor = fields.optional("cursor", |value| {
        rules::text(value)?.parse().map_err(|_| "must be a next_cursor given here".to_owned())
    });
    let limit = fields.optional("limit", |value| rules::number(value, 1, AUDIT_PAGE_MAX.into()));
    if after.is_some() && cursor.is_some() {
        fields.reject("cursor", "stands in the place of `after`: give one of them");
    }
    fields.finish()?;
    let after = after.or(cursor);
    let limit = limit.and_then(|limit| u32::try_from(limit).ok()).unwrap_or(AUDIT_PAGE_MAX);
    let items = api.store.audit_entries(tenant, after.unwrap_or(0), limit).await?;
    let full = items.len() == limit as usize;
    let next_after = items.last().map(|entry| entry.seq).filter(|_| full);
    let chain = tenant.unwrap_or(model::audit::PLATFORM_CHAIN);
    let next_cursor = next_after.map(|seq| seq.to_string());
    Ok(json(AuditPage { chain, items, next_after, next_cursor }))
}
