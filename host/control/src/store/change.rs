//! One change: a transaction, and its effect on the published directory.
//!
//! Every mutation of the store is `detached(async { begin, write, end })`. Invariant: from
//! the commit to the publish nothing can be cancelled, so whoever is answered finds the
//! change in the directory.

use std::{future::Future, sync::Arc};

use model::tenant::TenantId;
use tokio::sync::OwnedMutexGuard;

use super::{
    Store, StoreError,
    db::{ControlTx, Installation, OneTenant, Purpose, Tx, sql},
};

/// A transaction that holds the turn to change, on the rows of one tenant or of all.
pub(super) struct Change<S> {
    store: Arc<Store>,
    pub(super) tx: Tx<S>,
    published: bool,
    /// One change at a time in this process: the others of it wait here, each without
    /// holding a connection.
    _turn: OwnedMutexGuard<()>,
}

impl Change<OneTenant> {
    /// Waits for its turn to change one tenant.
    pub(super) async fn of(store: &Arc<Store>, tenant: TenantId) -> Result<Self, StoreError> {
        let turn = Arc::clone(&store.turn).lock_owned().await;
        let tx = store.db.tenant(tenant, Purpose::Change).await?;
        Ok(Self { store: Arc::clone(store), tx, published: false, _turn: turn })
    }

    /// Has the tenant published at the end.
    pub(super) async fn publish(&mut self) -> Result<(), StoreError> {
        let tenant = self.tx.tenant();
        self.publish_tenant(tenant).await
    }
}

impl Change<Installation> {
    /// Waits for its turn to change what belongs to no tenant, or to a new one.
    pub(super) async fn of_installation(store: &Arc<Store>) -> Result<Self, StoreError> {
        let turn = Arc::clone(&store.turn).lock_owned().await;
        let tx: ControlTx = store.db.control(Purpose::Change).await?;
        Ok(Self { store: Arc::clone(store), tx, published: false, _turn: turn })
    }
}

impl<S> Change<S> {
    /// Has `tenant` published at the end: it gets the next number of the directory.
    pub(super) async fn publish_tenant(&mut self, tenant: TenantId) -> Result<(), StoreError> {
        let (revision,): (i64,) =
            sql("UPDATE directory_head SET revision = revision + 1 RETURNING revision")
                .one(&mut self.tx)
                .await?;
        sql("UPDATE tenant SET revision = $2 WHERE id = $1")
            .bind(tenant.0)
            .bind(revision)
            .execute(&mut self.tx)
            .await?;
        self.store.db.announce(&mut self.tx).await?;
        self.published = true;
        Ok(())
    }

    /// Commits a success and publishes what it asked for; undoes a failure. An error after
    /// the commit means that the database went away: the change is published when it is back.
    pub(super) async fn end<T, E: From<StoreError>>(self, outcome: Result<T, E>) -> Result<T, E> {
        let value = self.tx.end(outcome).await?;
        if self.published {
            self.store.published.catch_up().await?;
            // The next change need not wait for the data plane.
            drop(self._turn);
            self.store.in_force().await;
        }
        Ok(value)
    }
}

/// Runs a change to its end, even when the caller stops waiting: the database would commit
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
