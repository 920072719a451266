//! A tenant's move to another parent, with its whole subtree.
//!
//! Residency, plan and quotas stay the tenant's own. Invariants: a move never closes a
//! cycle nor makes a family too deep, and takes nobody out of a consolidation that bills
//! them; whatever is refused leaves the family as it was.

use std::{collections::BTreeSet, sync::Arc};

use model::{
    clock::UnixMs,
    tenant::{FAMILY_DEPTH_MAX, Status, Tenant, TenantId},
};
use serde_json::json;

use super::closure;
use crate::store::{
    Store, StoreError,
    audit::{Act, Actor},
    billing::settings,
    change::{Change, detached},
    db::{ControlTx, Installation, sql},
    pools::tokens::Moving,
    rows::{self, Span},
};

/// Why a tenant was not moved.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// There is no such tenant.
    #[error("there is no such tenant")]
    NotFound,
    /// The tenant has changed since the caller read it.
    #[error("the tenant is at version {current}")]
    VersionMismatch {
        /// The version it has.
        current: u64,
    },
    /// The tenant's data is going, or has gone.
    #[error("an erased tenant stays where it is")]
    Erased,
    /// There is no such parent, or it is being erased.
    #[error("the parent does not exist")]
    ParentUnknown,
    /// The parent is the tenant itself, or below it.
    #[error("the parent {0} is the tenant itself, or one of its descendants")]
    Cycle(TenantId),
    /// The family would have too many levels.
    #[error(
        "a family has at most {FAMILY_DEPTH_MAX} levels: {above} down to the parent, and {below} \
        of the tenant with its subtree"
    )]
    TooDeep {
        /// Levels down to the new parent.
        above: i64,
        /// Levels of what moves.
        below: i64,
    },
    /// A tenant that the move would leave behind bills what moves.
    #[error("the billing consolidation of {by} has a share for {bears}: take it out first")]
    Billed {
        /// Whose consolidation.
        by: TenantId,
        /// Who has a share in it.
        bears: TenantId,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// Moves a tenant below another parent, or makes it a root; published when this returns.
    /// With `expected`, only that version of the tenant.
    ///
    /// # Errors
    /// As [`MoveError`] says.
    pub async fn move_tenant(
        self: &Arc<Self>,
        by: &Actor,
        id: TenantId,
        parent: Option<TenantId>,
        expected: Option<u64>,
    ) -> Result<Tenant, MoveError> {
        let (store, act) = (Arc::clone(self), Act::new(by, "tenant.move", ""));
        detached(async move {
            let mut change = Change::of_installation(&store, act).await?;
            change.about(id);
            let outcome = write(&mut change, id, parent, expected, store.clock.now()).await;
            change.end(outcome).await
        })
        .await
    }
}

async fn write(
    change: &mut Change<Installation>,
    id: TenantId,
    parent: Option<TenantId>,
    expected: Option<u64>,
    now: UnixMs,
) -> Result<Tenant, MoveError> {
    let tx = &mut change.tx;
    let mut tenant = tenant(tx, id).await?.ok_or(MoveError::NotFound)?;
    if expected.is_some_and(|version| version != tenant.version) {
        return Err(MoveError::VersionMismatch { current: tenant.version });
    }
    if is_gone(&tenant) {
        return Err(MoveError::Erased);
    }
    if tenant.parent == parent {
        change.unchanged();
        return Ok(tenant);
    }
    check(tx, id, parent, now).await?;
    let moving = Moving::from(tx, id).await?;
    let place = |parent: Option<TenantId>| json!({ "parent_tenant_id": parent });
    let (before, after) = (place(tenant.parent), place(parent));
    tenant.parent = parent;
    tenant.version += 1;
    sql("UPDATE tenant SET parent = $2, version = $3 WHERE id = $1")
        .bind(id.0)
        .bind(parent.map(|parent| parent.0))
        .bind(i64::try_from(tenant.version).unwrap_or(i64::MAX))
        .execute(tx)
        .await?;
    closure::transplant(tx, id, parent, now).await?;
    moving.done(tx, id, now).await?;
    change.describe(Some(&before), Some(&after));
    change.publish_tenant(id).await?;
    Ok(tenant)
}

/// Whether the tenant may stand below the parent.
async fn check(
    tx: &mut ControlTx,
    id: TenantId,
    parent: Option<TenantId>,
    now: UnixMs,
) -> Result<(), MoveError> {
    let mut above = Vec::new();
    if let Some(parent) = parent {
        let held = tenant(tx, parent).await?;
        held.filter(|held| !is_gone(held)).ok_or(MoveError::ParentUnknown)?;
        above = closure::line(tx, parent).await?;
        if above.contains(&id) {
            return Err(MoveError::Cycle(parent));
        }
        let below = closure::levels_below(tx, id).await?;
        let above = i64::try_from(above.len()).unwrap_or(i64::MAX);
        if above.saturating_add(below) > i64::from(FAMILY_DEPTH_MAX) {
            return Err(MoveError::TooDeep { above, below });
        }
    }
    let moving: BTreeSet<_> = closure::subtree(tx, id).await?.into_iter().collect();
    for left in closure::line(tx, id).await? {
        if left == id || above.contains(&left) {
            continue;
        }
        let shares = settings::shares_from(tx, left, now).await?;
        if let Some(bears) = shares.into_iter().find(|tenant| moving.contains(tenant)) {
            return Err(MoveError::Billed { by: left, bears });
        }
    }
    Ok(())
}

async fn tenant(tx: &mut ControlTx, id: TenantId) -> Result<Option<Tenant>, StoreError> {
    Ok(rows::tenants(tx, Span::one(id)).await?.into_iter().next())
}

const fn is_gone(tenant: &Tenant) -> bool {
    matches!(tenant.status, Status::Erasing | Status::Erased)
}
