//! Windows as rows: locked, made on first use, folded when their details are no longer
//! needed.
//!
//! Invariants: on PostgreSQL, whoever writes anything of a window holds its row until the
//! end, so that operations on one window come one after another, each seeing what the one
//! before committed. Folding changes no sum: what the rows of reconciled epochs said is
//! added to the window before they go.

use std::collections::BTreeSet;

use model::{
    clock::UnixMs,
    ledger::{EpochRef, WindowKey},
};
use sqlx::prelude::FromRow;

use super::{
    super::{
        StoreError,
        db::{ControlTx, locking, sql},
    },
    given::{given, on_given},
    int, of, uint,
};

/// Epochs whose rows stay for the audit and for late messages; older ones that are
/// reconciled are folded into their window.
const EPOCHS_KEPT: i64 = 8;
/// Time after its end in which a window keeps its details, in ms: 48 h, for late messages.
const DETAILS_KEPT_MS: u64 = 48 * 3_600_000;
/// Time after its end in which a window is kept at all, in ms: 400 days, for year-on-year
/// figures.
const WINDOW_KEPT_MS: u64 = 400 * 24 * 3_600_000;

#[derive(FromRow)]
pub(super) struct WindowRow {
    pub(super) end_ms: i64,
    pub(super) limit_tokens: i64,
    pub(super) granted: i64,
    pub(super) credited: i64,
    pub(super) latest: i64,
    pub(super) shared_latest: i64,
    pub(super) pool_base: i64,
    pub(super) carried: i64,
}

/// Locks the windows of these keys that there are. In the order of the keys, so that two
/// batches never wait for each other.
pub(super) async fn hold(
    tx: &mut ControlTx,
    keys: impl Iterator<Item = WindowKey> + Send,
) -> Result<(), StoreError> {
    if tx.is_alone() {
        return Ok(());
    }
    let keys: BTreeSet<_> = keys.collect();
    if keys.is_empty() {
        return Ok(());
    }
    let _: Vec<(i64,)> = on_given!(
        "SELECT w.end_ms FROM given g CROSS JOIN quota_window w
         WHERE w.tenant_id = g.tenant_id AND w.metric = g.metric AND w.start_ms = g.start_ms
         ORDER BY g.n FOR UPDATE OF w"
    )
    .bind(given(keys.into_iter().map(|key| EpochRef { key, epoch: 0 })))
    .all(tx)
    .await?;
    Ok(())
}

/// The window of a key, locked, if there is one.
pub(super) async fn find(
    tx: &mut ControlTx,
    key: &WindowKey,
) -> Result<Option<WindowRow>, StoreError> {
    let find = locking!(
        "SELECT end_ms, limit_tokens, granted, credited, latest, shared_latest, pool_base, carried
         FROM quota_window
         WHERE tenant_id = $1 AND metric = $2 AND start_ms = $3"
    );
    of(find, key).optional(tx).await
}

