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
use sqlx::{SqliteConnection, prelude::FromRow};
use uuid::Uuid;

use super::{Store, int, report, uint};

/// Report number of figures from a will: after every number that a living holder used.
const FINAL_NUMBER: u64 = i64::MAX as u64;

/// Inserts the holder.
pub(super) async fn register(store: &Store, holder: &Holder) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO quota_holder (holder, fence, edge, boot, registered_at)
         VALUES (?1, ?2, ?3, ?4, ?5)",
    )
    .bind(holder.id.0)
    .bind(Fence::Holder(holder.id).to_string())
    .bind(&holder.edge)
    .bind(holder.boot.0)
    .bind(int(store.clock.now().0))
    .execute(store.writer()?)
    .await?;
    Ok(())
}

/// Takes the final figures of a predecessor and ends it.
pub(super) async fn inherit(store: &Store, will: &Will) -> sqlx::Result<Inherited> {
    let mut transaction = store.account().await?;
    let boot: Option<Uuid> = sqlx::query_scalar("SELECT boot FROM quota_holder WHERE holder = ?1")
        .bind(will.predecessor.0)
        .fetch_optional(&mut *transaction)
        .await?;
    if boot.is_some_and(|boot| boot != will.boot.0) {
        tracing::warn!(holder = %will.predecessor, "a will of another uptime is ignored");
        return Ok(Inherited::default());
    }
    let mut inherited = Inherited::default();
    for figures in &will.epochs {
        let holder = will.predecessor;
        let stored = report::store_figures(&mut transaction, holder, FINAL_NUMBER, figures).await?;
        inherited.epochs += u64::from(stored.settled);
        inherited.credited += stored.credited;
    }
    for figures in never_handed_out(&mut transaction, will.predecessor).await? {
        let holder = will.predecessor;
        let stored =
            report::store_figures(&mut transaction, holder, FINAL_NUMBER, &figures).await?;
        inherited.epochs += u64::from(stored.settled);
        inherited.credited += stored.credited;
    }
    finish(&mut transaction, will.predecessor, store.clock.now()).await?;
    transaction.commit().await?;
    Ok(inherited)
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
    connection: &mut SqliteConnection,
    holder: HolderId,
) -> sqlx::Result<Vec<EpochReport>> {
    let rows: Vec<OpenEpoch> = sqlx::query_as(
        "SELECT e.tenant, e.metric, e.start_ms, w.end_ms, e.epoch,
                e.tranche_own + e.tranche_shared AS tranche
         FROM quota_epoch e JOIN quota_window w USING (tenant, metric, start_ms)
         LEFT JOIN quota_report r USING (tenant, metric, start_ms, epoch)
         WHERE e.fence = ?1 AND e.state <> 'reconciled' AND r.holder IS NULL",
    )
    .bind(Fence::Holder(holder).to_string())
    .fetch_all(connection)
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

/// Ends every other living holder of the heir's edge; what they hold stays charged.
pub(super) async fn strand_others(store: &Store, heir: HolderId) -> sqlx::Result<Stranded> {
    let now = store.clock.now();
    let mut transaction = store.account().await?;
    let (epochs, tokens): (i64, i64) = sqlx::query_as(
        "SELECT count(*), coalesce(sum(e.tranche_own + e.tranche_shared
                                       - coalesce(r.spent, 0)), 0)
         FROM quota_holder h
         JOIN quota_epoch e ON e.fence = h.fence AND e.state <> 'reconciled'
         JOIN quota_window w USING (tenant, metric, start_ms)
         LEFT JOIN quota_report r ON r.tenant = e.tenant AND r.metric = e.metric
          AND r.start_ms = e.start_ms AND r.epoch = e.epoch AND r.holder = h.holder
         WHERE h.ended_at IS NULL AND h.holder <> ?1 AND w.end_ms > ?2
           AND h.edge = (SELECT edge FROM quota_holder WHERE holder = ?1)",
    )
    .bind(heir.0)
    .bind(int(now.0))
    .fetch_one(&mut *transaction)
    .await?;
    for statement in [
        "UPDATE quota_epoch SET state = 'closing'
         WHERE state = 'open' AND ?2 > 0 AND fence IN (
             SELECT fence FROM quota_holder
             WHERE ended_at IS NULL AND holder <> ?1
               AND edge = (SELECT edge FROM quota_holder WHERE holder = ?1))",
        "UPDATE quota_holder SET ended_at = ?2
         WHERE ended_at IS NULL AND holder <> ?1
           AND edge = (SELECT edge FROM quota_holder WHERE holder = ?1)",
    ] {
        sqlx::query(statement).bind(heir.0).bind(int(now.0)).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(Stranded { epochs: uint(epochs), tokens: uint(tokens) })
}

/// Ends a holder that reported everything.
pub(super) async fn end(store: &Store, holder: HolderId) -> sqlx::Result<()> {
    let mut connection = store.writer()?.acquire().await?;
    finish(&mut connection, holder, store.clock.now()).await
}

async fn finish(
    connection: &mut SqliteConnection,
    holder: HolderId,
    now: UnixMs,
) -> sqlx::Result<()> {
    sqlx::query("UPDATE quota_holder SET ended_at = ?2 WHERE holder = ?1 AND ended_at IS NULL")
        .bind(holder.0)
        .bind(int(now.0))
        .execute(connection)
        .await?;
    Ok(())
}
