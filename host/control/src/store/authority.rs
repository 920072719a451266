//! The quota authority: one transaction per operation, durable when answered.
//!
//! Called by the quota engine, once per tranche and once per second. It runs as
//! `control_plane`, because one commit serves many tenants. Time is the process's clock;
//! PostgreSQL's becomes the authority's when dispatchers are shared (Redis), as windows must
//! then end for all edges at once. Invariant: `granted − credited ≤ limit` in every window,
//! checked by the schema too; nothing is credited by a timeout, only by final figures. To
//! add an operation, add a file with an [`Operation`].

mod audit;
mod commit;
mod confirm;
mod holder;
mod open;
mod report;
mod window;

#[cfg(test)]
mod several;
#[cfg(test)]
mod tests;

use model::{
    BoxFuture,
    ledger::{
        Authority, AuthorityError, Holder, HolderId, Inherited, OpenRequest, Opening, Report,
        ReportAnswer, Stranded, Will, WindowAccount, WindowKey,
    },
};

pub use self::audit::QuotaViolation;
use self::{
    commit::{Operation, committed},
    holder::{End, StrandOthers},
};
use super::{Store, StoreError, db::Statement};

type Answer<'a, T> = BoxFuture<'a, Result<T, AuthorityError>>;

impl Authority for Store {
    fn register(&self, holder: Holder) -> Answer<'_, ()> {
        self.answer(holder)
    }

    fn open(&self, requests: Vec<OpenRequest>) -> Answer<'_, Vec<Opening>> {
        self.answer(requests)
    }

    fn report(&self, report: Report) -> Answer<'_, ReportAnswer> {
        self.answer(report)
    }

    fn confirm(&self, keys: Vec<WindowKey>) -> Answer<'_, Vec<Option<WindowAccount>>> {
        Box::pin(async move { confirm::confirm(self, &keys).await.map_err(failed) })
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
