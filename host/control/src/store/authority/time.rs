//! Whose clock decides when a window begins and ends.
//!
//! Invariant: all processes of a database agree on it, so that a window is over for all at
//! once and a holder is silent for all or for none.

use model::clock::{Clock, UnixMs};

use super::super::{
    StoreError,
    db::{ControlTx, sql},
};

/// The clock of the quota accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorityTime {
    /// The database's own. SQLite has none, and one process: there it is the process's.
    Database,
    /// The clock that the store was opened with, so that a test can move it.
    Process,
}

impl AuthorityTime {
    /// What [`crate::Store::open`] chooses: tests of this crate move their clocks.
    pub(in crate::store) const USUAL: Self =
        if cfg!(test) { Self::Process } else { Self::Database };

    /// The time now, not that of the beginning of the transaction.
    pub(in crate::store) async fn now(
        self,
        tx: &mut ControlTx,
        clock: &dyn Clock,
    ) -> Result<UnixMs, StoreError> {
        if self == Self::Process || tx.is_alone() {
            return Ok(clock.now());
        }
        let now = sql("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)");
        let (now,): (i64,) = now.one(tx).await?;
        Ok(UnixMs(super::uint(now)))
    }
}
