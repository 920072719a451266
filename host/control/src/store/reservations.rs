//! Reservations: room set aside for a request under way, row by row.
//!
//! An edge reserves before it reads a body, extends while one of unknown length comes in,
//! renews while it lives, and settles when the upstream has answered (`settle.rs`). Each is
//! one transaction that holds the pools above the tenant, then its level, then the row.
//! Invariants: the `reserved` of a level is the sum of its rows; used and reserved together
//! stay within the limit; time ends no reservation, it only makes its outcome unknown.

mod settle;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use model::{
    catalog::Catalog,
    clock::UnixMs,
    quota::Metric,
    reservation::{Amount, Wanted},
    tenant::TenantId,
};
use uuid::Uuid;

pub use self::settle::SettleError;
pub(super) use self::settle::end_unknown;
use super::{
    Store, StoreError,
    authority::{int, uint},
    db::{ControlTx, Purpose, TenantTx, Tx, locking, sql},
    levels::{ClaimError, Judged},
    rows::{instant, stored},
};

/// One run of one edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EdgeRun {
    /// The edge; the same after a restart.
    pub edge: Uuid,
    /// The run; another after a restart.
    pub run: Uuid,
}

/// Room that an edge asks for.
#[derive(Clone, Copy, Debug)]
pub struct Reserving {
    /// Chosen by the edge, new each time.
    pub id: Uuid,
    /// Who keeps it alive.
    pub by: EdgeRun,
    /// What for.
    pub wanted: Wanted,
    /// How long it is known to be under way, unless renewed.
    pub ttl_ms: u64,
}

/// A reservation as its edge knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Whose.
    pub tenant: TenantId,
    /// Of what.
    pub metric: Metric,
    /// Which.
    pub id: Uuid,
}

/// A reservation as it is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReservationRecord {
    /// Which.
    pub id: Uuid,
    /// Of what.
    pub metric: Metric,
    /// How much, in the metric's own unit.
    pub amount: u64,
    /// Since when.
    pub created_at: UnixMs,
    /// Until when its edge vouches for it.
    pub expires_at: UnixMs,
    /// Whether nobody vouches for it any more.
    pub unresolved: bool,
}

/// What is set aside of a level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAside {
    /// In all.
    pub reserved: u64,
    /// Of it, what nobody vouches for any more.
    pub unresolved: u64,
}

/// What nobody vouches for of a metric, in all tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unresolved {
    /// Of what.
    pub metric: Metric,
    /// How many.
    pub reservations: u64,
    /// How much they hold back, in the metric's own unit.
    pub amount: u64,
}

impl Store {
    /// Sets room aside, as much of what is wanted as there is; durable when answered. How
    /// much. `catalog` says the plans' quotas.
    ///
    /// # Errors
    /// There is no room, no such tenant, or the store failed.
    pub async fn reserve(
        &self,
        reserving: &Reserving,
        catalog: &Catalog,
    ) -> Result<u64, ClaimError> {
        let mut tx = self.db.control(Purpose::Account).await?;
        let outcome = reserve(&mut tx, reserving, catalog, self.clock.now()).await;
        tx.end(outcome).await
    }

    /// Sets more room aside for a reservation that lives. How much more.
    ///
    /// # Errors
    /// There is no room, the reservation does not live, or the store failed.
    pub async fn extend_reservation(
        &self,
        held: Held,
        more: Amount,
        catalog: &Catalog,
    ) -> Result<u64, ClaimError> {
        let mut tx = self.db.control(Purpose::Account).await?;
        let outcome = extend(&mut tx, held, more, catalog, self.clock.now()).await;
        tx.end(outcome).await
    }

