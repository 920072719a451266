//! A new tenant: id, trial, place in its family.
//!
//! Invariant: of any number of creates of one slug exactly one succeeds.

use std::sync::Arc;

use model::{
    anchor::Anchor,
    clock::UnixMs,
    gdpr::GdprSettings,
    tenant::{FAMILY_DEPTH_MAX, Slug, Status, TRIAL_DAYS, Tenant, TenantId},
};

use crate::store::{
    Store, StoreError,
    audit::{Act, Actor},
    billing::terms,
    change::{Change, detached},
    db::{ControlTx, Installation},
    hierarchy::closure,
    random,
    rows::{self, Span},
};

const DAY_MS: u64 = 86_400_000;

/// What a tenant is created from. Plan and residency are checked by the caller, who
/// knows what is on offer.
#[derive(Clone, Debug)]
pub struct NewTenant {
    /// DNS label under the base domain.
    pub slug: Slug,
    /// Legal name.
    pub organization_name: String,
    /// Name to show; the organisation's when `None`.
    pub display_name: Option<String>,
    /// Where notices go.
    pub admin_email: String,
    /// Name of a declared plan.
    pub plan: String,
    /// Name of a declared residency group; `None` inherits the parent's.
    pub data_residency: Option<String>,
    /// Name of a member of that group; `None` with a group is for [`Tenant::home_region`] to
    /// say, and without one inherits the parent's.
    pub home_region: Option<String>,
    /// The parent, for a child organisation.
    pub parent: Option<TenantId>,
    /// On which day of the month its quotas begin anew; `None` inherits the parent's, or is
    /// the calendar's.
    pub quota_anchor: Option<Anchor>,
}

/// Why no tenant was created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// Another tenant has the slug, or had it.
    #[error("the slug {0} is taken")]
    SlugTaken(Slug),
    /// There is no such parent, or it is being erased.
    #[error("the parent does not exist")]
    ParentUnknown,
    /// The family would have too many levels.
    #[error("a family has at most {FAMILY_DEPTH_MAX} levels")]
    TooDeep,
    /// A root tenant needs a residency group.
    #[error("data_residency is required for a tenant without a parent")]
    ResidencyMissing,
    /// The installation has as many as it may have.
    #[error("the installation may have {0} tenants (control.tenants_max), and has them")]
    TooMany(usize),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a creation is called in the audit chain.
const CREATE: &str = "tenant.create";

impl Store {
    /// Creates a tenant in its trial, which is at once known at the edge.
    ///
    /// # Errors
    /// The slug is taken, the parent does not fit, or the store failed.
    pub async fn create_tenant(
        self: &Arc<Self>,
        by: &Actor,
        new: NewTenant,
    ) -> Result<Tenant, CreateError> {
        let (store, act) = (Arc::clone(self), Act::new(by, CREATE, ""));
        detached(async move {
            let mut change = Change::of_installation(&store, act).await?;
            let outcome = create(&mut change, new, store.clock.now()).await;
            change.end(outcome).await
        })
        .await
    }
}

async fn create(
    change: &mut Change<Installation>,
    new: NewTenant,
    now: UnixMs,
) -> Result<Tenant, CreateError> {
    if let Some(tenants_max) = change.is_full() {
        return Err(CreateError::TooMany(tenants_max));
    }
    let tenant = add(&mut change.tx, new, now).await?;
    change.about(tenant.id);
    change.describe(None, Some(&tenant));
    change.publish_tenant(tenant.id).await?;
    Ok(tenant)
}

async fn add(tx: &mut ControlTx, new: NewTenant, now: UnixMs) -> Result<Tenant, CreateError> {
    let inherited = match new.parent {
        Some(parent) => Some(heritage(tx, parent).await?),
        None => None,
    };
    let (place, anchor) = inherited.unzip();
    let named = new.data_residency.map(|group| (group, new.home_region));
    let (data_residency, home_region) = named.or(place).ok_or(CreateError::ResidencyMissing)?;
    let id = uuid::Builder::from_unix_timestamp_millis(now.0, &random::bytes()?).into_uuid();
    let tenant = Tenant {
        id: TenantId(id),
        slug: new.slug,
        display_name: new.display_name.unwrap_or_else(|| new.organization_name.clone()),
        organization_name: new.organization_name,
        admin_email: new.admin_email,
        plan: new.plan,
        data_residency,
        home_region,
        gdpr: GdprSettings::default(),
        parent: new.parent,
        status: Status::Trial,
        suspend_reason: None,
        trial_ends_at: Some(now.plus_ms(TRIAL_DAYS * DAY_MS)),
        grace_ends_at: None,
        custom_domains: Vec::new(),
        quota_overrides: std::collections::BTreeMap::new(),
        dated_quotas: std::collections::BTreeMap::new(),
        quota_anchor: new.quota_anchor.or(anchor).unwrap_or_default(),
        attributes: std::collections::BTreeMap::new(),
        created_at: now,
        version: 1,
    };
    if !rows::insert(tx, &tenant).await? {
        return Err(CreateError::SlugTaken(tenant.slug));
    }
    closure::add(tx, tenant.id, tenant.parent, now).await?;
    terms::keep(tx, &tenant, now).await?;
    Ok(tenant)
}

/// A residency group, and the home in it.
type Place = (String, Option<String>);

/// What a child gets from its parent unless it names its own: residency group with the home
/// in it, and anchor of the quotas. Fails where the parent may not have one more level below.
async fn heritage(tx: &mut ControlTx, parent: TenantId) -> Result<(Place, Anchor), CreateError> {
    let tenant = rows::tenants(tx, Span::one(parent)).await?.into_iter().next();
    let tenant = tenant
        .filter(|tenant| !matches!(tenant.status, Status::Erasing | Status::Erased))
        .ok_or(CreateError::ParentUnknown)?;
    let levels = closure::levels_above(tx, parent).await?;
    if levels >= i64::from(FAMILY_DEPTH_MAX) {
        return Err(CreateError::TooDeep);
    }
    Ok(((tenant.data_residency, tenant.home_region), tenant.quota_anchor))
}
