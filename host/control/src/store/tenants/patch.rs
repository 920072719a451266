//! A change of what a tenant is: names, plan, status, hosts, quotas, attributes, secrets.
//!
//! One transaction applies all of a patch or nothing. Invariant: the version rises with
//! every patch, and a caller that named a version changes no other one.

use std::{collections::BTreeMap, sync::Arc};

use model::{
    anchor::AnchorError,
    clock::UnixMs,
    gdpr::GdprPatch,
    secret::Secret,
    tenant::{Status, Tenant, TenantId},
};

use serde_json::{Value, json};

use super::StoredTenant;
use crate::store::{
    Store, StoreError,
    audit::{Act, Actor},
    billing::terms,
    change::{Change, detached},
    db::{OneTenant, TenantTx},
    keys::KEYS_MAX,
    lifecycle::{self, InvalidTransition, StatusChange},
    outbox,
    rows::{self, Span},
    sealed::Sealer,
    secrets,
};

/// Attributes of a tenant: policies get all of them per call, so they stay few.
pub(super) const ATTRIBUTES_MAX: usize = 64;
/// Secrets of a tenant: more than any policy chain refers to.
pub(super) const SECRETS_MAX: usize = 64;

/// A merge patch of a set of members (RFC 7396).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Members<T> {
    /// All of them go: the patch said `null`.
    Clear,
    /// These are set, those with `None` go, the others stay.
    Merge(BTreeMap<String, Option<T>>),
}