    /// Renews the living reservations of a run, and says which.
    ///
    /// # Errors
    /// The store failed.
    pub async fn renew_reservations(
        &self,
        by: EdgeRun,
        ttl_ms: u64,
    ) -> Result<Vec<Uuid>, StoreError> {
        let now = self.clock.now();
        let mut tx = self.db.control(Purpose::Account).await?;
        let renewed = sql("UPDATE usage_reservation SET expires_at = $3
             WHERE edge = $1 AND run = $2 AND expires_at > $4 RETURNING id")
        .bind(by.edge)
        .bind(by.run)
        .bind(stored(now.plus_ms(ttl_ms)))
        .bind(stored(now))
        .all(&mut tx)
        .await;
        let renewed: Vec<(Uuid,)> = tx.end(renewed).await?;
        Ok(renewed.into_iter().map(|(id,)| id).collect())
    }

    /// Says that nobody vouches for the reservations of earlier runs of an edge: it has
    /// started again. They stay counted. How many there are.
    ///
    /// # Errors
    /// The store failed.
    pub async fn leave_earlier_reservations(&self, by: EdgeRun) -> Result<u64, StoreError> {
        let now = stored(self.clock.now());
        let mut tx = self.db.control(Purpose::Account).await?;
        let left = sql("UPDATE usage_reservation SET expires_at = $3
             WHERE edge = $1 AND run <> $2 AND expires_at > $3")
        .bind(by.edge)
        .bind(by.run)
        .bind(now)
        .execute(&mut tx)
        .await;
        tx.end(left).await
    }

    /// What nobody vouches for, by metric; those without are absent.
    ///
    /// # Errors
    /// The store failed.
    pub async fn unresolved(&self) -> Result<Vec<Unresolved>, StoreError> {
        let mut tx = self.db.control(Purpose::Read).await?;
        let rows = sql("SELECT metric, count(*), CAST(sum(amount) AS BIGINT)
             FROM usage_reservation WHERE expires_at <= $1 GROUP BY metric")
        .bind(stored(self.clock.now()))
        .all(&mut tx)
        .await;
        let rows: Vec<(String, i64, i64)> = tx.end(rows).await?;
        let of = |(name, reservations, amount): (String, i64, i64)| {
            let (reservations, amount) = (uint(reservations), uint(amount));
            Ok(Unresolved { metric: metric(&name)?, reservations, amount })
        };
        rows.into_iter().map(of).collect()
    }

    /// What is set aside of each level of a tenant; those without are absent.
    ///
    /// # Errors
    /// The store failed.
    pub async fn set_aside(
        &self,
        tenant: TenantId,
    ) -> Result<BTreeMap<Metric, SetAside>, StoreError> {
        let mut tx = self.db.tenant(tenant, Purpose::Read).await?;
        let sums = sums(&mut tx, self.clock.now()).await;
        tx.end(sums).await
    }

    /// Up to `limit` reservations of a tenant, the oldest first, after the one that was made
    /// at a time under an id.
    ///
    /// # Errors
    /// The store failed.
    pub async fn reservations(
        &self,
        tenant: TenantId,
        after: Option<(UnixMs, Uuid)>,
        limit: u32,
    ) -> Result<Vec<ReservationRecord>, StoreError> {
        let mut tx = self.db.tenant(tenant, Purpose::Read).await?;
        let records = list(&mut tx, after, limit, self.clock.now()).await;
        tx.end(records).await
    }
}

async fn reserve(
    tx: &mut ControlTx,
    reserving: &Reserving,
    catalog: &Catalog,
    now: UnixMs,
) -> Result<u64, ClaimError> {
    let Reserving { id, by, wanted: Wanted { tenant, metric, amount }, ttl_ms } = *reserving;
    let judged = Judged::hold(tx, tenant, metric, now).await?;
    let room = judged.room(tx, amount, catalog).await?;
    sql("INSERT INTO usage_reservation
         (tenant_id, id, metric, amount, edge, run, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)")
    .bind(tenant.0)
    .bind(id)
    .bind(metric.as_str())
    .bind(int(room))
    .bind(by.edge)
    .bind(by.run)
    .bind(stored(now))
    .bind(stored(now.plus_ms(ttl_ms)))
    .execute(tx)
    .await?;
    add_reserved(tx, tenant, metric, int(room)).await?;
    Ok(room)
}

async fn extend(
    tx: &mut ControlTx,
    held: Held,
    more: Amount,
    catalog: &Catalog,
    now: UnixMs,
) -> Result<u64, ClaimError> {
    let Held { tenant, metric, id } = held;
    let judged = Judged::hold(tx, tenant, metric, now).await?;
    let living: Option<(i64,)> = locking!(
        "SELECT amount FROM usage_reservation
         WHERE tenant_id = $1 AND id = $2 AND expires_at > $3"
    )
    .bind(tenant.0)
    .bind(id)
    .bind(stored(now))
    .optional(tx)
    .await?;
    if living.is_none() {
        return Err(ClaimError::NotFound);
    }
    let room = judged.room(tx, more, catalog).await?;
    sql("UPDATE usage_reservation SET amount = amount + $3 WHERE tenant_id = $1 AND id = $2")
        .bind(tenant.0)
        .bind(id)
        .bind(int(room))
        .execute(tx)
        .await?;
    add_reserved(tx, tenant, metric, int(room)).await?;
    Ok(room)
}

/// Changes what is set aside of a level, whose row exists.
async fn add_reserved<S>(
    tx: &mut Tx<S>,
    tenant: TenantId,
    metric: Metric,
    by: i64,
) -> Result<(), StoreError> {
    sql("UPDATE usage_level SET reserved = reserved + $3 WHERE tenant_id = $1 AND metric = $2")
        .bind(tenant.0)
        .bind(metric.as_str())
        .bind(by)
        .execute(tx)
        .await
        .map(drop)
}

async fn sums(tx: &mut TenantTx, now: UnixMs) -> Result<BTreeMap<Metric, SetAside>, StoreError> {
    let rows: Vec<(String, i64, i64)> = sql("SELECT metric, CAST(SUM(amount) AS BIGINT),
             CAST(SUM(CASE WHEN expires_at <= $2 THEN amount ELSE 0 END) AS BIGINT)
         FROM usage_reservation WHERE tenant_id = $1 GROUP BY metric")
    .bind(tx.tenant().0)
    .bind(stored(now))
    .all(tx)
    .await?;
    let sum = |(name, reserved, unresolved): (String, i64, i64)| {
        let sum = SetAside { reserved: uint(reserved), unresolved: uint(unresolved) };
        Ok((metric(&name)?, sum))
    };
    rows.into_iter().map(sum).collect()
}

async fn list(
    tx: &mut TenantTx,
    after: Option<(UnixMs, Uuid)>,
    limit: u32,
    now: UnixMs,
) -> Result<Vec<ReservationRecord>, StoreError> {
    let (at, id) = after.unwrap_or((UnixMs(0), Uuid::nil()));
    let rows: Vec<(Uuid, String, i64, i64, i64)> =
        sql("SELECT id, metric, amount, created_at, expires_at FROM usage_reservation
             WHERE tenant_id = $1 AND (created_at, id) > ($2, $3)
             ORDER BY created_at, id LIMIT $4")
        .bind(tx.tenant().0)
        .bind(stored(at))
        .bind(id)
        .bind(i64::from(limit))
        .all(tx)
        .await?;
    let record = |(id, name, amount, created_at, expires_at): (Uuid, String, i64, i64, i64)| {
        let expires_at = instant(expires_at);
        Ok(ReservationRecord {
            id,
            metric: metric(&name)?,
            amount: uint(amount),
            created_at: instant(created_at),
            expires_at,
            unresolved: expires_at <= now,
        })
    };
    rows.into_iter().map(record).collect()
}

fn metric(name: &str) -> Result<Metric, StoreError> {
    Metric::from_name(name).ok_or_else(|| StoreError::Decode(format!("reservation of {name:?}")))
}
