//! One change: a transaction, and its effect on the published directory.
//!
//! Every mutation that the directory shows is `detached(async { begin, write, end })`, and
//! says at its begin who does what: the entry of the audit chain is part of it. Invariant:
//! from the commit to the publish nothing can be cancelled, so whoever is answered finds
//! the change in the directory; and no change ends well without its entry.

use std::{future::Future, sync::Arc};

use model::{audit::PLATFORM_CHAIN, tenant::TenantId};
use tokio::sync::OwnedMutexGuard;

use super::{
    Store, StoreError,
    audit::{self, Act, Shown},
    db::{ControlTx, Installation, OneTenant, Purpose, Tx, sql},
    sealed::Sealer,
};

/// A transaction that holds the turn to change, on the rows of one tenant or of all.
pub(super) struct Change<S> {
    store: Arc<Store>,
    pub(super) tx: Tx<S>,
    act: Act,
    /// Whose audit chain the act belongs to.
    chain: TenantId,
    /// It turned out that there is nothing to change, so nothing to tell.
    unchanged: bool,
    published: bool,
    /// One change at a time in this process: the others of it wait here, each without
    /// holding a connection.
    _turn: OwnedMutexGuard<()>,
}

impl Store {
    /// Waits for the turn to change, as long as the database answers.
    async fn turn(&self) -> Result<OwnedMutexGuard<()>, StoreError> {
        let turn = Arc::clone(&self.turn).lock_owned();
        self.db.unless_away(async { Ok(turn.await) }).await
    }
}

impl Change<OneTenant> {
    /// Waits for its turn to change one tenant.
    pub(super) async fn of(
        store: &Arc<Store>,
        tenant: TenantId,
        act: Act,
    ) -> Result<Self, StoreError> {
        let turn = store.turn().await?;
        let tx = store.db.tenant(tenant, Purpose::Change).await?;
        let store = Arc::clone(store);
        Ok(Self { store, tx, act, chain: tenant, unchanged: false, published: false, _turn: turn })
    }

    /// Has the tenant published at the end.
    pub(super) async fn publish(&mut self) -> Result<(), StoreError> {
        let tenant = self.tx.tenant();
        self.publish_tenant(tenant).await
    }
}

impl Change<Installation> {
    /// Waits for its turn to change what belongs to no tenant, or to a new one.
    pub(super) async fn of_installation(store: &Arc<Store>, act: Act) -> Result<Self, StoreError> {
        let turn = store.turn().await?;
        let tx: ControlTx = store.db.control(Purpose::Change).await?;
        let store = Arc::clone(store);
        Ok(Self {
            store,
            tx,
            act,
            chain: PLATFORM_CHAIN,
            unchanged: false,
            published: false,
            _turn: turn,
        })
    }

    /// Says that the act is about `tenant`, so belongs into its chain.
    pub(super) fn about(&mut self, tenant: TenantId) {
        self.chain = tenant;
    }
}

impl<S> Change<S> {
    /// How many tenants may be created, if there are as many as that.
    pub(super) fn is_full(&self) -> Option<usize> {
        self.store.is_full()
    }

    /// Says what the changed thing was and has become; see [`Act::describe`].
    pub(super) fn describe(&mut self, before: Option<&dyn Shown>, after: Option<&dyn Shown>) {
        self.act.describe(before, after);
    }

    /// Names the thing, when it was not known at the begin.
    pub(super) fn target(&mut self, target: &str) {
        self.act.target(target);
    }

    /// Seals secrets.
    pub(super) fn sealer(&self) -> Sealer {
        self.store.sealer.clone()
    }

    /// Says that there was nothing to change: no entry is written.
    pub(super) fn unchanged(&mut self) {
        self.unchanged = true;
    }

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

    /// Has plugins published at the end; the number that they then carry.
    pub(super) async fn publish_plugins(&mut self) -> Result<i64, StoreError> {
        let (revision,): (i64,) = sql("UPDATE directory_head
             SET revision = revision + 1, plugins = revision + 1 RETURNING revision")
        .one(&mut self.tx)
        .await?;
        self.store.db.announce(&mut self.tx).await?;
        self.published = true;
        Ok(revision)
    }

    /// Has a tenant and its children published at the end, under one number.
    pub(super) async fn publish_with_children(
        &mut self,
        tenant: TenantId,
    ) -> Result<(), StoreError> {
        self.publish_tenant(tenant).await?;
        sql("UPDATE tenant SET revision = (SELECT revision FROM directory_head)
             WHERE parent = $1")
        .bind(tenant.0)
        .execute(&mut self.tx)
        .await
        .map(drop)
    }

    /// Commits a success and publishes what it asked for; undoes a failure. An error after
    /// the commit means that the database went away: the change is published when it is back.
    pub(super) async fn end<T, E: From<StoreError>>(
        mut self,
        mut outcome: Result<T, E>,
    ) -> Result<T, E> {
        if outcome.is_ok() && !self.unchanged {
            let now = self.store.clock.now();
            let appended = audit::append(&mut self.tx, self.chain, &self.act, now).await;
            if let Err(error) = appended {
                outcome = Err(error.into());
            }
        }
        let value = self.tx.end(outcome).await?;
        if self.published {
            self.store.published.catch_up().await?;
            // The next change need not wait for the data plane.
            drop(self._turn);
            if !self.act.is_by_job() {
                self.store.in_force().await;
            }
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
