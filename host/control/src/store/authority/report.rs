//! Figures of holders: stored, reconciled when final, credited.
//!
//! Invariant: an older report never replaces a newer one, and nothing replaces final
//! figures. A tranche bound to one holder's dispatcher is reconciled by that holder's seal
//! alone, because nobody else can have its tokens.

use model::ledger::{EpochReport, Fence, HolderId, LateRefunds, Recall, Report, ReportAnswer};
use sqlx::{SqliteConnection, prelude::FromRow};

use super::{Store, int, uint, window};

/// All figures in one commit.
pub(super) async fn report(store: &Store, report: &Report) -> sqlx::Result<ReportAnswer> {
    let now = store.clock.now().0;
    let mut transaction = store.account().await?;
    let mut answer = ReportAnswer::default();
    for figures in &report.epochs {
        let stored = store_figures(&mut transaction, report.holder, report.number, figures).await?;
        answer.credited += stored.credited;
        answer.recalls.extend(stored.recall);
    }
    for late in &report.late {
        answer.credited += credit_late(&mut transaction, report.holder, late, now).await?;
    }
    transaction.commit().await?;
    Ok(answer)
}

/// What storing one holder's figures of one tranche led to.
#[derive(Default)]
pub(super) struct Stored {
    pub(super) credited: u64,
    /// The tranche was reconciled by it.
    pub(super) settled: bool,
    recall: Option<Recall>,
}

#[derive(FromRow)]
struct EpochRow {
    fence: String,
    tranche: i64,
    state: String,
    report_no: Option<i64>,
    sealed: Option<i64>,
}

/// Stores one holder's figures of one tranche, and reconciles it when they are final.
pub(super) async fn store_figures(
    connection: &mut SqliteConnection,
    holder: HolderId,
    number: u64,
    figures: &EpochReport,
) -> sqlx::Result<Stored> {
    let Some(epoch) = known_or_adopted(&mut *connection, holder, figures).await? else {
        return Ok(Stored::default());
    };
    let foreign = epoch.fence.parse() != Ok(Fence::Holder(holder));
    let stale = epoch.report_no.is_some_and(|stored| stored >= int(number));
    if foreign || stale || epoch.sealed == Some(1) || epoch.state == "reconciled" {
        return Ok(Stored::default());
    }
    let spent = int(figures.spent).min(epoch.tranche);
    if spent < int(figures.spent) {
        tracing::error!(?figures, "quota_invariant_broken: more was spent than the tranche had");
    }
    upsert(&mut *connection, holder, number, figures, spent).await?;
    if figures.sealed {
        let credited = reconcile(&mut *connection, figures, epoch.tranche - spent).await?;
        return Ok(Stored { credited, settled: true, recall: None });
    }
    let recall =
        (epoch.state == "closing").then_some(Recall { key: figures.key, floor: figures.epoch });
    Ok(Stored { credited: 0, settled: false, recall })
}

/// The tranche of the figures. One that is newer than anything known here means that this
/// database went back in time: it is adopted, so that it stays charged.
async fn known_or_adopted(
    connection: &mut SqliteConnection,
    holder: HolderId,
    figures: &EpochReport,
) -> sqlx::Result<Option<EpochRow>> {
    if let Some(epoch) = find(&mut *connection, holder, figures).await? {
        return Ok(Some(epoch));
    }
    let window = window::find(&mut *connection, &figures.key).await?;
    let latest = window.as_ref().map_or(0, |window| window.latest);
    if figures.tranche == 0 || int(figures.epoch) <= latest {
        return Ok(None);
    }
    tracing::error!(
        ?figures,
        "quota_authority_rollback: a holder spends a tranche that this database does not know"
    );
    if window.is_none() {
        window::insert(&mut *connection, &figures.key, figures.tranche).await?;
    }
    adopt(&mut *connection, holder, figures).await?;
    find(connection, holder, figures).await
}

async fn find(
    connection: &mut SqliteConnection,
    holder: HolderId,
    figures: &EpochReport,
) -> sqlx::Result<Option<EpochRow>> {
    sqlx::query_as(
        "SELECT e.fence, e.tranche_own + e.tranche_shared AS tranche, e.state,
                r.report_no, r.sealed
         FROM quota_epoch e LEFT JOIN quota_report r
           ON r.tenant = e.tenant AND r.metric = e.metric AND r.start_ms = e.start_ms
          AND r.epoch = e.epoch AND r.holder = ?5
         WHERE e.tenant = ?1 AND e.metric = ?2 AND e.start_ms = ?3 AND e.epoch = ?4",
    )
    .bind(figures.key.tenant.0)
    .bind(figures.key.metric.as_str())
    .bind(int(figures.key.window.start.0))
    .bind(int(figures.epoch))
    .bind(holder.0)
    .fetch_optional(connection)
    .await
}

