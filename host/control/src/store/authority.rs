//! The quota authority on SQLite: one transaction per operation, durable when answered.
//!
//! Called by the quota engine, once per tranche and once per second. Invariant: `granted −
//! credited ≤ limit` in every window, checked by the schema too; nothing is credited by a
//! timeout, only by final figures. To add an operation, add a file and keep it one
//! transaction.

mod audit;
mod confirm;
mod holder;
mod open;
mod report;
mod window;

#[cfg(test)]
mod tests;

use model::{
    BoxFuture,
    ledger::{
        Authority, AuthorityError, Holder, HolderId, Inherited, OpenRequest, Opening, Report,
        ReportAnswer, Stranded, Will, WindowAccount, WindowKey,
    },
};
use sqlx::{Sqlite, SqlitePool, Transaction};

pub use self::audit::QuotaViolation;
use super::Store;

type Answer<'a, T> = BoxFuture<'a, Result<T, AuthorityError>>;

impl Authority for Store {
    fn register(&self, holder: Holder) -> Answer<'_, ()> {
        Box::pin(async move { holder::register(self, &holder).await.map_err(failed) })
    }

    fn open(&self, requests: Vec<OpenRequest>) -> Answer<'_, Vec<Opening>> {
        Box::pin(async move { open::open(self, &requests).await.map_err(failed) })
    }

    fn report(&self, report: Report) -> Answer<'_, ReportAnswer> {
        Box::pin(async move { report::report(self, &report).await.map_err(failed) })
    }

    fn confirm(&self, keys: Vec<WindowKey>) -> Answer<'_, Vec<Option<WindowAccount>>> {
        Box::pin(async move { confirm::confirm(self, &keys).await.map_err(failed) })
    }

    fn inherit(&self, will: Will) -> Answer<'_, Inherited> {
        Box::pin(async move { holder::inherit(self, &will).await.map_err(failed) })
    }

    fn strand_others(&self, heir: HolderId) -> Answer<'_, Stranded> {
        Box::pin(async move { holder::strand_others(self, heir).await.map_err(failed) })
    }

    fn end(&self, holder: HolderId) -> Answer<'_, ()> {
        Box::pin(async move { holder::end(self, holder).await.map_err(failed) })
    }
}

fn failed(error: sqlx::Error) -> AuthorityError {
    AuthorityError(Box::new(error))
}

impl Store {
    /// The only connection that writes; a transaction on it excludes every other.
    fn writer(&self) -> sqlx::Result<&SqlitePool> {
        Ok(self.db.sqlite()?.writer())
    }

    /// Connections that see what was committed and cannot write.
    fn reader(&self) -> sqlx::Result<&SqlitePool> {
        Ok(self.db.sqlite()?.reader())
    }

    /// A transaction that excludes every other writer from its start.
    async fn account(&self) -> sqlx::Result<Transaction<'static, Sqlite>> {
        self.writer()?.begin_with("BEGIN IMMEDIATE").await
    }
}

/// A figure for SQLite, whose integers are signed.
fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A figure from SQLite; the schema keeps it from being negative.
fn uint(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
