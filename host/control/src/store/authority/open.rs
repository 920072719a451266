//! Opening tranches: the only place that debits.
//!
//! Invariant: the debit is committed before its permit leaves; a request whose caller does
//! not know the latest epoch debits nothing.

use model::ledger::{InstallPermit, OpenRequest, Opening, rules::tranche_size};
use sqlx::SqliteConnection;

use super::{Store, int, uint, window};

/// All requests in one commit, answered in their order.
pub(super) async fn open(store: &Store, requests: &[OpenRequest]) -> sqlx::Result<Vec<Opening>> {
    let now = store.clock.now().0;
    let mut transaction = store.account().await?;
    let mut openings = Vec::with_capacity(requests.len());
    for request in requests {
        openings.push(open_one(&mut transaction, request, now).await?);
    }
    transaction.commit().await?;
    Ok(openings)
}

async fn open_one(
    connection: &mut SqliteConnection,
    request: &OpenRequest,
    now: u64,
) -> sqlx::Result<Opening> {
    let OpenRequest { key, fence, latest, limit, rate_per_s } = *request;
    let row = window::under_limit(&mut *connection, request, now).await?;
    if row.latest != int(latest) {
        return Ok(Opening::Lost { latest: uint(row.latest) });
    }
    let remaining = limit.saturating_sub(uint(row.granted - row.credited));
    let tranche = tranche_size(limit, remaining, rate_per_s);
    if tranche == 0 {
        return Ok(Opening::Exhausted);
    }
    let epoch = row.latest + 1;
    sqlx::query(
        "INSERT INTO quota_epoch (tenant, metric, start_ms, epoch, fence, tranche_own, state)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'open')",
    )
    .bind(key.tenant.0)
    .bind(key.metric.as_str())
    .bind(int(key.window.start.0))
    .bind(epoch)
    .bind(fence.to_string())
    .bind(int(tranche))
    .execute(&mut *connection)
    .await?;
    // Two tranches may be open; an older one starts closing.
    sqlx::query(
        "UPDATE quota_epoch SET state = 'closing'
         WHERE tenant = ?1 AND metric = ?2 AND start_ms = ?3 AND epoch < ?4 AND state = 'open'",
    )
    .bind(key.tenant.0)
    .bind(key.metric.as_str())
    .bind(int(key.window.start.0))
    .bind(epoch - 1)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "UPDATE quota_window SET granted = granted + ?4, latest = ?5, floor = max(floor, ?5 - 2)
         WHERE tenant = ?1 AND metric = ?2 AND start_ms = ?3",
    )
    .bind(key.tenant.0)
    .bind(key.metric.as_str())
    .bind(int(key.window.start.0))
    .bind(int(tranche))
    .bind(epoch)
    .execute(&mut *connection)
    .await?;
    window::fold(&mut *connection, &key, epoch).await?;
    Ok(Opening::Opened(InstallPermit::issue(key, fence, uint(epoch), tranche, remaining - tranche)))
}
