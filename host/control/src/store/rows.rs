//! Tenants as rows: the one place that knows the columns of `tenant` and `tenant_domain`.
//!
//! Reads take a [`Span`] of ids, so that one statement serves a single tenant, a page and
//! the whole directory. Invariant: a row that cannot be read is an error, never a tenant
//! with a guessed value.

use std::collections::BTreeMap;

use model::{
    clock::UnixMs,
    tenant::{Slug, Status, SuspendReason, Tenant, TenantId},
};
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::{
    StoreError,
    db::{ControlTx, TenantTx, Tx, sql},
};

/// An inclusive range of tenant ids.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) first: Uuid,
    pub(super) last: Uuid,
}

impl Span {
    /// Every tenant.
    pub(super) const ALL: Self = Self { first: Uuid::nil(), last: Uuid::max() };

    /// One tenant.
    pub(super) const fn one(tenant: TenantId) -> Self {
        Self { first: tenant.0, last: tenant.0 }
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct TenantRow {
    id: Uuid,
    slug: String,
    organization_name: String,
    display_name: String,
    admin_email: String,
    plan: String,
    data_residency: String,
    home_region: Option<String>,
    gdpr_settings: String,
    parent: Option<Uuid>,
    status: String,
    suspend_reason: Option<String>,
    trial_ends_at: Option<i64>,
    grace_ends_at: Option<i64>,
    quota_overrides: String,
    dated_quotas: String,
    quota_anchor: String,
    attributes: String,
    created_at: i64,
    version: i64,
}

/// The tenants of a span in the order of their ids.
pub(super) async fn tenants<S>(tx: &mut Tx<S>, span: Span) -> Result<Vec<Tenant>, StoreError> {
    let rows = sql("SELECT * FROM tenant WHERE id BETWEEN $1 AND $2 ORDER BY id")
        .bind(span.first)
        .bind(span.last)
        .all(tx)
        .await?;
    with_domains(tx, rows).await
}

/// Reads rows that are ordered by id, and adds their domains.
pub(super) async fn with_domains<S>(
    tx: &mut Tx<S>,
    rows: Vec<TenantRow>,
) -> Result<Vec<Tenant>, StoreError> {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(Vec::new()) };
    let mut domains = domains(tx, Span { first: first.id, last: last.id }).await?;
    rows.into_iter()
        .map(|row| {
            let domains = domains.remove(&row.id).unwrap_or_default();
            row.decode(domains)
        })
        .collect()
}

async fn domains<S>(tx: &mut Tx<S>, span: Span) -> Result<BTreeMap<Uuid, Vec<String>>, StoreError> {
    let rows: Vec<(Uuid, String)> =
        sql("SELECT tenant_id, domain FROM tenant_domain WHERE tenant_id BETWEEN $1 AND $2
         ORDER BY tenant_id, domain")
        .bind(span.first)
        .bind(span.last)
        .all(tx)
        .await?;
    let mut by_tenant = BTreeMap::<Uuid, Vec<String>>::new();
    for (tenant, domain) in rows {
        by_tenant.entry(tenant).or_default().push(domain);
    }
    Ok(by_tenant)
}

impl TenantRow {
    fn decode(self, custom_domains: Vec<String>) -> Result<Tenant, StoreError> {
        let bad = |what: &str, value: &str| StoreError::Decode(format!("{what} {value:?}"));
        Ok(Tenant {
            id: TenantId(self.id),
            slug: self.slug.parse::<Slug>().map_err(|_| bad("slug", &self.slug))?,
            organization_name: self.organization_name,
            display_name: self.display_name,
            admin_email: self.admin_email,
            plan: self.plan,
            data_residency: self.data_residency,
            home_region: self.home_region,
            gdpr: object(&self.gdpr_settings)?,
            parent: self.parent.map(TenantId),
            status: Status::from_name(&self.status).ok_or_else(|| bad("status", &self.status))?,
            suspend_reason: self
                .suspend_reason
                .map(|name| SuspendReason::from_name(&name).ok_or_else(|| bad("reason", &name)))
                .transpose()?,
            trial_ends_at: self.trial_ends_at.map(instant),
            grace_ends_at: self.grace_ends_at.map(instant),
            custom_domains,
            quota_overrides: object(&self.quota_overrides)?,
            dated_quotas: object(&self.dated_quotas)?,
            quota_anchor: object(&self.quota_anchor)?,
            attributes: object(&self.attributes)?,
            created_at: instant(self.created_at),
            version: u64::try_from(self.version).unwrap_or(0),
        })
    }
}

/// Adds a tenant; false when its slug is taken.
pub(super) async fn insert(tx: &mut ControlTx, tenant: &Tenant) -> Result<bool, StoreError> {
    let added =
        sql("INSERT INTO tenant (id, slug, organization_name, display_name, admin_email, plan,
             data_residency, parent, status, suspend_reason, trial_ends_at, grace_ends_at,
             quota_overrides, attributes, created_at, version, quota_anchor, home_region,
             gdpr_settings, retention_days, legal_hold)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
             $19, $20, $21)
         ON CONFLICT (slug) DO NOTHING")
        .bind(tenant.id.0)
        .bind(tenant.slug.as_str())
        .bind(&tenant.organization_name)
        .bind(&tenant.display_name)
        .bind(&tenant.admin_email)
        .bind(&tenant.plan)
        .bind(&tenant.data_residency)
        .bind(tenant.parent.map(|parent| parent.0))
        .bind(tenant.status.as_str())
        .bind(tenant.suspend_reason.map(SuspendReason::as_str))
        .bind(tenant.trial_ends_at.map(stored))
        .bind(tenant.grace_ends_at.map(stored))
        .bind(json(&tenant.quota_overrides)?)
        .bind(json(&tenant.attributes)?)
        .bind(stored(tenant.created_at))
        .bind(i64::try_from(tenant.version).unwrap_or(i64::MAX))
        .bind(json(&tenant.quota_anchor)?)
        .bind(tenant.home_region.as_deref())
        .bind(json(&tenant.gdpr)?)
        .bind(tenant.gdpr.own_retention_days().map(i64::from))
        .bind(tenant.gdpr.legal_hold)
        .execute(tx)
        .await?;
    Ok(added == 1)
}

/// Writes what may change of a tenant; its domains apart.
pub(super) async fn update(tx: &mut TenantTx, tenant: &Tenant) -> Result<(), StoreError> {
    sql("UPDATE tenant SET organization_name = $2, display_name = $3, admin_email = $4,
             plan = $5, status = $6, suspend_reason = $7, trial_ends_at = $8,
             grace_ends_at = $9, quota_overrides = $10, attributes = $11, version = $12,
             quota_anchor = $13, gdpr_settings = $14,
             retention_days = $15, legal_hold = $16
         WHERE id = $1")
    .bind(tx.tenant().0)
    .bind(&tenant.organization_name)
    .bind(&tenant.display_name)
    .bind(&tenant.admin_email)
    .bind(&tenant.plan)
    .bind(tenant.status.as_str())
    .bind(tenant.suspend_reason.map(SuspendReason::as_str))
    .bind(tenant.trial_ends_at.map(stored))
    .bind(tenant.grace_ends_at.map(stored))
    .bind(json(&tenant.quota_overrides)?)
    .bind(json(&tenant.attributes)?)
    .bind(i64::try_from(tenant.version).unwrap_or(i64::MAX))
    .bind(json(&tenant.quota_anchor)?)
    .bind(json(&tenant.gdpr)?)
    .bind(tenant.gdpr.own_retention_days().map(i64::from))
    .bind(tenant.gdpr.legal_hold)
    .execute(tx)
    .await
    .map(drop)
}

/// Replaces a tenant's domains; the first that belongs to another tenant comes back.
pub(super) async fn replace_domains(
    tx: &mut TenantTx,
    domains: &[String],
) -> Result<Option<String>, StoreError> {
    let tenant = tx.tenant();
    sql("DELETE FROM tenant_domain WHERE tenant_id = $1").bind(tenant.0).execute(tx).await?;
    for domain in domains {
        let added = sql("INSERT INTO tenant_domain (domain, tenant_id) VALUES ($1, $2)
             ON CONFLICT (domain) DO NOTHING")
        .bind(domain)
        .bind(tenant.0)
        .execute(tx)
        .await?;
        if added == 0 {
            return Ok(Some(domain.clone()));
        }
    }
    Ok(None)
}

/// An instant as stored.
pub(super) fn stored(at: UnixMs) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX)
}

/// A stored instant.
pub(super) fn instant(at: i64) -> UnixMs {
    UnixMs(u64::try_from(at).unwrap_or(0))
}

pub(super) fn json(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Decode(error.to_string()))
}

pub(super) fn object<T: DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Decode(error.to_string()))
}
