//! Accounts as they stand, in one committed state.
//!
//! Called for usage figures and invoices, not to spend. Invariant: what is charged is what
//! `held` says.

use model::ledger::{WindowAccount, WindowKey};
use sqlx::prelude::FromRow;

use super::{
    super::{
        Store, StoreError,
        db::{ControlTx, Purpose, sql},
    },
    held::unspent_of_window,
    of, uint,
};

#[derive(FromRow)]
struct AccountRow {
    limit_tokens: i64,
    granted: i64,
    credited: i64,
    latest: i64,
    unspent: i64,
}

/// The accounts, in the order of the keys.
pub(super) async fn accounts(
    store: &Store,
    keys: &[WindowKey],
) -> Result<Vec<Option<WindowAccount>>, StoreError> {
    let mut tx = store.db.control(Purpose::Read).await?;
    let accounts = read(&mut tx, keys).await;
    tx.end(accounts).await
}

async fn read(
    tx: &mut ControlTx,
    keys: &[WindowKey],
) -> Result<Vec<Option<WindowAccount>>, StoreError> {
    let mut accounts = Vec::with_capacity(keys.len());
    for key in keys {
        let account = sql(concat!(
            "SELECT w.limit_tokens, w.granted, w.credited, w.latest, ",
            unspent_of_window!(),
            " AS unspent
             FROM quota_window w
             WHERE w.tenant_id = $1 AND w.metric = $2 AND w.start_ms = $3"
        ));
        let row: Option<AccountRow> = of(account, key).optional(tx).await?;
        accounts.push(row.map(|row| WindowAccount {
            limit: uint(row.limit_tokens),
            granted: uint(row.granted),
            credited: uint(row.credited),
            latest: uint(row.latest),
            charged: uint(row.granted - row.credited - row.unspent),
        }));
    }
    Ok(accounts)
}
