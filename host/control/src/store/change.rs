//! One change: a transaction, and its effect on the published directory.
//!
//! Every mutation of the store is `detached(async { begin, write, publish })`. Invariant:
//! from the commit to the publish nothing can be cancelled and no other change can come
//! between, so the directory always shows the last committed state.

use std::{future::Future, sync::Arc};

use model::tenant::TenantId;
use sqlx::{Sqlite, SqliteConnection, Transaction};
use tokio::sync::OwnedMutexGuard;

use super::{Store, StoreError, directory, rows::Span};

/// A write transaction that holds the turn to change.
pub(super) struct Change {
    store: Arc<Store>,
    transaction: Transaction<'static, Sqlite>,
    _turn: OwnedMutexGuard<()>,
}

impl Change {
    /// Waits for its turn and opens a transaction. Dropping it rolls back.
    pub(super) async fn begin(store: &Arc<Store>) -> Result<Self, StoreError> {
        let turn = Arc::clone(&store.turn).lock_owned().await;
        let transaction = store.writer().begin_with("BEGIN IMMEDIATE").await?;
        Ok(Self { store: Arc::clone(store), transaction, _turn: turn })
    }

    /// Where its statements run.
    pub(super) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.transaction
    }

    /// Commits and publishes what now holds for `tenant`.
    pub(super) async fn publish(mut self, tenant: TenantId) -> Result<(), StoreError> {
        let now_holds = directory::load(self.connection(), Span::one(tenant)).await?;
        self.transaction.commit().await?;
        self.store.directory.send_modify(|directory| {
            *directory = Arc::new(directory::with(directory, tenant, now_holds));
        });
        Ok(())
    }

    /// Commits a change that the directory does not show.
    pub(super) async fn commit(self) -> Result<(), StoreError> {
        Ok(self.transaction.commit().await?)
    }
}

/// Runs a change to its end, even when the caller stops waiting: SQLite would commit
/// what nobody then publishes.
pub(super) async fn detached<T, E>(
    work: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<StoreError> + Send + 'static,
{
    match tokio::spawn(work).await {
        Ok(outcome) => outcome,
        Err(died) => Err(StoreError::Abandoned(died).into()),
    }
}
