//! Billing consolidation: effective-dated, with its history.
//!
//! Written under the directory's lock, as moves are: a tenant with a share cannot leave the
//! subtree, and one outside of it gets none. Invariant: nothing takes effect in the past.

use std::{collections::BTreeSet, sync::Arc};

use model::{billing::Consolidation, clock::UnixMs, tenant::TenantId};
use serde_json::json;

use crate::store::{
    Store, StoreError,
    audit::{Act, Actor, Shown},
    change::{Change, detached},
    db::{ControlTx, Installation, Purpose, sql},
    hierarchy::closure,
    rows,
};

/// Settings that are shown: years of changes. Older ones stay stored and keep their effect.
const SHOWN_MAX: i64 = 100;

/// A consolidation and when it comes into force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// In force from this instant until the next settings.
    pub effective_from: UnixMs,
    /// What then holds.
    pub consolidation: Consolidation,
}

/// The billing settings of a tenant over time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BillingSettings {
    /// In force; `None` means that every tenant gets its own invoice.
    pub current: Option<Settings>,
    /// Not yet in force, the next one first.
    pub upcoming: Vec<Settings>,
    /// No longer in force, the latest first.
    pub past: Vec<Settings>,
}

impl BillingSettings {
    /// Names the settings as they were set, whichever of them is in force by now: the same
    /// tag, the same settings.
    #[must_use]
    pub fn tag(&self) -> String {
        let mut set: Vec<_> = self.past.iter().chain(&self.current).chain(&self.upcoming).collect();
        set.sort_by_key(|settings| settings.effective_from);
        let set: Vec<_> = set
            .into_iter()
            .map(|settings| json!([settings.effective_from.0, settings.consolidation]))
            .collect();
        model::audit::digest(json!(set).to_string().as_bytes())
    }
}

