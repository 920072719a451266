//! `PATCH /admin/tenants/{id}`: a JSON merge patch, all of it or nothing, in force at the
//! edge when it is answered.
//!
//! Invariant: what cannot be done here is refused by name, never ignored. A read-only
//! member is accepted with the value it has, so that an answer can be edited and sent
//! back.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderMap, header},
    response::Response,
};
use model::{catalog::Catalog, tenant::Status};
use serde_json::Value;

use super::view::{TenantView, answer};
use crate::{
    api::{
        Api,
        auth::Admin,
        body::Document,
        fields::Fields,
        path::TenantPath,
        problem::{ApiError, Capability},
        rules,
    },
    store::{StatusChange, StoredTenant, TenantPatch},
};

/// Members that no patch changes.
const READ_ONLY: [&str; 8] = [
    "id",
    "slug",
    "quotas",
    "created_at",
    "trial_ends_at",
    "grace_ends_at",
    "parent_tenant_id",
    "version",
];
/// Hosts of one tenant beside its slug: each costs an entry in every snapshot.
const DOMAINS_MAX: usize = 32;

const ONLINE_MOVE: Capability = Capability {
    name: "online_move",
    detail: "Moving a tenant to another residency group needs PostgreSQL; nothing was changed.",
    alternatives: &["create a tenant in the other residency group and move its clients to it"],
};

pub(in crate::api) async fn patch(
    _: Admin,
    State(api): State<Api>,
    TenantPath(id): TenantPath,
    headers: HeaderMap,
    document: Document,
) -> Result<Response, ApiError> {
    let held = api.store.tenant(id).await?.ok_or(ApiError::NotFound)?;
    let expected = expected_version(&headers)?;
    let catalog = Arc::clone(&api.catalog.borrow());
    let patch = read(document, &held, &catalog, &api.base_domain)?;
    let stored = api.store.patch_tenant(id, patch, expected).await?;
    Ok(answer(&stored, &catalog))
}

fn read(
    document: Document,
    held: &StoredTenant,
    catalog: &Catalog,
    base_domain: &str,
) -> Result<TenantPatch, ApiError> {
    let mut fields = Fields::new(document.members);
    refuse_read_only(&mut fields, held, catalog);
    let moves_to = fields.changed("data_residency", |value| rules::residency(value, catalog));
    let patch = TenantPatch {
        organization_name: fields.changed("organization_name", rules::name),
        display_name: fields.changed("display_name", rules::name),
        admin_email: fields.changed("admin_email", rules::email),
        plan: fields.changed("plan", |value| rules::plan(value, catalog)),
        status: status(&mut fields, held),
        custom_domains: fields
            .items("custom_domains", DOMAINS_MAX, |value| rules::domain(value, base_domain)),
        quota_overrides: fields.members("quota_overrides", rules::quota),
        attributes: fields.members("attributes", rules::attribute),
        secrets: fields.members("secrets", rules::secret),
    };
    fields.finish()?;
    if moves_to.is_some_and(|group| group != held.tenant.data_residency) {
        return Err(ApiError::NeedsPostgresql(ONLINE_MOVE));
    }
    Ok(patch)
}

fn refuse_read_only(fields: &mut Fields, held: &StoredTenant, catalog: &Catalog) {
    let shown = serde_json::to_value(TenantView::of(held, catalog)).unwrap_or_default();
    for name in READ_ONLY {
        if fields.take(name).is_some_and(|value| shown.get(name) != Some(&value)) {
            fields.reject(name, "cannot be changed");
        }
    }
    let names = fields.take("secrets");
    match names {
        Some(value @ Value::Array(_)) if shown.get("secrets") == Some(&value) => {}
        Some(value) => fields.put_back("secrets", value),
        None => {}
    }
}

fn status(fields: &mut Fields, held: &StoredTenant) -> Option<StatusChange> {
    let status = fields.changed("status", rules::status);
    let reason = fields.optional("suspend_reason", rules::suspend_reason);
    if reason.is_some() && status.unwrap_or(held.tenant.status) != Status::Suspended {
        fields.reject("suspend_reason", "goes with the status suspended only");
        return None;
    }
    match (status, reason) {
        (Some(status), reason) => Some(StatusChange::To(status, reason)),
        (None, Some(_)) => Some(StatusChange::To(Status::Suspended, reason)),
        (None, None) => None,
    }
}

/// The version that `If-Match` asks for. A tag that was never given out matches nothing.
fn expected_version(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(field) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let tag = field.to_str().unwrap_or_default().trim();
    if tag == "*" {
        return Ok(None);
    }
    let version = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')?.parse().ok());
    version.map(Some).ok_or(ApiError::VersionMismatch)
}
