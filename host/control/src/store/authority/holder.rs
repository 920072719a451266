//! The lives of holders: registered, succeeded, ended.
//!
//! Invariant: a dead holder's tranches are credited only by its own final figures, read by
//! a successor that holds the lock of its lease file; without them they stay charged.
//! Calling a holder dead is therefore safe even when it is wrong.

use model::{
    clock::UnixMs,
    ledger::{EpochReport, Fence, Holder, HolderId, Inherited, Stranded, Will, WindowKey},
    quota::Metric,
    tenant::TenantId,
    window::Window,
};
use sqlx::prelude::FromRow;
use uuid::Uuid;

use super::{
    super::{
        StoreError,
        db::{ControlTx, sql},
    },
    commit::Operation,
    int, report, uint, window,
};

/// Report number of figures from a will: after every number that a living holder used.
const FINAL_NUMBER: u64 = i64::MAX as u64;

/// Inserts the holder.
impl Operation for Holder {
    type Answer = ();

    async fn run(&self, tx: &mut ControlTx, now: UnixMs) -> Result<(), StoreError> {
        sql("INSERT INTO quota_holder (holder, fence, edge, boot, registered_at)
             VALUES ($1, $2, $3, $4, $5)")
        .bind(self.id.0)
        .bind(Fence::Holder(self.id).to_string())
        .bind(&self.edge)
        .bind(self.boot.0)
        .bind(int(now.0))
        .execute(tx)
        .await
        .map(drop)
    }
}

/// Takes the final figures of a predecessor and ends it.
impl Operation for Will {
    type Answer = Inherited;

    async fn run(&self, tx: &mut ControlTx, now: UnixMs) -> Result<Inherited, StoreError> {
        let holder = self.predecessor;
        let boot: Option<(Uuid,)> = sql("SELECT boot FROM quota_holder WHERE holder = $1")
            .bind(holder.0)
            .optional(tx)
            .await?;
        if boot.is_some_and(|(boot,)| boot != self.boot.0) {
            tracing::warn!(%holder, "a will of another uptime is ignored");
            return Ok(Inherited::default());
        }
        let mut inherited = Inherited::default();
        settle(tx, holder, &self.epochs, &mut inherited).await?;
        let rest = never_handed_out(tx, holder).await?;
        settle(tx, holder, &rest, &mut inherited).await?;
        finish(tx, holder, now).await?;
        Ok(inherited)
    }
}

/// Stores figures as the final ones of a dead holder.
async fn settle(
    tx: &mut ControlTx,
    holder: HolderId,
    epochs: &[EpochReport],
    inherited: &mut Inherited,
) -> Result<(), StoreError> {
    window::hold(tx, epochs.iter().map(|figures| figures.key)).await?;
    for figures in epochs {
        let stored = report::store_figures(tx, holder, FINAL_NUMBER, figures).await?;
        inherited.epochs += u64::from(stored.settled);
        inherited.credited += stored.credited;
    }
    Ok(())
}

#[derive(FromRow)]
struct OpenEpoch {
    tenant: Uuid,
    metric: String,
    start_ms: i64,
    end_ms: i64,
    epoch: i64,
    tranche: i64,
}

/// Tranches of a holder's dispatcher that were never leased: they are not in its lease
/// file, and nothing was ever reported as spent of them.
async fn never_handed_out(
    tx: &mut ControlTx,
    holder: HolderId,
) -> Result<Vec<EpochReport>, StoreError> {
    let rows: Vec<OpenEpoch> = sql("SELECT e.tenant_id AS tenant, e.metric, e.start_ms, w.end_ms,
                e.epoch, e.tranche_own + e.tranche_shared AS tranche
         FROM quota_epoch e
         JOIN quota_window w ON w.tenant_id = e.tenant_id AND w.metric = e.metric
          AND w.start_ms = e.start_ms
         WHERE e.fence = $1 AND e.state <> 'reconciled' AND NOT EXISTS (
             SELECT 1 FROM quota_report r
             WHERE r.tenant_id = e.tenant_id AND r.metric = e.metric
               AND r.start_ms = e.start_ms AND r.epoch = e.epoch)")
    .bind(Fence::Holder(holder).to_string())
    .all(tx)
    .await?;
    Ok(rows.iter().filter_map(unspent).collect())
}

fn unspent(row: &OpenEpoch) -> Option<EpochReport> {
    Some(EpochReport {
        key: WindowKey {
            tenant: TenantId(row.tenant),
            metric: Metric::from_name(&row.metric)?,
            window: Window { start: UnixMs(uint(row.start_ms)), end: UnixMs(uint(row.end_ms)) },
        },
        epoch: uint(row.epoch),
        tranche: uint(row.tranche),
        spent: 0,
        refunded: 0,
        sealed: true,
    })
}

/// Ends every other living holder of this heir's edge; what they hold stays charged.
pub(super) struct StrandOthers(pub(super) HolderId);

impl Operation for StrandOthers {
    type Answer = Stranded;

    async fn run(&self, tx: &mut ControlTx, now: UnixMs) -> Result<Stranded, StoreError> {
        let heir = self.0.0;
        let (epochs, tokens): (i64, i64) = sql("SELECT count(*),
                CAST(coalesce(sum(e.tranche_own + e.tranche_shared
                                  - coalesce(r.spent, 0)), 0) AS BIGINT)
             FROM quota_holder h
             JOIN quota_epoch e ON e.fence = h.fence AND e.state <> 'reconciled'
             JOIN quota_window w ON w.tenant_id = e.tenant_id AND w.metric = e.metric
              AND w.start_ms = e.start_ms
             LEFT JOIN quota_report r ON r.tenant_id = e.tenant_id AND r.metric = e.metric
              AND r.start_ms = e.start_ms AND r.epoch = e.epoch AND r.holder = h.holder
             WHERE h.ended_at IS NULL AND h.holder <> $1 AND w.end_ms > $2
               AND h.edge = (SELECT edge FROM quota_holder WHERE holder = $1)")
        .bind(heir)
        .bind(int(now.0))
        .one(tx)
        .await?;
        sql("UPDATE quota_epoch SET state = 'closing'
             WHERE state = 'open' AND fence IN (
                 SELECT fence FROM quota_holder
                 WHERE ended_at IS NULL AND holder <> $1
                   AND edge = (SELECT edge FROM quota_holder WHERE holder = $1))")
        .bind(heir)
        .execute(tx)
        .await?;
        sql("UPDATE quota_holder SET ended_at = $2
             WHERE ended_at IS NULL AND holder <> $1
               AND edge = (SELECT edge FROM quota_holder WHERE holder = $1)")
        .bind(heir)
        .bind(int(now.0))
        .execute(tx)
        .await?;
        Ok(Stranded { epochs: uint(epochs), tokens: uint(tokens) })
    }
}

/// Ends a holder that reported everything.
pub(super) struct End(pub(super) HolderId);

impl Operation for End {
    type Answer = ();

    async fn run(&self, tx: &mut ControlTx, now: UnixMs) -> Result<(), StoreError> {
        finish(tx, self.0, now).await
    }
}

async fn finish(tx: &mut ControlTx, holder: HolderId, now: UnixMs) -> Result<(), StoreError> {
    sql("UPDATE quota_holder SET ended_at = $2 WHERE holder = $1 AND ended_at IS NULL")
        .bind(holder.0)
        .bind(int(now.0))
        .execute(tx)
        .await
        .map(drop)
}
