//! Whether holders live, and the locks that keep it so.
//!
//! Two locks on a holder's row, always before any window: whoever acts for a living holder
//! takes one that others may take too ([`stays_alive`], or the update of [`heard_from`]),
//! whoever ends it the exclusive one ([`lock`]). Invariant: within a transaction that was told
//! that a holder lives, nobody else can end it.
//!
//! Why no holder that has tokens of a shared epoch is missed when the epoch is credited, in
//! READ COMMITTED (S is the one statement of `reconcile` that decides):
//! - S runs under the lock of the window, after `closing` was committed by another
//!   transaction. A holder that S does not see because it registered later, also confirms
//!   later than `closing` was committed: it finds the epoch at or below the floor.
//! - A holder that S sees alive has to have sealed. Seals are stored by reports, which hold
//!   the holder's row, so nobody marks it as lost meanwhile.
//! - A holder that S sees ended has left either final figures or, in the commit that ended
//!   it, a mark that is not sealed on every shared epoch that there was after its row had been
//!   locked. An epoch that was opened later it cannot come to know: whatever tells it of one
//!   (a confirmation, a report, its own opening) locks the row first. Either it came before,
//!   and then the epoch was committed before the marks were made; or it waits, and finds the
//!   holder ended.

use model::{clock::UnixMs, ledger::HolderId};
use sqlx::prelude::FromRow;
use uuid::Uuid;

use super::{
    super::{
        StoreError,
        db::{ControlTx, locking, sql, sql_each},
    },
    int,
};

/// A holder, locked.
#[derive(FromRow)]
pub(super) struct HolderRow {
    pub(super) boot: Uuid,
    pub(super) reported_at: i64,
    pub(super) ended_at: Option<i64>,
}

/// Whether the holder lives; then it cannot be ended before this transaction is.
pub(super) async fn stays_alive(tx: &mut ControlTx, holder: HolderId) -> Result<bool, StoreError> {
    let living: Option<(i64,)> = sql_each(
        "SELECT registered_at FROM quota_holder WHERE holder = $1 AND ended_at IS NULL",
        // Waits for whoever ends it (FOR UPDATE), and not for its own reports.
        "SELECT registered_at FROM quota_holder WHERE holder = $1 AND ended_at IS NULL
         FOR KEY SHARE",
    )
    .bind(holder.0)
    .optional(tx)
    .await?;
    Ok(living.is_some())
}

/// Notes that a holder reports, if it lives; then it cannot be ended before this transaction
/// is.
pub(super) async fn heard_from(
    tx: &mut ControlTx,
    holder: HolderId,
    now: UnixMs,
) -> Result<bool, StoreError> {
    let noted = sql("UPDATE quota_holder SET reported_at = $2
         WHERE holder = $1 AND ended_at IS NULL");
    Ok(noted.bind(holder.0).bind(int(now.0)).execute(tx).await? > 0)
}

/// The holder's row for whoever ends it; `None` when it is not known.
pub(super) async fn lock(
    tx: &mut ControlTx,
    holder: HolderId,
) -> Result<Option<HolderRow>, StoreError> {
    locking!("SELECT boot, reported_at, ended_at FROM quota_holder WHERE holder = $1")
        .bind(holder.0)
        .optional(tx)
        .await
}

/// Ends a locked holder, with final figures or without. One that ended before keeps its
/// time.
pub(super) async fn end(
    tx: &mut ControlTx,
    holder: HolderId,
    now: UnixMs,
    lost: bool,
) -> Result<(), StoreError> {
    sql("UPDATE quota_holder SET ended_at = coalesce(ended_at, $2), lost = $3 WHERE holder = $1")
        .bind(holder.0)
        .bind(int(now.0))
        .bind(i64::from(lost))
        .execute(tx)
        .await
        .map(drop)
}
