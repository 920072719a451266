//! The quota authority: one transaction per operation, durable when answered.
//!
//! Called by the quota engine, once per tranche and once per second. It runs as
//! `control_plane`, because one commit serves many tenants, in READ COMMITTED: every
//! statement sees what is committed when it begins. `lives` tells why no holder is missed.
//! Invariant: `granted − credited ≤ limit` in every window, checked by the schema too;
//! nothing is credited by a timeout, only by final figures. To add an operation, add a file
//! with an [`Operation`].

mod accounts;
mod audit;
mod commit;
mod figures;
mod given;
mod held;
mod holder;
mod late;
mod lives;
mod lost;
mod open;
mod pooled;
mod recall;
mod reconcile;
mod report;
mod seals;
mod shared;
mod time;
mod upkeep;
mod window;

#[cfg(test)]
mod crowd;
#[cfg(test)]
mod edges;
#[cfg(test)]
mod schedules;
#[cfg(test)]
mod several;
#[cfg(test)]
mod tests;

use model::{
    BoxFuture,
    ledger::{
        Authority, AuthorityError, Holder, HolderId, Inherited, OpenRequest, Opening, Registered,
        Report, ReportAnswer, Standing, Stranded, Will, WindowAccount, WindowKey,
    },
};

pub(in crate::store) use self::held::{counts_by_reports, unspent, unspent_of_window};
pub use self::{audit::QuotaViolation, time::AuthorityTime};
use self::{
    commit::{Operation, committed},
    holder::End,
    lost::StrandOthers,
    open::Open,
    shared::{Close, Confirm},
};
use super::{Store, StoreError, db::Statement};

type Answer<'a, T> = BoxFuture<'a, Result<T, AuthorityError>>;

impl Authority for Store {
    fn register(&self, holder: Holder) -> Answer<'_, Registered> {
        self.answer(holder)
    }

    fn open(&self, holder: HolderId, requests: Vec<OpenRequest>) -> Answer<'_, Vec<Opening>> {
        Box::pin(async move {
            let opened = committed(self, &Open { holder, requests }).await.map_err(failed)?;
            for release in opened.releases {
                // Whoever asks again releases again.
                if let Err(error) = committed(self, &release).await {
                    tracing::warn!(%error, "tokens parked in a pool were not recalled");
                }
            }
            Ok(opened.openings)
        })
    }

    fn report(&self, report: Report) -> Answer<'_, ReportAnswer> {
        self.answer(report)
    }

    fn confirm(
        &self,
        holder: HolderId,
        keys: Vec<WindowKey>,
    ) -> Answer<'_, Option<Vec<Option<Standing>>>> {
        self.answer(Confirm(holder, keys))
    }

    fn close(&self, keys: Vec<WindowKey>) -> Answer<'_, ()> {
        self.answer(Close(keys))
    }

    fn accounts(&self, keys: Vec<WindowKey>) -> Answer<'_, Vec<Option<WindowAccount>>> {
        Box::pin(async move { accounts::accounts(self, &keys).await.map_err(failed) })
    }

    fn inherit(&self, will: Will) -> Answer<'_, Inherited> {
        self.answer(will)
    }

    fn strand_others(&self, heir: HolderId) -> Answer<'_, Stranded> {
        self.answer(StrandOthers(heir))
    }

    fn end(&self, holder: HolderId) -> Answer<'_, ()> {
        self.answer(End(holder))
    }
}

impl Store {
    fn answer<O: Operation + 'static>(&self, operation: O) -> Answer<'_, O::Answer> {
        Box::pin(async move { committed(self, &operation).await.map_err(failed) })
    }
}

fn failed(error: StoreError) -> AuthorityError {
    AuthorityError(Box::new(error))
}

/// Gives a statement its first three values: whose window, of what, when.
fn of<'q>(statement: Statement<'q>, key: &WindowKey) -> Statement<'q> {
    let WindowKey { tenant, metric, window } = key;
    statement.bind(tenant.0).bind(metric.as_str()).bind(int(window.start.0))
}

/// A figure for the database, whose integers are signed.
pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A figure from the database; the schema keeps it from being negative.
pub(super) fn uint(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
