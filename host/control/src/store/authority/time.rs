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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::{
        clock::ManualClock,
        ledger::{Authority, BootId, Holder, HolderId},
    };
    use uuid::Uuid;

    use super::*;
    use crate::{
        Store,
        store::authority::tests::NOON,
        testing::{Backend, on_both},
    };

    on_both! { windows_go_by_the_databases_clock_where_it_has_one }

    async fn windows_go_by_the_databases_clock_where_it_has_one(on: Backend) {
        let database = on.database();
        let clock = Arc::new(ManualClock::at(NOON));
        let time = AuthorityTime::Database;
        let store = Store::open_with(&database.url(), clock, time).await.expect("a store");
        let holder =
            Holder { id: HolderId::random(), edge: "one".into(), boot: BootId(Uuid::new_v4()) };
        let now = store.register(holder).await.expect("registered").now;
        assert_eq!(now == NOON, matches!(on, Backend::Sqlite), "{now:?}");
        assert!(now >= NOON);
        assert!(store.authority_now().await.expect("a time") >= now);
    }
}
