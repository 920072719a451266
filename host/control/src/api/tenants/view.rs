//! A tenant as JSON: the product guide's members first, in its order, then ours.
//!
//! Invariant: secrets appear by name only.

use std::collections::BTreeMap;

use axum::{
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use model::{
    catalog::Catalog,
    clock::UnixMs,
    gdpr::GdprSettings,
    quota::Quotas,
    tenant::{Slug, Status, SuspendReason, Tenant, TenantId},
};
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    api::json,
    store::{Store, StoredTenant},
};

/// The body of every answer about one tenant.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Tenant")]
pub(in crate::api) struct TenantView<'a> {
    #[schemars(with = "uuid::Uuid")]
    id: TenantId,
    organization_name: &'a str,
    #[schemars(with = "String")]
    slug: &'a Slug,
    status: Status,
    plan: &'a str,
    data_residency: &'a str,
    /// `null` when the plan is no longer declared.
    quotas: Option<Quotas>,
    created_at: String,
    trial_ends_at: Option<String>,
    /// Where it is served while that region can; `null` when its group is no longer declared.
    home_region: Option<&'a str>,
    gdpr_settings: GdprSettings,
    display_name: &'a str,
    admin_email: &'a str,
    #[schemars(with = "Option<uuid::Uuid>")]
    parent_tenant_id: Option<TenantId>,
    suspend_reason: Option<SuspendReason>,
    grace_ends_at: Option<String>,
    /// Entitlements of the plan; an absent one is false.
    features: BTreeMap<String, bool>,
    /// Of the plan's content in force; `null` until it is recorded.
    plan_version: Option<u64>,
    custom_domains: &'a [String],
    quota_overrides: &'a BTreeMap<String, u64>,
    /// Day of the month on which the month's quotas begin anew.
    quota_anchor_day: u8,
    /// Since when, or from when on, that is so; `null` for a day that it always had.
    quota_anchor_since: Option<String>,
    attributes: &'a BTreeMap<String, String>,
    /// Names only.
    secrets: &'a [String],
    /// The status in effect: a suspension or erasure of an ancestor applies here too.
    effective_status: Status,
    version: u64,
}

impl<'a> TenantView<'a> {
    pub(super) fn new(
        tenant: &'a Tenant,
        secrets: &'a [String],
        catalog: &'a Catalog,
        store: &Store,
    ) -> Self {
        Self {
            id: tenant.id,
            organization_name: &tenant.organization_name,
            slug: &tenant.slug,
            status: tenant.status,
            plan: &tenant.plan,
            data_residency: &tenant.data_residency,
            quotas: catalog.quotas_of(tenant),
            created_at: tenant.created_at.rfc3339(),
            trial_ends_at: tenant.trial_ends_at.map(UnixMs::rfc3339),
            home_region: home(tenant, catalog),
            gdpr_settings: tenant.gdpr,
            display_name: &tenant.display_name,
            admin_email: &tenant.admin_email,
            parent_tenant_id: tenant.parent,
            suspend_reason: tenant.suspend_reason,
            grace_ends_at: tenant.grace_ends_at.map(UnixMs::rfc3339),
            features: catalog
                .plans
                .get(&tenant.plan)
                .map(|plan| plan.features.clone())
                .unwrap_or_default(),
            plan_version: catalog.plan_versions.get(&tenant.plan).copied(),
            custom_domains: &tenant.custom_domains,
            quota_overrides: &tenant.quota_overrides,
            quota_anchor_day: tenant.quota_anchor.day(),
            quota_anchor_since: Some(tenant.quota_anchor.since())
                .filter(|since| since.0 > 0)
                .map(UnixMs::rfc3339),
            attributes: &tenant.attributes,
            secrets,
            effective_status: store.effective_status(tenant),
            version: tenant.version,
        }
    }

    pub(super) fn of(stored: &'a StoredTenant, catalog: &'a Catalog, store: &Store) -> Self {
        Self::new(&stored.tenant, &stored.secret_names, catalog, store)
    }
}

/// The region that serves a tenant while it can: as the edge sees it, a home that its group
/// no longer has is the first member.
fn home<'a>(tenant: &'a Tenant, catalog: &'a Catalog) -> Option<&'a str> {
    let members = catalog.groups.get(&tenant.data_residency)?;
    let home = tenant.home_region.as_ref().filter(|home| members.contains(home));
    home.or_else(|| members.first()).map(String::as_str)
}

/// The answer about one tenant, with its version as entity tag.
pub(super) fn answer(stored: &StoredTenant, catalog: &Catalog, store: &Store) -> Response {
    (etag(stored.tenant.version), json(TenantView::of(stored, catalog, store))).into_response()
}

/// The entity tag of a version.
pub(in crate::api) fn etag(version: u64) -> [(HeaderName, HeaderValue); 1] {
    let tag = HeaderValue::try_from(format!("\"{version}\""));
    [(header::ETAG, tag.unwrap_or_else(|_| HeaderValue::from_static("\"\"")))]
}
