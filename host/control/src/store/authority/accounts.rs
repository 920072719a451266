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
    /// What reports say was spent, less what came back late.
    reported: i64,
    /// Of that, what CLOSE told of lost holders.
    told: i64,
    refunded: i64,
}

impl From<AccountRow> for WindowAccount {
    fn from(row: AccountRow) -> Self {
        let charged = row.granted - row.credited - row.unspent;
        // What is charged beyond every report lies in tranches that nobody accounts for.
        let unaccounted = (charged - row.reported).max(0);
        Self {
            limit: uint(row.limit_tokens),
            granted: uint(row.granted),
            credited: uint(row.credited),
            latest: uint(row.latest),
            charged: uint(charged),
            wasted: uint(row.told + unaccounted),
            refunded: uint(row.refunded),
        }
    }
}

/// A sum over the rows of a table that are of window `w`.
macro_rules! of_window {
    ($sum:literal, $table:literal) => {
        concat!(
            "(SELECT CAST(coalesce(sum(",
            $sum,
            "), 0) AS BIGINT) FROM ",
            $table,
            " t WHERE t.tenant_id = w.tenant_id AND t.metric = w.metric
                AND t.start_ms = w.start_ms)"
        )
    };
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
            " AS unspent, w.folded_spent + ",
            of_window!("t.spent", "quota_report"),
            " - ",
            of_window!("t.refunded", "quota_late_refund"),
            " AS reported, w.folded_wasted + ",
            of_window!("CASE WHEN t.lease = 0 THEN t.spent ELSE 0 END", "quota_report"),
            " AS told, w.folded_refunded + ",
            of_window!("t.refunded", "quota_report"),
            " + ",
            of_window!("t.refunded", "quota_late_refund"),
            " AS refunded
             FROM quota_window w
             WHERE w.tenant_id = $1 AND w.metric = $2 AND w.start_ms = $3"
        ));
        let row: Option<AccountRow> = of(account, key).optional(tx).await?;
        accounts.push(row.map(WindowAccount::from));
    }
    Ok(accounts)
}
