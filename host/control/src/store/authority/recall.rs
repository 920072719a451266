//! What a report's answer asks for: epochs to seal, and shares of lost holders.
//!
//! Both start from the index of what is closing, so an answer costs nothing for tenants of
//! which nothing is. Invariant: whatever is left out of one answer is in a later one.

use model::{
    clock::UnixMs,
    ledger::{EpochRef, Fence, HolderId, WindowKey},
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
    uint,
};

/// Epochs of each kind that one answer asks to be sealed: as many as one report may seal.
const RECALLS_MAX: i64 = 512;
/// Shares that one answer asks for: each is a call of the dispatcher.
const LOST_MAX: usize = 128;

/// An epoch with the whole key of its window.
#[derive(FromRow)]
pub(super) struct EpochRow {
    tenant: Uuid,
    metric: String,
    start_ms: i64,
    end_ms: i64,
    epoch: i64,
}

impl EpochRow {
    /// `None` for a metric of a later release.
    pub(super) fn epoch(&self) -> Option<EpochRef> {
        let window = Window { start: UnixMs(uint(self.start_ms)), end: UnixMs(uint(self.end_ms)) };
        let metric = Metric::from_name(&self.metric)?;
        let key = WindowKey { tenant: TenantId(self.tenant), metric, window };
        Some(EpochRef { key, epoch: uint(self.epoch) })
    }
}

/// Columns of an [`EpochRow`], of epochs `e` of windows `w`.
macro_rules! epochs_of_windows {
    () => {
        "SELECT e.tenant_id AS tenant, e.metric, e.start_ms, w.end_ms, e.epoch
         FROM quota_epoch e CROSS JOIN quota_window w
         WHERE w.tenant_id = e.tenant_id AND w.metric = e.metric AND w.start_ms = e.start_ms"
    };
}

/// A condition: holder `$1` has not sealed epoch `e`.
macro_rules! not_sealed {
    () => {
        "NOT EXISTS (SELECT 1 FROM quota_report m WHERE m.tenant_id = e.tenant_id
             AND m.metric = e.metric AND m.start_ms = e.start_ms AND m.epoch = e.epoch
             AND m.holder = $1 AND m.lease = 0)"
    };
}

/// Closing epochs that a holder has not sealed: shared ones, the oldest of a window first,
/// and its own.
pub(super) async fn recalls(
    tx: &mut ControlTx,
    holder: HolderId,
) -> Result<(Vec<EpochRef>, Vec<EpochRef>), StoreError> {
    let own: Vec<EpochRow> = sql(concat!(
        epochs_of_windows!(),
        " AND e.fence = $2 AND e.shared = 0 AND e.state = 'closing' AND ",
        not_sealed!(),
        " LIMIT $3"
    ))
    .bind(holder.0)
    .bind(Fence::Holder(holder).to_string())
    .bind(RECALLS_MAX)
    .all(tx)
    .await?;
    let shared: Vec<EpochRow> = sql(concat!(
        epochs_of_windows!(),
        " AND e.shared = 1 AND e.state = 'closing' AND ",
        not_sealed!(),
        " ORDER BY e.tenant_id, e.metric, e.start_ms, e.epoch LIMIT $2"
    ))
    .bind(holder.0)
    .bind(RECALLS_MAX)
    .all(tx)
    .await?;
    let epochs = |rows: Vec<EpochRow>| rows.iter().filter_map(EpochRow::epoch).collect();
    Ok((epochs(shared), epochs(own)))
}

/// A closing epoch and a lost holder whose share of it is missing.
#[derive(FromRow)]
struct LostRow {
    #[sqlx(flatten)]
    epoch: EpochRow,
    fence: String,
    holder: Uuid,
}

/// Missing shares of closing epochs. Every report starts at another tenant: shares that
/// nobody can tell, because their dispatcher is gone, must not hide the others.
pub(super) async fn lost(
    tx: &mut ControlTx,
    number: u64,
) -> Result<Vec<(EpochRef, Fence, HolderId)>, StoreError> {
    let from = turn(number);
    let mut rows = lost_of(tx, from, Uuid::max(), LOST_MAX).await?;
    if rows.len() < LOST_MAX {
        let rest = LOST_MAX - rows.len();
        rows.extend(lost_of(tx, Uuid::nil(), from, rest).await?);
    }
    let share =
        |row: &LostRow| Some((row.epoch.epoch()?, row.fence.parse().ok()?, HolderId(row.holder)));
    Ok(rows.iter().filter_map(share).collect())
}

/// Missing shares of the tenants from `first` to before `end`.
async fn lost_of(
    tx: &mut ControlTx,
    first: Uuid,
    end: Uuid,
    max: usize,
) -> Result<Vec<LostRow>, StoreError> {
    sql("SELECT e.tenant_id AS tenant, e.metric, e.start_ms, w.end_ms, e.epoch, e.fence, r.holder
         FROM quota_epoch e CROSS JOIN quota_report r CROSS JOIN quota_window w
         WHERE e.shared = 1 AND e.state = 'closing' AND e.tenant_id >= $1 AND e.tenant_id < $2
           AND r.tenant_id = e.tenant_id AND r.metric = e.metric AND r.start_ms = e.start_ms
           AND r.epoch = e.epoch AND r.lease = 0 AND r.sealed = 0
           AND w.tenant_id = e.tenant_id AND w.metric = e.metric AND w.start_ms = e.start_ms
         ORDER BY e.tenant_id, e.metric, e.start_ms, e.epoch LIMIT $3")
    .bind(first)
    .bind(end)
    .bind(i64::try_from(max).unwrap_or(i64::MAX))
    .all(tx)
    .await
}

/// A tenant id that falls elsewhere for every number: multiples of the golden ratio spread
/// evenly.
fn turn(number: u64) -> Uuid {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    Uuid::from_u128(u128::from(number.wrapping_mul(GOLDEN)) << 64)
}
