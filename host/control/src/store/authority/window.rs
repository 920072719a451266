//! Windows as rows: made on first use, folded when their details are no longer needed.
//!
//! Invariant: folding changes no sum: what the rows of reconciled epochs said is added to
//! the window before they go.

use model::ledger::{OpenRequest, WindowKey};
use sqlx::{SqliteConnection, prelude::FromRow};

use super::int;

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
}

/// The window of a key, if there is one.
pub(super) async fn find(
    connection: &mut SqliteConnection,
    key: &WindowKey,
) -> sqlx::Result<Option<WindowRow>> {
    sqlx::query_as(
        "SELECT end_ms, limit_tokens, granted, credited, latest FROM quota_window
         WHERE tenant = ?1 AND metric = ?2 AND start_ms = ?3",
    )
    .bind(key.tenant.0)
    .bind(key.metric.as_str())
    .bind(int(key.window.start.0))
    .fetch_optional(connection)
    .await
}

/// Inserts the window of a key.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    key: &WindowKey,
    limit: u64,
) -> sqlx::Result<WindowRow> {
    sqlx::query(
        "INSERT INTO quota_window
             (tenant, metric, start_ms, end_ms, limit_version, limit_tokens, limit_high)
         VALUES (?1, ?2, ?3, ?4, 1, ?5, ?5)",
    )
    .bind(key.tenant.0)
    .bind(key.metric.as_str())
    .bind(int(key.window.start.0))
    .bind(int(key.window.end.0))
    .bind(int(limit))
    .execute(connection)
    .await?;
    Ok(WindowRow {
        end_ms: int(key.window.end.0),
        limit_tokens: int(limit),
        granted: 0,
        credited: 0,
        latest: 0,
    })
}

/// The window of a request, made when it is new, under the request's limit.
pub(super) async fn under_limit(
    connection: &mut SqliteConnection,
    request: &OpenRequest,
    now_ms: u64,
) -> sqlx::Result<WindowRow> {
    let key = &request.key;
    let Some(row) = find(&mut *connection, key).await? else {
        forget_old(&mut *connection, key, now_ms).await?;
        return insert(connection, key, request.limit).await;
    };
    if row.limit_tokens != int(request.limit) {
        sqlx::query(
            "UPDATE quota_window
             SET limit_version = limit_version + 1, limit_tokens = ?4,
                 limit_high = max(limit_high, ?4)
             WHERE tenant = ?1 AND metric = ?2 AND start_ms = ?3",
        )
        .bind(key.tenant.0)
        .bind(key.metric.as_str())
        .bind(int(key.window.start.0))
        .bind(int(request.limit))
        .execute(connection)
        .await?;
    }
    Ok(row)
}

/// Folds reconciled epochs that are far behind the latest.
pub(super) async fn fold(
    connection: &mut SqliteConnection,
    key: &WindowKey,
    latest: i64,
) -> sqlx::Result<()> {
    if latest % EPOCHS_KEPT != 0 {
        return Ok(());
    }
    for statement in [
        "UPDATE quota_window SET
             folded_tranche = folded_tranche + (
                 SELECT coalesce(sum(tranche_own + tranche_shared), 0) FROM quota_epoch e
                 WHERE e.tenant = ?1 AND e.metric = ?2 AND e.start_ms = ?3 AND e.epoch < ?4
                   AND e.state = 'reconciled'),
             folded_spent = folded_spent + (
                 SELECT coalesce(sum(r.spent), 0)
                 FROM quota_epoch e JOIN quota_report r USING (tenant, metric, start_ms, epoch)
                 WHERE e.tenant = ?1 AND e.metric = ?2 AND e.start_ms = ?3 AND e.epoch < ?4
                   AND e.state = 'reconciled')
         WHERE tenant = ?1 AND metric = ?2 AND start_ms = ?3",
        "DELETE FROM quota_report
         WHERE tenant = ?1 AND metric = ?2 AND start_ms = ?3 AND epoch < ?4 AND epoch IN (
             SELECT epoch FROM quota_epoch
             WHERE tenant = ?1 AND metric = ?2 AND start_ms = ?3 AND state = 'reconciled')",
        "DELETE FROM quota_epoch
         WHERE tenant = ?1 AND metric = ?2 AND start_ms = ?3 AND epoch < ?4
           AND state = 'reconciled'",
    ] {
        sqlx::query(statement)
            .bind(key.tenant.0)
            .bind(key.metric.as_str())
            .bind(int(key.window.start.0))
            .bind(latest - EPOCHS_KEPT)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Drops what nobody asks for any more of the earlier windows of an account.
async fn forget_old(
    connection: &mut SqliteConnection,
    key: &WindowKey,
    now_ms: u64,
) -> sqlx::Result<()> {
    let ended = "tenant = ?1 AND metric = ?2 AND start_ms IN (SELECT start_ms FROM quota_window
                 WHERE tenant = ?1 AND metric = ?2 AND end_ms < ?3)";
    let details = int(now_ms.saturating_sub(DETAILS_KEPT_MS));
    for (statement, before) in [
        (
            format!(
                "UPDATE quota_window
                 SET folded_tranche = granted, folded_spent = granted - credited WHERE {ended}"
            ),
            details,
        ),
        (format!("DELETE FROM quota_report WHERE {ended}"), details),
        (format!("DELETE FROM quota_epoch WHERE {ended}"), details),
        (format!("DELETE FROM quota_late_refund WHERE {ended}"), details),
        (
            format!("DELETE FROM quota_window WHERE {ended}"),
            int(now_ms.saturating_sub(WINDOW_KEPT_MS)),
        ),
    ] {
        sqlx::query(&statement)
            .bind(key.tenant.0)
            .bind(key.metric.as_str())
            .bind(before)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}
