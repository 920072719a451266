//! How a reservation ends: by the upstream's answer, by a report of its tenant, by hand.
//!
//! Invariant: whoever deletes the row is the one who changes the level, so a settlement that
//! comes twice counts once, also when a report came in between.

use std::collections::BTreeMap;

use model::{clock::UnixMs, quota::Metric, reservation::Outcome, tenant::TenantId};
use uuid::Uuid;

use super::{Held, add_reserved, metric};
use crate::store::{
    Store, StoreError,
    audit::{self, Act, Actor},
    authority::uint,
    db::{ControlTx, Purpose, TenantTx, locking, sql},
    levels::{self, LEVEL_MAX},
    rows::stored,
};

/// Why a reservation was not settled by hand.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// There is none of this id.
    #[error("there is no such reservation")]
    NotFound,
    /// An edge vouches for it.
    #[error("the request that it is for is under way")]
    UnderWay,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// Ends a reservation by what became of its request; false when it was ended before.
    /// Durable when answered.
    ///
    /// # Errors
    /// The store failed; it may be tried again.
    pub async fn settle_reservation(
        &self,
        held: Held,
        outcome: Outcome,
    ) -> Result<bool, StoreError> {
        let now = self.clock.now();
        let mut tx = self.db.control(Purpose::Account).await?;
        let settled = match outcome {
            Outcome::Taken(delta) => end(&mut tx, held, delta, now).await,
            Outcome::Nothing => end(&mut tx, held, 0, now).await,
            Outcome::Unknown => leave(&mut tx, held, now).await,
        };
        tx.end(settled).await
    }

    /// Ends a reservation that nobody vouches for: the level changes by `delta`, 0 when
    /// nothing was stored. One audit entry.
    ///
    /// # Errors
    /// There is none of this id, its request is under way, or the store failed.
    pub async fn resolve_reservation(
        &self,
        by: &Actor,
        tenant: TenantId,
        id: Uuid,
        delta: i64,
    ) -> Result<(), SettleError> {
        let act = Act::new(by, "usage.resolve", id.to_string());
        let mut tx = self.db.control(Purpose::Account).await?;
        let resolved = resolve(&mut tx, act, tenant, id, delta, self.clock.now()).await;
        tx.end(resolved).await
    }
}

/// Deletes the row, and with it changes the level.
async fn end(tx: &mut ControlTx, held: Held, delta: i64, now: UnixMs) -> Result<bool, StoreError> {
    let Held { tenant, metric, id } = held;
    let level = levels::hold(tx, tenant, metric, now).await?;
    let ended: Option<(i64,)> = sql("DELETE FROM usage_reservation
         WHERE tenant_id = $1 AND id = $2 RETURNING amount")
    .bind(tenant.0)
    .bind(id)
    .optional(tx)
    .await?;
    let Some((amount,)) = ended else { return Ok(false) };
    add_reserved(tx, tenant, metric, -amount).await?;
    if delta != 0 {
        let level = level.used.saturating_add_signed(delta).min(LEVEL_MAX);
        levels::set(tx, tenant, metric, level, now).await?;
    }
    Ok(true)
}

/// From now on nobody vouches for it, also no renewal that is under way.
async fn leave(tx: &mut ControlTx, held: Held, now: UnixMs) -> Result<bool, StoreError> {
    let left = sql("UPDATE usage_reservation SET expires_at = $3, run = $4
         WHERE tenant_id = $1 AND id = $2 AND expires_at > $3")
    .bind(held.tenant.0)
    .bind(held.id)
    .bind(stored(now))
    .bind(Uuid::nil())
    .execute(tx)
    .await?;
    Ok(left == 1)
}

async fn resolve(
    tx: &mut ControlTx,
    mut act: Act,
    tenant: TenantId,
    id: Uuid,
    delta: i64,
    now: UnixMs,
) -> Result<(), SettleError> {
    let of: Option<(String,)> =
        sql("SELECT metric FROM usage_reservation WHERE tenant_id = $1 AND id = $2")
            .bind(tenant.0)
            .bind(id)
            .optional(tx)
            .await?;
    let metric = metric(&of.ok_or(SettleError::NotFound)?.0)?;
    let before = levels::hold(tx, tenant, metric, now).await?;
    // Again, now that nobody else can change it.
    let expires_at: Option<(i64,)> =
        locking!("SELECT expires_at FROM usage_reservation WHERE tenant_id = $1 AND id = $2")
            .bind(tenant.0)
            .bind(id)
            .optional(tx)
            .await?;
    let (expires_at,) = expires_at.ok_or(SettleError::NotFound)?;
    if expires_at > stored(now) {
        return Err(SettleError::UnderWay);
    }
    end(tx, Held { tenant, metric, id }, delta, now).await?;
    let after = levels::hold(tx, tenant, metric, now).await?;
    let shown = |level: levels::Level| {
        BTreeMap::from([(metric.as_str(), level.used), ("reserved", level.reserved)])
    };
    act.describe(Some(&shown(before)), Some(&shown(after)));
    audit::append(tx, tenant, &act, now).await?;
    Ok(())
}

/// Within a report of a tenant's level: it includes what became of requests whose edge is
/// gone, so nothing is set aside for them any more.
pub(in crate::store) async fn end_unknown(
    tx: &mut TenantTx,
    metric: Metric,
    now: UnixMs,
) -> Result<(), StoreError> {
    let tenant = tx.tenant();
    let ended: Vec<(i64,)> = sql("DELETE FROM usage_reservation
         WHERE tenant_id = $1 AND metric = $2 AND expires_at <= $3 RETURNING amount")
    .bind(tenant.0)
    .bind(metric.as_str())
    .bind(stored(now))
    .all(tx)
    .await?;
    let amount: i64 = ended.iter().map(|(amount,)| *amount).sum();
    if amount != 0 {
        tracing::info!(
            %tenant,
            metric = metric.as_str(),
            reservations = ended.len(),
            amount = uint(amount),
            "a report ended reservations whose outcome was not known"
        );
        add_reserved(tx, tenant, metric, -amount).await?;
    }
    Ok(())
}