/// What to change; `None` leaves a thing as it is.
#[derive(Clone, Debug, Default)]
pub struct TenantPatch {
    /// Legal name.
    pub organization_name: Option<String>,
    /// Name to show.
    pub display_name: Option<String>,
    /// Where notices go.
    pub admin_email: Option<String>,
    /// Name of a declared plan; in force at once, in the middle of a window.
    pub plan: Option<String>,
    /// Status.
    pub status: Option<StatusChange>,
    /// All exact hosts, canonical.
    pub custom_domains: Option<Vec<String>>,
    /// Quotas that replace the plan's.
    pub quota_overrides: Option<Members<u64>>,
    /// On which day of the month its quotas begin anew, from the end of the present window.
    pub quota_anchor_day: Option<u8>,
    /// What holds for the personal data in it.
    pub gdpr: Option<GdprPatch>,
    /// Operator-defined attributes.
    pub attributes: Option<Members<String>>,
    /// Secrets for policy configs.
    pub secrets: Option<Members<Secret>>,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// There is no such tenant, or no such thing of it.
    #[error("there is no such tenant, or no such thing of it")]
    NotFound,
    /// The tenant has changed since the caller read it.
    #[error("the tenant is at version {current}")]
    VersionMismatch {
        /// The version it has.
        current: u64,
    },
    /// The status may not change so.
    #[error(transparent)]
    Transition(#[from] InvalidTransition),
    /// Another tenant has the domain.
    #[error("the domain {0} belongs to another tenant")]
    DomainTaken(String),
    /// The day of the quotas' month may not change so.
    #[error("quota_anchor_day {0}")]
    Anchor(#[from] AnchorError),
    /// A set would grow beyond its bound.
    #[error("{field} may have at most {most} members")]
    TooMany {
        /// `attributes` or `secrets`.
        field: &'static str,
        /// The bound.
        most: usize,
    },
    /// There are as many data-plane keys as there may be.
    #[error("there may be {KEYS_MAX} live keys; revoke one first")]
    TooManyKeys,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// Applies a patch, in the published directory when this returns. With `expected`, only to
    /// that version of the tenant.
    ///
    /// # Errors
    /// No such tenant, another version, a change that is not allowed, or the store failed.
    pub async fn patch_tenant(
        self: &Arc<Self>,
        by: &Actor,
        id: TenantId,
        patch: TenantPatch,
        expected: Option<u64>,
    ) -> Result<StoredTenant, ChangeError> {
        let action = match patch.status {
            Some(StatusChange::To(Status::Suspended, _)) => "tenant.suspend",
            Some(StatusChange::Resume) => "tenant.resume",
            Some(StatusChange::To(..)) => "tenant.status",
            None if patch.plan.is_some() => "tenant.plan",
            None => "tenant.change",
        };
        let (store, act) = (Arc::clone(self), Act::new(by, action, ""));
        detached(async move {
            let mut change = Change::of(&store, id, act).await?;
            let outcome = write(&mut change, patch, expected, store.clock.now()).await;
            change.end(outcome).await
        })
        .await
    }

    /// Sets one secret of a tenant.
    ///
    /// # Errors
    /// As [`Store::patch_tenant`].
    pub async fn put_secret(
        self: &Arc<Self>,
        by: &Actor,
        tenant: TenantId,
        name: &str,
        value: Secret,
    ) -> Result<(), ChangeError> {
        let secrets = Members::Merge(BTreeMap::from([(name.to_owned(), Some(value))]));
        let patch = TenantPatch { secrets: Some(secrets), ..TenantPatch::default() };
        self.patch_tenant(by, tenant, patch, None).await.map(drop)
    }
}

async fn write(
    change: &mut Change<OneTenant>,
    patch: TenantPatch,
    expected: Option<u64>,
    now: UnixMs,
) -> Result<StoredTenant, ChangeError> {
    let sealer = change.sealer();
    let tx = &mut change.tx;
    let held = rows::tenants(tx, Span::one(tx.tenant())).await?.into_iter().next();
    let mut tenant = held.ok_or(ChangeError::NotFound)?;
    if expected.is_some_and(|version| version != tenant.version) {
        return Err(ChangeError::VersionMismatch { current: tenant.version });
    }
    let was = tenant.clone();
    let before = shown(&tenant, &secret_names(tx).await?, false);
    let new_domains = patch.custom_domains.is_some();
    let new_secrets = apply(&mut tenant, patch, now)?;
    if tenant == was && !new_domains && new_secrets.is_none() {
        let secret_names = secret_names(tx).await?;
        change.unchanged();
        return Ok(StoredTenant { tenant, secret_names });
    }
    tenant.version += 1;
    rows::update(tx, &tenant).await?;
    terms::keep(tx, &tenant, now).await?;
    outbox::changes::tell(tx, &was, &tenant, now).await?;
    if new_domains && let Some(taken) = rows::replace_domains(tx, &tenant.custom_domains).await? {
        return Err(ChangeError::DomainTaken(taken));
    }
    let writes_secrets = new_secrets.is_some();
    if let Some(members) = new_secrets {
        write_secrets(tx, &sealer, members).await?;
    }
    let secret_names = secret_names(tx).await?;
    let after = shown(&tenant, &secret_names, writes_secrets);
    change.describe(Some(&before), Some(&after));
    change.publish().await?;
    Ok(StoredTenant { tenant, secret_names })
}

/// A tenant as its audit entry sees it: secrets by name, and whether any was written.
fn shown(tenant: &Tenant, secret_names: &[String], written: bool) -> Value {
    let mut shown = serde_json::to_value(tenant).unwrap_or_default();
    if let Value::Object(members) = &mut shown {
        members.insert("secrets".to_owned(), json!({ "names": secret_names, "written": written }));
    }
    shown
}

/// Changes the tenant in memory; what the patch says about secrets comes back.
fn apply(
    tenant: &mut Tenant,
    patch: TenantPatch,
    now: UnixMs,
) -> Result<Option<Members<Secret>>, ChangeError> {
    let set = |field: &mut String, value: Option<String>| {
        if let Some(value) = value {
            *field = value;
        }
    };
    set(&mut tenant.organization_name, patch.organization_name);
    set(&mut tenant.display_name, patch.display_name);
    set(&mut tenant.admin_email, patch.admin_email);
    set(&mut tenant.plan, patch.plan);
    if let Some(status) = patch.status {
        lifecycle::apply(tenant, status, now)?;
    }
    if let Some(domains) = patch.custom_domains {
        tenant.custom_domains = domains;
        tenant.custom_domains.sort();
        tenant.custom_domains.dedup();
    }
    merge(&mut tenant.quota_overrides, patch.quota_overrides);
    if let Some(day) = patch.quota_anchor_day {
        tenant.quota_anchor = tenant.quota_anchor.moved(day, now)?;
    }
    if let Some(gdpr) = patch.gdpr {
        gdpr.apply(&mut tenant.gdpr);
    }
    merge(&mut tenant.attributes, patch.attributes);
    if tenant.attributes.len() > ATTRIBUTES_MAX {
        return Err(ChangeError::TooMany { field: "attributes", most: ATTRIBUTES_MAX });
    }
    Ok(patch.secrets)
}

fn merge<T>(held: &mut BTreeMap<String, T>, patch: Option<Members<T>>) {
    match patch {
        None => {}
        Some(Members::Clear) => held.clear(),
        Some(Members::Merge(members)) => {
            for (name, value) in members {
                match value {
                    Some(value) => drop(held.insert(name, value)),
                    None => drop(held.remove(&name)),
                }
            }
        }
    }
}

async fn write_secrets(
    tx: &mut TenantTx,
    sealer: &Sealer,
    members: Members<Secret>,
) -> Result<(), ChangeError> {
    match members {
        Members::Clear => secrets::forget(tx, None).await?,
        Members::Merge(members) => {
            for (name, value) in members {
                match value {
                    Some(value) => secrets::put(tx, sealer, &name, &value).await?,
                    None => secrets::forget(tx, Some(&name)).await?,
                }
            }
        }
    }
    if secret_names(tx).await?.len() > SECRETS_MAX {
        return Err(ChangeError::TooMany { field: "secrets", most: SECRETS_MAX });
    }
    Ok(())
}

async fn secret_names(tx: &mut TenantTx) -> Result<Vec<String>, StoreError> {
    let tenant = tx.tenant();
    Ok(secrets::names(tx, Span::one(tenant)).await?.remove(&tenant).unwrap_or_default())
}
