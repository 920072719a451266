//! Transactions: the only way to a statement, and each says whose rows it may touch.
//!
//! [`TenantTx`] is made from a `TenantId` and, on PostgreSQL, sees no other tenant: it runs
//! as `application_user` with the tenant in a context that ends with the transaction.
//! [`ControlTx`] is the control plane's own and sees all. Invariant: a connection goes back
//! to its pool only after a completed COMMIT or ROLLBACK; whatever else becomes of a
//! transaction (cancelled, panicked, forgotten) closes its connection.

use model::tenant::TenantId;
use sqlx::{Executor, PgConnection, Postgres, Sqlite, SqliteConnection, pool::PoolConnection};

use super::outlook::Outlook;
use crate::store::StoreError;

/// The scope of one tenant.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct OneTenant(pub(super) TenantId);

/// The scope of the control plane: all tenants, and the platform's own tables.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Installation;

/// A transaction on the rows of one tenant.
pub(in crate::store) type TenantTx = Tx<OneTenant>;
/// A transaction of the control plane, on the rows of all.
pub(in crate::store) type ControlTx = Tx<Installation>;

/// A connection of either database, within a transaction.
pub(super) enum Connection {
    Sqlite(PoolConnection<Sqlite>),
    Postgres(PoolConnection<Postgres>),
}

/// A transaction. Ends by [`Tx::end`]; dropped before, it changes nothing.
pub(in crate::store) struct Tx<S> {
    /// `None` once it has ended.
    connection: Option<Connection>,
    scope: S,
    /// Whether the server answers, if a statement is not to wait for one that does not.
    outlook: Option<Outlook>,
    /// A statement failed: PostgreSQL would answer COMMIT with a silent rollback.
    failed: bool,
}

impl<S> Tx<S> {
    /// A transaction that was begun on `connection`.
    pub(super) fn begun(connection: Connection, scope: S, outlook: Option<Outlook>) -> Self {
        Self { connection: Some(connection), scope, outlook, failed: false }
    }

    /// Commits what succeeded; undoes what did not, and hands the outcome on.
    pub(in crate::store) async fn end<T, E: From<StoreError>>(
        mut self,
        outcome: Result<T, E>,
    ) -> Result<T, E> {
        let failed = self.failed;
        let commits = outcome.is_ok() && !failed;
        let ended = self.run(if commits { "COMMIT" } else { "ROLLBACK" }).await;
        if ended.is_ok() {
            // Clean, so it may go back to its pool.
            drop(self.connection.take());
        }
        match outcome {
            Ok(_) if failed => Err(StoreError::Failed.into()),
            Ok(value) => ended.map(|()| value).map_err(E::from),
            Err(error) => Err(error),
        }
    }

    /// Whether nobody else writes until it ends, if it writes: SQLite. Rows need no lock.
    pub(in crate::store) fn is_alone(&self) -> bool {
        matches!(self.connection, Some(Connection::Sqlite(_)))
    }

    pub(super) fn scope(&self) -> &S {
        &self.scope
    }

    /// Runs a command that has no values and no rows.
    pub(super) async fn run(&mut self, command: &'static str) -> Result<(), StoreError> {
        let command = sqlx::raw_sql(command);
        self.on_connection(async |connection| match connection {
            Connection::Sqlite(connection) => connection.execute(command).await.map(drop),
            Connection::Postgres(connection) => connection.execute(command).await.map(drop),
        })
        .await
    }

    /// Does something on the connection, and remembers a failure.
    pub(super) async fn on_connection<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Connection) -> sqlx::Result<T>,
    ) -> Result<T, StoreError> {
        let connection = self.connection.as_mut().ok_or(StoreError::Failed)?;
        let work = async { Ok(work(connection).await?) };
        let outcome = match &self.outlook {
            Some(outlook) => outlook.unless_away(work).await,
            None => work.await,
        };
        self.failed |= outcome.is_err();
        outcome
    }
}

impl TenantTx {
    /// Whose rows it is about.
    pub(in crate::store) fn tenant(&self) -> TenantId {
        self.scope.0
    }
}

impl<S> Drop for Tx<S> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.discard();
        }
    }
}

impl Connection {
    /// Closes the connection; the database undoes what was not committed.
    pub(super) fn discard(self) {
        match self {
            Self::Sqlite(connection) => drop::<SqliteConnection>(connection.detach()),
            Self::Postgres(connection) => drop::<PgConnection>(connection.detach()),
        }
    }
}
