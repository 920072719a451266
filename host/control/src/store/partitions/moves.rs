//! Moves as they are asked for and recorded: one part becomes two, while everybody reads and
//! writes it.
//!
//! A move is a row of `partition_move` that climbs the states of `ladder.rs`. The copy is made
//! behind a log of what changes and verified against the source in one snapshot, so that a
//! difference is a fault and not lateness. Invariant: one move at a time, and each that is
//! asked for leaves an entry in the platform's audit chain.

use model::{audit::PLATFORM_CHAIN, clock::UnixMs, tenant::TenantId};
use uuid::Uuid;

use super::{MoveState, Partition, Store, StoreError, sql, tree};
use crate::store::{
    audit::{self, Act, Actor},
    db::{ControlTx, Purpose},
    rows::{instant, stored},
};

/// What becomes of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WantedMove {
    /// Twice the modulus: the named part becomes two of about half its size.
    Split(String),
    /// This tenant gets a part of its own.
    Isolate(TenantId),
}

/// Why a move was not taken on.
#[derive(Debug, thiserror::Error)]
pub enum PartitionMoveError {
    /// There is no such part, or it is none that can be split.
    #[error("there is no such part, or it cannot be split")]
    NoSuchPart,
    /// There is no such tenant.
    #[error("there is no such tenant")]
    NoSuchTenant,
    /// The tenant has a part of its own already.
    #[error("the tenant has a part of its own")]
    Alone,
    /// One move runs at a time.
    #[error("move {0} is not done yet")]
    Busy(i64),
    /// SQLite has no parts.
    #[error("SQLite has no parts")]
    NeedsPostgresql,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Kinds of [`WantedMove`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoveKind {
    /// Of a hash part in two.
    Split,
    /// Of one tenant out of its hash part.
    Isolate,
}

/// A move as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionMove {
    /// Its number.
    pub id: i64,
    /// What becomes of the part.
    pub kind: MoveKind,
    /// The part that is replaced; found for a tenant when the move begins.
    pub source: Option<String>,
    /// The tenant that is isolated.
    pub tenant: Option<TenantId>,
    /// How far it is.
    pub state: MoveState,
    /// The two that replace it, once they are there.
    pub into: Option<[String; 2]>,
    /// Rows copied so far.
    pub copied_rows: u64,
    /// Rows and checksum of both sides when they were found equal.
    pub verified: Option<(u64, String)>,
    /// Why it failed.
    pub error: Option<String>,
    /// When it was asked for.
    pub created_at: UnixMs,
    /// When its last step was done.
    pub updated_at: UnixMs,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    kind: String,
    source: Option<String>,
    whale: Option<Uuid>,
    state: String,
    left_part: Option<String>,
    right_part: Option<String>,
    copied: i64,
    verified_rows: Option<i64>,
    verified_hash: Option<String>,
    error: Option<String>,
    created_at: i64,
    updated_at: i64,
}

impl Store {
    /// Takes on a move, which the manager then makes.
    ///
    /// # Errors
    /// There is nothing to move, or something is being moved already.
    pub async fn want_move(
        &self,
        by: &Actor,
        wanted: &WantedMove,
    ) -> Result<PartitionMove, PartitionMoveError> {
        if self.db.schema_owner().is_none() {
            return Err(PartitionMoveError::NeedsPostgresql);
        }
        if let WantedMove::Isolate(tenant) = wanted
            && !self.knows(*tenant)
        {
            return Err(PartitionMoveError::NoSuchTenant);
        }
        let now = self.clock.now();
        let mut tx = self.db.control(Purpose::Write).await?;
        let outcome = want(&mut tx, by, wanted, now).await;
        tx.end(outcome).await
    }

    /// A move of a number.
    ///
    /// # Errors
    /// The store failed.
    pub async fn partition_move(&self, id: i64) -> Result<Option<PartitionMove>, StoreError> {
        if self.db.schema_owner().is_none() {
            return Ok(None);
        }
        let mut tx = self.db.control(Purpose::Read).await?;
        let found = sql("SELECT * FROM partition_move WHERE id = $1").bind(id).optional(&mut tx);
        let found = found.await;
        tx.end(found).await?.map(read).transpose()
    }
}

async fn want(
    tx: &mut ControlTx,
    by: &Actor,
    wanted: &WantedMove,
    now: UnixMs,
) -> Result<PartitionMove, PartitionMoveError> {
    let parts = tree::partitions(tx).await?;
    let (kind, source, tenant, act) = match wanted {
        WantedMove::Split(name) => {
            let can_be_split = |part: &&Partition| part.hash.is_some() && part.name == *name;
            parts.iter().find(can_be_split).ok_or(PartitionMoveError::NoSuchPart)?;
            ("split", Some(name.as_str()), None, Act::new(by, "partition.split", name))
        }
        WantedMove::Isolate(tenant) => {
            if parts.iter().any(|part| part.tenant == Some(*tenant)) {
                return Err(PartitionMoveError::Alone);
            }
            let act = Act::new(by, "partition.isolate", tenant.to_string());
            ("isolate", None, Some(tenant.0), act)
        }
    };
    // Nothing is inserted beside one that is not done.
    let row: Option<Row> = sql("INSERT INTO partition_move
             (kind, source, whale, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $4) ON CONFLICT DO NOTHING RETURNING *")
    .bind(kind)
    .bind(source)
    .bind(tenant)
    .bind(stored(now))
    .optional(tx)
    .await?;
    let Some(row) = row else {
        let last = latest(tx, 1).await?;
        return Err(PartitionMoveError::Busy(last.first().map_or(0, |last| last.id)));
    };
    audit::append(tx, PLATFORM_CHAIN, &act, now).await?;
    Ok(read(row)?)
}

/// The last moves, the latest first.
pub(super) async fn latest(
    tx: &mut ControlTx,
    limit: i64,
) -> Result<Vec<PartitionMove>, StoreError> {
    let rows: Vec<Row> =
        sql("SELECT * FROM partition_move ORDER BY id DESC LIMIT $1").bind(limit).all(tx).await?;
    rows.into_iter().map(read).collect()
}

fn read(row: Row) -> Result<PartitionMove, StoreError> {
    let kind = match row.kind.as_str() {
        "split" => MoveKind::Split,
        "isolate" => MoveKind::Isolate,
        other => return Err(StoreError::Decode(format!("kind of a move {other:?}"))),
    };
    let count = |number: i64| u64::try_from(number).unwrap_or(0);
    Ok(PartitionMove {
        id: row.id,
        kind,
        source: row.source,
        tenant: row.whale.map(TenantId),
        state: MoveState::from_name(&row.state)?,
        into: row.left_part.zip(row.right_part).map(|(left, right)| [left, right]),
        copied_rows: count(row.copied),
        verified: row.verified_rows.map(count).zip(row.verified_hash),
        error: row.error,
        created_at: instant(row.created_at),
        updated_at: instant(row.updated_at),
    })
}