async fn adopt(
    connection: &mut SqliteConnection,
    holder: HolderId,
    figures: &EpochReport,
) -> sqlx::Result<()> {
    for statement in [
        // Exactness across a rollback is best effort: what was granted counts as allowed.
        "UPDATE quota_window
         SET limit_high = max(limit_high, granted + ?6 - credited),
             granted = granted + ?6, latest = ?4
         WHERE tenant = ?1 AND metric = ?2 AND start_ms = ?3 AND ?5 IS NOT NULL",
        "INSERT INTO quota_epoch (tenant, metric, start_ms, epoch, fence, tranche_own, state)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'open')",
    ] {
        sqlx::query(statement)
            .bind(figures.key.tenant.0)
            .bind(figures.key.metric.as_str())
            .bind(int(figures.key.window.start.0))
            .bind(int(figures.epoch))
            .bind(Fence::Holder(holder).to_string())
            .bind(int(figures.tranche))
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

async fn upsert(
    connection: &mut SqliteConnection,
    holder: HolderId,
    number: u64,
    figures: &EpochReport,
    spent: i64,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO quota_report
             (tenant, metric, start_ms, epoch, holder, report_no, spent, refunded, sealed)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (tenant, metric, start_ms, epoch, holder) DO UPDATE SET
             report_no = excluded.report_no, spent = excluded.spent,
             refunded = excluded.refunded, sealed = excluded.sealed",
    )
    .bind(figures.key.tenant.0)
    .bind(figures.key.metric.as_str())
    .bind(int(figures.key.window.start.0))
    .bind(int(figures.epoch))
    .bind(holder.0)
    .bind(int(number))
    .bind(spent)
    .bind(int(figures.refunded))
    .bind(figures.sealed)
    .execute(connection)
    .await?;
    Ok(())
}

/// Ends a tranche whose figures are final: `unspent` tokens go back into the window.
pub(super) async fn reconcile(
    connection: &mut SqliteConnection,
    figures: &EpochReport,
    unspent: i64,
) -> sqlx::Result<u64> {
    for statement in [
        "UPDATE quota_epoch SET state = 'reconciled'
         WHERE tenant = ?1 AND metric = ?2 AND start_ms = ?3 AND epoch = ?4 AND ?5 >= 0",
        "UPDATE quota_window SET credited = credited + ?5,
             floor = max(floor, coalesce(
                 (SELECT min(epoch) - 1 FROM quota_epoch
                  WHERE tenant = ?1 AND metric = ?2 AND start_ms = ?3 AND state = 'open'
                    AND ?4 > 0),
                 latest))
         WHERE tenant = ?1 AND metric = ?2 AND start_ms = ?3",
    ] {
        sqlx::query(statement)
            .bind(figures.key.tenant.0)
            .bind(figures.key.metric.as_str())
            .bind(int(figures.key.window.start.0))
            .bind(int(figures.epoch))
            .bind(unspent)
            .execute(&mut *connection)
            .await?;
    }
    Ok(uint(unspent))
}

/// Credits what came back since the last total, while the window is open.
async fn credit_late(
    connection: &mut SqliteConnection,
    holder: HolderId,
    late: &LateRefunds,
    now: u64,
) -> sqlx::Result<u64> {
    let key = &late.key;
    let Some(window) = window::find(&mut *connection, key).await? else { return Ok(0) };
    if int(now) >= window.end_ms {
        return Ok(0);
    }
    let known: Option<i64> = sqlx::query_scalar(
        "SELECT refunded FROM quota_late_refund
         WHERE tenant = ?1 AND metric = ?2 AND start_ms = ?3 AND holder = ?4",
    )
    .bind(key.tenant.0)
    .bind(key.metric.as_str())
    .bind(int(key.window.start.0))
    .bind(holder.0)
    .fetch_optional(&mut *connection)
    .await?;
    let known = known.unwrap_or(0);
    let news = (int(late.total) - known).min(window.granted - window.credited);
    if news <= 0 {
        return Ok(0);
    }
    for statement in [
        "INSERT INTO quota_late_refund (tenant, metric, start_ms, holder, refunded)
         VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (tenant, metric, start_ms, holder)
         DO UPDATE SET refunded = refunded + excluded.refunded",
        "UPDATE quota_window SET credited = credited + ?5
         WHERE tenant = ?1 AND metric = ?2 AND start_ms = ?3 AND ?4 IS NOT NULL",
    ] {
        sqlx::query(statement)
            .bind(key.tenant.0)
            .bind(key.metric.as_str())
            .bind(int(key.window.start.0))
            .bind(holder.0)
            .bind(news)
            .execute(&mut *connection)
            .await?;
    }
    Ok(uint(news))
}
