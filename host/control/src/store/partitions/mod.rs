//! The parts of `tenant_data`: what there is, and what the manager does about it.
//!
//! Tenants are spread over hash parts, each of which has a part a month; a part that grows
//! too large is split in two, a tenant that is huge gets one of its own, months beyond
//! retention go as a whole. Only PostgreSQL has parts; retention works on SQLite too, row by
//! row. Invariant: at every moment each row lies in exactly one part of the tree.

mod ladder;
mod moves;
mod own_retention;
mod retention;
mod tree;

use model::{audit::PLATFORM_CHAIN, clock::UnixMs};

pub use self::{
    ladder::MoveState,
    moves::{MoveKind, PartitionMove, PartitionMoveError, WantedMove},
    tree::{Partition, PartitionTree},
};
use super::{
    Actor, Store, StoreError,
    audit::{self, Act},
    db::{Claim, Purpose, SchemaOwner, Step, sql},
};

/// A hash part larger than this is split, in bytes: 100 GB, the product guide's threshold.
pub const SPLIT_BYTES: u64 = 100 * (1 << 30);
/// Months that are made before they begin: a manager that was away for a quarter is no loss.
pub const MONTHS_AHEAD: u32 = 3;
/// How long rows are kept, in days. The longest retention of any tenant; shorter ones are in
/// `gdpr_settings` of the tenant.
pub const RETENTION_DAYS: u32 = model::gdpr::RETENTION_DAYS_MAX;
/// Rows that are copied in one transaction: some ten milliseconds of work.
pub const COPY_ROWS: u32 = 5_000;

/// Who splits and deletes, when nobody asked for it.
const JOB: Actor = Actor::Job("partitions");

/// What the manager goes by.
#[derive(Clone, Copy, Debug)]
pub struct PartitionRules {
    /// Largest hash part, in bytes.
    pub split_bytes: u64,
    /// Months made ahead of the present one.
    pub months_ahead: u32,
    /// How long rows are kept, in days.
    pub retention_days: u32,
    /// Rows copied in one transaction.
    pub copy_rows: u32,
}

impl Default for PartitionRules {
    fn default() -> Self {
        Self {
            split_bytes: SPLIT_BYTES,
            months_ahead: MONTHS_AHEAD,
            retention_days: RETENTION_DAYS,
            copy_rows: COPY_ROWS,
        }
    }
}

/// What a run of the manager has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Managed {
    /// Another process manages at this moment; it does what is to be done.
    pub by_another: bool,
    /// Months made.
    pub months_made: Vec<String>,
    /// Months dropped, whose rows were all beyond retention.
    pub months_dropped: Vec<String>,
    /// Rows beyond retention that were deleted one by one.
    pub rows_deleted: u64,
    /// Moves that ended, well or not.
    pub moves_ended: Vec<i64>,
}

impl Managed {
    /// Whether anything is different than before the run.
    #[must_use]
    pub fn has_done_something(&self) -> bool {
        *self != Self { by_another: self.by_another, ..Self::default() }
    }
}

impl Store {
    /// Does whatever the parts need: finishes the move that was begun, makes the months ahead,
    /// drops those beyond retention, splits the largest part when it is too large. Takes as
    /// long as that takes; called once an hour, by any process. Cancelled or killed at any
    /// point, the next call goes on.
    ///
    /// # Errors
    /// The store failed, or a lock was not to be had; the next call tries again.
    pub async fn manage_partitions(&self, rules: &PartitionRules) -> Result<Managed, StoreError> {
        let mut managed = Managed::default();
        if let Some(owner) = self.db.schema_owner() {
            let Some(claim) = owner.claim().await? else {
                return Ok(Managed { by_another: true, ..managed });
            };
            let manager = Manager { store: self, owner, rules, _claim: claim };
            manager.finish_moves(&mut managed).await?;
            managed.months_made = manager.make_months().await?;
            managed.months_dropped = manager.drop_months().await?;
            if manager.want_split().await? {
                manager.finish_moves(&mut managed).await?;
            }
        }
        managed.rows_deleted = self.delete_beyond(rules.retention_days).await?
            + self.delete_of_tenants(rules.retention_days).await?;
        Ok(managed)
    }

    /// Notes in the platform's chain who is about to have the parts managed out of turn.
    ///
    /// # Errors
    /// The store failed.
    pub async fn note_partition_run(&self, by: &Actor) -> Result<(), StoreError> {
        let act = Act::new(by, "partition.run", "");
        let mut tx = self.db.control(Purpose::Write).await?;
        let appended = audit::append(&mut tx, PLATFORM_CHAIN, &act, self.clock.now()).await;
        tx.end(appended).await
    }
}

#[cfg(test)]
impl Store {
    /// A manager that the test leads; `None` while there is another.
    async fn manager<'a>(&'a self, rules: &'a PartitionRules) -> Option<Manager<'a>> {
        let owner = self.db.schema_owner()?;
        let claim = owner.claim().await.expect("an answer")?;
        Some(Manager { store: self, owner, rules, _claim: claim })
    }
}

/// The one manager of a database, for one run.
struct Manager<'a> {
    store: &'a Store,
    owner: SchemaOwner,
    rules: &'a PartitionRules,
    /// Saves work that two would do. What they do would be right all the same: every step
    /// holds the row of its move.
    _claim: Claim,
}

impl Manager<'_> {
    fn now(&self) -> UnixMs {
        self.store.clock.now()
    }

    /// Makes the missing months of every part, one a transaction.
    async fn make_months(&self) -> Result<Vec<String>, StoreError> {
        let mut made = Vec::new();
        for parent in self.parents().await? {
            while let Some(month) = self.make_month(&parent).await? {
                made.push(month);
            }
        }
        Ok(made)
    }

    async fn make_month(&self, parent: &str) -> Result<Option<String>, StoreError> {
        let mut tx = self.owner.begin(Step::Restructure).await?;
        let month: Result<(Option<String>,), _> =
            sql("SELECT make_month(to_regclass(quote_ident($1)), $2, $3::integer)")
                .bind(parent)
                .bind(super::rows::stored(self.now()))
                .bind(i64::from(self.rules.months_ahead))
                .one(&mut tx)
                .await;
        Ok(tx.end(month).await?.0)
    }

    /// Whatever is divided into months, also what is on its way into the tree.
    async fn parents(&self) -> Result<Vec<String>, StoreError> {
        let mut tx = self.owner.begin(Step::Beside).await?;
        let names: Result<Vec<(String,)>, _> = sql("SELECT c.relname::text
             FROM pg_catalog.pg_class c
             JOIN pg_catalog.pg_partitioned_table t ON t.partrelid = c.oid
             WHERE c.relnamespace = 'edge'::regnamespace AND t.partstrat = 'r'
             ORDER BY 1")
        .all(&mut tx)
        .await;
        Ok(tx.end(names).await?.into_iter().map(|(name,)| name).collect())
    }
}

#[cfg(test)]
mod tests;