/// The window of a key, locked, and whether it was made just now, under `limit`. When
/// another process makes it at the same moment, that one's is waited for and found.
pub(super) async fn find_or_insert(
    tx: &mut ControlTx,
    key: &WindowKey,
    limit: u64,
) -> Result<(WindowRow, bool), StoreError> {
    if let Some(row) = find(tx, key).await? {
        return Ok((row, false));
    }
    let insert = sql("INSERT INTO quota_window
             (tenant_id, metric, start_ms, end_ms, limit_version, limit_tokens, limit_high)
         VALUES ($1, $2, $3, $4, 1, $5, $5)
         ON CONFLICT (tenant_id, metric, start_ms) DO NOTHING");
    let end = int(key.window.end.0);
    let made = of(insert, key).bind(end).bind(int(limit)).execute(tx).await? > 0;
    let row = find(tx, key).await?;
    row.map(|row| (row, made)).ok_or(StoreError::Database(sqlx::Error::RowNotFound))
}

/// The window of a key, made when it is new, under a limit; and the limit that this makes for
/// all that is granted in it. What was granted before the tenant came into its pool does not
/// count, and what former members of its own pool took does.
pub(super) async fn under_limit(
    tx: &mut ControlTx,
    key: &WindowKey,
    limit: u64,
    now: UnixMs,
) -> Result<(WindowRow, u64), StoreError> {
    let (row, made) = find_or_insert(tx, key, limit).await?;
    let limit = limit.saturating_add(uint(row.pool_base)).saturating_sub(uint(row.carried));
    if made {
        forget_old(tx, key, now).await?;
    } else if row.limit_tokens != int(limit) {
        let update = sql("UPDATE quota_window
             SET limit_version = limit_version + 1, limit_tokens = $4,
                 limit_high = CASE WHEN limit_high < $4 THEN $4 ELSE limit_high END
             WHERE tenant_id = $1 AND metric = $2 AND start_ms = $3");
        of(update, key).bind(int(limit)).execute(tx).await?;
    }
    Ok((row, limit))
}

/// Folds reconciled epochs that are far behind the latest.
pub(super) async fn fold(
    tx: &mut ControlTx,
    key: &WindowKey,
    latest: i64,
) -> Result<(), StoreError> {
    if latest % EPOCHS_KEPT != 0 {
        return Ok(());
    }
    for statement in [
        "UPDATE quota_window SET
             folded_tranche = folded_tranche + (
                 SELECT CAST(coalesce(sum(e.tranche_own + e.tranche_shared), 0) AS BIGINT)
                 FROM quota_epoch e
                 WHERE e.tenant_id = $1 AND e.metric = $2 AND e.start_ms = $3 AND e.epoch < $4
                   AND e.state = 'reconciled'),
             folded_spent = folded_spent + (
                 SELECT CAST(coalesce(sum(r.spent), 0) AS BIGINT)
                 FROM quota_epoch e JOIN quota_report r USING (tenant_id, metric, start_ms, epoch)
                 WHERE e.tenant_id = $1 AND e.metric = $2 AND e.start_ms = $3 AND e.epoch < $4
                   AND e.state = 'reconciled')
         WHERE tenant_id = $1 AND metric = $2 AND start_ms = $3",
        "DELETE FROM quota_report
         WHERE tenant_id = $1 AND metric = $2 AND start_ms = $3 AND epoch < $4 AND epoch IN (
             SELECT epoch FROM quota_epoch
             WHERE tenant_id = $1 AND metric = $2 AND start_ms = $3 AND state = 'reconciled')",
        "DELETE FROM quota_epoch
         WHERE tenant_id = $1 AND metric = $2 AND start_ms = $3 AND epoch < $4
           AND state = 'reconciled'",
    ] {
        of(sql(statement), key).bind(latest - EPOCHS_KEPT).execute(tx).await?;
    }
    Ok(())
}

/// A statement on the windows of account `$1, $2` that ended before `$3`.
macro_rules! of_ended {
    ($statement:literal) => {
        concat!(
            $statement,
            " WHERE tenant_id = $1 AND metric = $2 AND start_ms IN (
                 SELECT start_ms FROM quota_window
                 WHERE tenant_id = $1 AND metric = $2 AND end_ms < $3)"
        )
    };
}

/// Drops what nobody asks for any more of the earlier windows of an account.
async fn forget_old(tx: &mut ControlTx, key: &WindowKey, now: UnixMs) -> Result<(), StoreError> {
    let details = int(now.0.saturating_sub(DETAILS_KEPT_MS));
    let window = int(now.0.saturating_sub(WINDOW_KEPT_MS));
    for (statement, before) in [
        (
            of_ended!(
                "UPDATE quota_window
                 SET folded_tranche = granted, folded_spent = granted - credited"
            ),
            details,
        ),
        (of_ended!("DELETE FROM quota_report"), details),
        (of_ended!("DELETE FROM quota_epoch"), details),
        (of_ended!("DELETE FROM quota_late_refund"), details),
        (of_ended!("DELETE FROM quota_window"), window),
    ] {
        sql(statement)
            .bind(key.tenant.0)
            .bind(key.metric.as_str())
            .bind(before)
            .execute(tx)
            .await?;
    }
    Ok(())
}
