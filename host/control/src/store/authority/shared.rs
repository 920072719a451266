//! Shared epochs: which may be spent, and how they start closing.
//!
//! Invariants: the open ones of a window are always the last of its shared epochs, so two
//! figures ([`Bounds`]) tell which they are; whoever closes one holds its window and
//! reconciles nothing in the same transaction, so that the list of holders that decides
//! about the credit is read after `closing` was committed.

#[cfg(test)]
mod tests;

use model::{
    clock::UnixMs,
    ledger::{Bounds, EpochRef, Fence, HolderId, Standing, WindowKey},
};
use sqlx::prelude::FromRow;

use super::{
    super::{
        StoreError,
        db::{ControlTx, sql},
    },
    commit::Operation,
    given::{given, on_given},
    lives, of, uint, window,
};

/// Starts closing the shared epochs before `epoch`, but `kept` if it has the same fence.
pub(super) async fn close_but(
    tx: &mut ControlTx,
    key: &WindowKey,
    epoch: i64,
    kept: i64,
    fence: Fence,
) -> Result<(), StoreError> {
    let close = sql("UPDATE quota_epoch SET state = 'closing'
         WHERE tenant_id = $1 AND metric = $2 AND start_ms = $3 AND epoch < $4
           AND shared = 1 AND state = 'open' AND NOT (epoch = $5 AND fence = $6)");
    let closed = of(close, key).bind(epoch).bind(kept).bind(fence.to_string()).execute(tx).await?;
    raise_floor(tx, key, closed).await
}

/// Starts closing the shared epochs before `epoch`.
pub(super) async fn close_before(
    tx: &mut ControlTx,
    key: &WindowKey,
    epoch: i64,
) -> Result<(), StoreError> {
    let close = sql("UPDATE quota_epoch SET state = 'closing'
         WHERE tenant_id = $1 AND metric = $2 AND start_ms = $3 AND epoch < $4
           AND shared = 1 AND state = 'open'");
    let closed = of(close, key).bind(epoch).execute(tx).await?;
    raise_floor(tx, key, closed).await
}

/// Raises the floor to the highest shared epoch that is no longer open.
async fn raise_floor(tx: &mut ControlTx, key: &WindowKey, closed: u64) -> Result<(), StoreError> {
    if closed == 0 {
        return Ok(());
    }
    let raise = sql("UPDATE quota_window SET shared_floor = (
             SELECT max(e.epoch) FROM quota_epoch e
             WHERE e.tenant_id = $1 AND e.metric = $2 AND e.start_ms = $3
               AND e.shared = 1 AND e.state <> 'open')
         WHERE tenant_id = $1 AND metric = $2 AND start_ms = $3");
    of(raise, key).execute(tx).await.map(drop)
}

/// Closes every open shared epoch of these accounts.
pub(super) struct Close(pub(super) Vec<WindowKey>);

impl Operation for Close {
    type Answer = ();

    async fn run(&self, tx: &mut ControlTx, _: UnixMs) -> Result<(), StoreError> {
        window::hold(tx, self.0.iter().copied()).await?;
        for key in &self.0 {
            close_before(tx, key, i64::MAX).await?;
        }
        Ok(())
    }
}

/// Asks for bounds on behalf of a holder.
pub(super) struct Confirm(pub(super) HolderId, pub(super) Vec<WindowKey>);

impl Operation for Confirm {
    type Answer = Option<Vec<Option<Standing>>>;

    async fn run(&self, tx: &mut ControlTx, _: UnixMs) -> Result<Self::Answer, StoreError> {
        if !lives::stays_alive(tx, self.0).await? {
            return Ok(None);
        }
        standings(tx, &self.1).await.map(Some)
    }
}

/// An account's row in the order that was asked for.
#[derive(FromRow)]
struct StandingRow {
    shared_floor: Option<i64>,
    shared_latest: i64,
    available: i64,
}

/// The standing of accounts, in the order of the keys. Whoever passes it on to a holder has
/// made sure that it stays alive until the end of the transaction.
pub(super) async fn standings(
    tx: &mut ControlTx,
    keys: &[WindowKey],
) -> Result<Vec<Option<Standing>>, StoreError> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<StandingRow> = on_given!(
        "SELECT w.shared_floor, coalesce(w.shared_latest, 0) AS shared_latest,
                CASE WHEN w.pool_dry = (SELECT p.freed FROM quota_pool p
                     WHERE p.tenant_id = w.pool_top AND p.metric = w.metric) THEN 0
                ELSE coalesce(w.limit_tokens - w.granted + w.credited, 0) END AS available
         FROM given g LEFT JOIN quota_window w ON w.tenant_id = g.tenant_id
          AND w.metric = g.metric AND w.start_ms = g.start_ms
         ORDER BY g.n"
    )
    .bind(given(keys.iter().map(|key| EpochRef { key: *key, epoch: 0 })))
    .all(tx)
    .await?;
    let standing = |row: &StandingRow| {
        let bounds = Bounds { floor: uint(row.shared_floor?), latest: uint(row.shared_latest) };
        Some(Standing { bounds, available: uint(row.available) })
    };
    Ok(rows.iter().map(standing).collect())
}
