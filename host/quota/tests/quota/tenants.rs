//! Tenants with a limit per metric, and nothing else of interest.

use std::sync::Arc;

use model::{
    clock::UnixMs,
    directory::TenantRecord,
    plan::Plan,
    policy::Chain,
    quota::Quotas,
    region::{Region, ResidencyGroup},
    snapshot::TenantEntry,
    tenant::{Status, Tenant, TenantId},
};
use uuid::Uuid;

/// A tenant of its own with a limit per metric.
pub(crate) fn tenant(api: u64, ai: u64) -> TenantEntry {
    entry(TenantId(Uuid::new_v4()), api, ai)
}

/// A tenant that is served when nobody can say whether its quota of calls has one more.
pub(crate) fn allowing(api: u64) -> TenantEntry {
    let mut entry = tenant(api, 0);
    let mut plan = Plan::clone(&entry.plan);
    plan.on_authority_loss.api_calls = model::loss::OnLoss::Allow;
    entry.plan = Arc::new(plan);
    entry
}

pub(crate) fn entry(id: TenantId, api: u64, ai: u64) -> TenantEntry {
    let quotas = Quotas {
        max_users: 1,
        max_projects: 1,
        max_api_calls_per_month: api,
        max_storage_mb: 1,
        max_ai_requests_per_day: ai,
        max_concurrent_sessions: 1,
    };
    let plan = Plan {
        name: "test".into(),
        quotas,
        features: Default::default(),
        offered: true,
        charge_on: Default::default(),
        chain: Vec::new(),
        price: None,
        plugins: Default::default(),
        trial_quotas: Default::default(),
        on_authority_loss: Default::default(),
        rate: None,
    };
    let tenant = Tenant {
        id,
        slug: "test".parse().unwrap(),
        organization_name: String::new(),
        display_name: String::new(),
        admin_email: String::new(),
        plan: "test".into(),
        data_residency: "eu".into(),
        parent: None,
        status: Status::Active,
        suspend_reason: None,
        trial_ends_at: None,
        grace_ends_at: None,
        custom_domains: Vec::new(),
        quota_overrides: Default::default(),
        dated_quotas: Default::default(),
        quota_anchor: Default::default(),
        attributes: Default::default(),
        created_at: UnixMs(0),
        version: 1,
    };
    let record =
        Arc::new(TenantRecord { tenant, secrets: Default::default(), pools: Default::default() });
    let region = Arc::new(Region { name: "eu".into(), backends: Default::default() });
    let group = Arc::new(ResidencyGroup { name: "eu".into(), regions: vec![Arc::clone(&region)] });
    TenantEntry::new(
        record,
        Arc::new(plan),
        group,
        region,
        Arc::new(Chain::new(Vec::new())),
        Vec::new(),
    )
}