/// Why settings were not stored.
#[derive(Debug, thiserror::Error)]
pub enum BillingError {
    /// There is no such tenant.
    #[error("there is no such tenant")]
    NotFound,
    /// They are not as the caller knows them.
    #[error("the billing settings have changed")]
    TagMismatch,
    /// Tenants with a share do not belong to the subtree.
    #[error("not in the subtree of the parent")]
    Outside(Vec<TenantId>),
    /// They would take effect before now.
    #[error("may not lie in the past: it is {}", now.rfc3339())]
    Past {
        /// The time.
        now: UnixMs,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// The billing settings of a tenant.
    ///
    /// # Errors
    /// The store failed.
    pub async fn billing(&self, tenant: TenantId) -> Result<BillingSettings, StoreError> {
        let mut tx = self.db.control(Purpose::Read).await?;
        let settings = all(&mut tx, tenant, self.clock.now()).await;
        tx.end(settings).await
    }

    /// Puts settings in force from an instant on; `None` is now. Those that were to come
    /// into force at the same instant are replaced, other ones stay. With `if_tag`, only when
    /// [`BillingSettings::tag`] of what there is says the same.
    ///
    /// # Errors
    /// As [`BillingError`] says.
    pub async fn set_billing(
        self: &Arc<Self>,
        by: &Actor,
        tenant: TenantId,
        consolidation: Consolidation,
        effective_from: Option<UnixMs>,
        if_tag: Option<String>,
    ) -> Result<BillingSettings, BillingError> {
        let (store, act) = (Arc::clone(self), Act::new(by, "billing.set", ""));
        detached(async move {
            let now = store.clock.now();
            let effective_from = effective_from.unwrap_or(now);
            let settings = Settings { effective_from, consolidation };
            let mut change = Change::of_installation(&store, act).await?;
            change.about(tenant);
            let outcome = write(&mut change, (tenant, if_tag), settings, now).await;
            change.end(outcome).await
        })
        .await
    }
}

async fn write(
    change: &mut Change<Installation>,
    (tenant, if_tag): (TenantId, Option<String>),
    settings: Settings,
    now: UnixMs,
) -> Result<BillingSettings, BillingError> {
    if settings.effective_from < now {
        return Err(BillingError::Past { now });
    }
    let tx = &mut change.tx;
    let family: BTreeSet<_> = closure::subtree(tx, tenant).await?.into_iter().collect();
    if family.is_empty() {
        return Err(BillingError::NotFound);
    }
    if let Some(expected) = if_tag
        && expected != all(tx, tenant, now).await?.tag()
    {
        return Err(BillingError::TagMismatch);
    }
    let outside: Vec<_> =
        bearers(&settings.consolidation).filter(|bearer| !family.contains(bearer)).collect();
    if !outside.is_empty() {
        return Err(BillingError::Outside(outside));
    }
    let before = before(tx, tenant, settings.effective_from.plus_ms(1)).await?;
    sql("INSERT INTO billing_consolidation (tenant_id, effective_from, document)
         VALUES ($1, $2, $3)
         ON CONFLICT (tenant_id, effective_from) DO UPDATE SET document = excluded.document")
    .bind(tenant.0)
    .bind(rows::stored(settings.effective_from))
    .bind(rows::json(&settings.consolidation)?)
    .execute(tx)
    .await?;
    let set = all(tx, tenant, now).await?;
    change.target(&settings.effective_from.rfc3339());
    let before = before.as_ref().map(|before| before as &dyn Shown);
    change.describe(before, Some(&settings.consolidation));
    Ok(set)
}

async fn all(
    tx: &mut ControlTx,
    tenant: TenantId,
    now: UnixMs,
) -> Result<BillingSettings, StoreError> {
    let rows = sql("SELECT effective_from, document FROM billing_consolidation
         WHERE tenant_id = $1 ORDER BY effective_from DESC LIMIT $2")
    .bind(tenant.0)
    .bind(SHOWN_MAX)
    .all(tx)
    .await?;
    let mut sorted = BillingSettings::default();
    for row in rows {
        let settings = read(row)?;
        if settings.effective_from > now {
            sorted.upcoming.insert(0, settings);
        } else if sorted.current.is_none() {
            sorted.current = Some(settings);
        } else {
            sorted.past.push(settings);
        }
    }
    Ok(sorted)
}

/// The settings in force just before an instant.
pub(super) async fn before(
    tx: &mut ControlTx,
    tenant: TenantId,
    end: UnixMs,
) -> Result<Option<Consolidation>, StoreError> {
    let row = sql("SELECT effective_from, document FROM billing_consolidation
         WHERE tenant_id = $1 AND effective_from < $2 ORDER BY effective_from DESC LIMIT 1")
    .bind(tenant.0)
    .bind(rows::stored(end))
    .optional(tx)
    .await?;
    Ok(row.map(read).transpose()?.map(|settings| settings.consolidation))
}

/// Who has a share in the settings of a tenant that are in force at `now`, or will be.
pub(in crate::store) async fn shares_from(
    tx: &mut ControlTx,
    tenant: TenantId,
    now: UnixMs,
) -> Result<Vec<TenantId>, StoreError> {
    let rows = sql("SELECT effective_from, document FROM billing_consolidation
         WHERE tenant_id = $1 AND effective_from >= coalesce(
             (SELECT MAX(effective_from) FROM billing_consolidation
              WHERE tenant_id = $1 AND effective_from <= $2), 0)
         ORDER BY effective_from")
    .bind(tenant.0)
    .bind(rows::stored(now))
    .all(tx)
    .await?;
    let mut found = Vec::new();
    for row in rows {
        found.extend(bearers(&read(row)?.consolidation));
    }
    Ok(found)
}

fn bearers(consolidation: &Consolidation) -> impl Iterator<Item = TenantId> {
    consolidation.shares.iter().flat_map(|shares| shares.iter()).map(|share| share.tenant)
}

fn read((effective_from, document): (i64, String)) -> Result<Settings, StoreError> {
    Ok(Settings {
        effective_from: rows::instant(effective_from),
        consolidation: rows::object(&document)?,
    })
}
