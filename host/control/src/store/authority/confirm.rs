//! Accounts as they stand, on the primary, in one committed state.
//!
//! Invariant: charged counts a tranche in full unless its holder lives: then it counts what
//! the holder last reported.

use model::ledger::{WindowAccount, WindowKey};
use sqlx::prelude::FromRow;

use super::{
    super::{
        Store, StoreError,
        db::{ControlTx, Purpose, sql},
    },
    of, uint,
};

#[derive(FromRow)]
struct AccountRow {
    limit_tokens: i64,
    granted: i64,
    credited: i64,
    latest: i64,
    floor: i64,
    unspent: i64,
}

/// The accounts, in the order of the keys.
pub(super) async fn confirm(
    store: &Store,
    keys: &[WindowKey],
) -> Result<Vec<Option<WindowAccount>>, StoreError> {
    let mut tx = store.db.control(Purpose::Read).await?;
    let accounts = accounts(&mut tx, keys).await;
    tx.end(accounts).await
}

async fn accounts(
    tx: &mut ControlTx,
    keys: &[WindowKey],
) -> Result<Vec<Option<WindowAccount>>, StoreError> {
    let mut accounts = Vec::with_capacity(keys.len());
    for key in keys {
        let account = sql("SELECT w.limit_tokens, w.granted, w.credited, w.latest, w.floor,
                 (SELECT CAST(coalesce(sum(e.tranche_own + e.tranche_shared
                                           - coalesce(r.spent, 0)), 0) AS BIGINT)
                  FROM quota_holder h
                  JOIN quota_epoch e ON e.tenant_id = w.tenant_id AND e.metric = w.metric
                   AND e.start_ms = w.start_ms AND e.state <> 'reconciled'
                   AND e.fence = h.fence
                  LEFT JOIN quota_report r ON r.tenant_id = e.tenant_id AND r.metric = e.metric
                   AND r.start_ms = e.start_ms AND r.epoch = e.epoch AND r.holder = h.holder
                  WHERE h.ended_at IS NULL) AS unspent
             FROM quota_window w
             WHERE w.tenant_id = $1 AND w.metric = $2 AND w.start_ms = $3");
        let row: Option<AccountRow> = of(account, key).optional(tx).await?;
        accounts.push(row.map(|row| WindowAccount {
            limit: uint(row.limit_tokens),
            granted: uint(row.granted),
            credited: uint(row.credited),
            latest: uint(row.latest),
            floor: uint(row.floor),
            charged: uint(row.granted - row.credited - row.unspent),
        }));
    }
    Ok(accounts)
}
