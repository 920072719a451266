//! The tree of parts as it is, with sizes: what operators look at.
//!
//! Reads the catalogue and the moves, never a row of a tenant. Invariant: figures are
//! PostgreSQL's own: sizes are exact at their moment, numbers of rows its last estimate.

use model::{clock::UnixMs, tenant::TenantId};
use uuid::Uuid;

use super::{
    MoveState, Store, StoreError,
    moves::{self, PartitionMove},
    sql,
};
use crate::store::{
    db::{ControlTx, Purpose},
    rows::instant,
};

/// Moves that are shown: the one that runs, and the last ones that ended.
const MOVES_SHOWN: i64 = 20;

/// The parts of `tenant_data` that hold tenants, and how they came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionTree {
    /// Hash parts by modulus and remainder, then the tenants with one of their own.
    pub partitions: Vec<Partition>,
    /// The last moves, the latest first.
    pub moves: Vec<PartitionMove>,
}

/// A part with all its months.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its table.
    pub name: String,
    /// Modulus and remainder of the hash of the tenants in it.
    pub hash: Option<(u32, u32)>,
    /// The one tenant in it.
    pub tenant: Option<TenantId>,
    /// Bytes on disk, indexes included.
    pub bytes: u64,
    /// PostgreSQL's estimate of its rows.
    pub rows_estimate: u64,
    /// How many months it has.
    pub months: u64,
    /// Start of the oldest.
    pub oldest_month: Option<UnixMs>,
    /// End of the latest.
    pub until: Option<UnixMs>,
}

#[derive(sqlx::FromRow)]
struct Row {
    name: String,
    modulus: Option<i64>,
    remainder: Option<i64>,
    whale: Option<Uuid>,
    bytes: i64,
    rows: i64,
    months: i64,
    oldest: Option<i64>,
    until: Option<i64>,
}

impl Store {
    /// The tree of parts; `None` on SQLite, which has none.
    ///
    /// # Errors
    /// The store failed.
    pub async fn partitions(&self) -> Result<Option<PartitionTree>, StoreError> {
        if self.db.schema_owner().is_none() {
            return Ok(None);
        }
        let mut tx = self.db.control(Purpose::Read).await?;
        let tree = tree(&mut tx).await;
        tx.end(tree).await.map(Some)
    }
}

async fn tree(tx: &mut ControlTx) -> Result<PartitionTree, StoreError> {
    let partitions = partitions(tx).await?;
    let moves = moves::latest(tx, MOVES_SHOWN).await?;
    Ok(PartitionTree { partitions, moves })
}

pub(super) async fn partitions(tx: &mut ControlTx) -> Result<Vec<Partition>, StoreError> {
    let rows: Vec<Row> = sql("SELECT p.name, p.modulus::bigint, p.remainder::bigint, p.whale,
             COALESCE(sum(pg_total_relation_size(m.part)), 0)::bigint AS bytes,
             COALESCE(sum(GREATEST(c.reltuples, 0)), 0)::bigint AS rows,
             count(m.from_ms) AS months, min(m.from_ms) AS oldest, max(m.to_ms) AS until
         FROM tenant_data_part p
         LEFT JOIN tenant_data_part m ON m.parent = p.part
         LEFT JOIN pg_catalog.pg_class c ON c.oid = m.part
         WHERE p.modulus IS NOT NULL OR p.whale IS NOT NULL
         GROUP BY p.name, p.modulus, p.remainder, p.whale
         ORDER BY p.whale NULLS FIRST, p.modulus, p.remainder")
    .all(tx)
    .await?;
    Ok(rows.into_iter().map(partition).collect())
}

fn partition(row: Row) -> Partition {
    let count = |number: i64| u64::try_from(number).unwrap_or(0);
    let small = |number: i64| u32::try_from(number).ok();
    Partition {
        name: row.name,
        hash: row.modulus.and_then(small).zip(row.remainder.and_then(small)),
        tenant: row.whale.map(TenantId),
        bytes: count(row.bytes),
        rows_estimate: count(row.rows),
        months: count(row.months),
        oldest_month: row.oldest.map(instant),
        until: row.until.map(instant),
    }
}

impl PartitionTree {
    /// The move that runs, or waits to.
    #[must_use]
    pub fn running(&self) -> Option<&PartitionMove> {
        self.moves.iter().find(|move_| !matches!(move_.state, MoveState::Done | MoveState::Failed))
    }
}
