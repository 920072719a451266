//! One part becomes two, while everybody reads and writes it.
//!
//! A move is a row of `partition_move` and a ladder of states. What a step does is a function
//! of the migration; here is how it runs: [`MoveState::step`] says whom it may keep waiting,
//! and a lock that is not to be had is tried again. The copy is made behind a log of what
//! changes; it is verified against the source in one snapshot, so a difference is a fault
//! and not lateness. Invariant: a step is one transaction with its state, so whatever ends a
//! manager, the next one goes on at the step that was not done.

use std::time::Duration;

use model::{audit::PLATFORM_CHAIN, clock::UnixMs, tenant::TenantId};
use uuid::Uuid;

use super::{JOB, Managed, Manager, Partition, Step, Store, StoreError, sql, tree};
use crate::store::{
    audit::{self, Act, Actor},
    db::{ControlTx, Purpose, SchemaTx},
    rows::{instant, stored},
};

/// Tries of a step that meets a lock or a lost connection, in one run of the manager.
const ATTEMPTS: u32 = 8;
/// First wait before another try, in ms; doubles. Callers who queued behind the lock pass.
const PAUSE_MS: u64 = 200;
/// Longest wait before another try, in ms.
const PAUSE_MS_MAX: u64 = 5_000;
/// Entries of the log that one transaction brings up to date.
const REPLAY_ROWS: i64 = 1_000;

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

/// How far a move is, in the order of its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MoveState {
    /// Asked for.
    Wanted,
    /// Rows are copied; changes are logged.
    Copying,
    /// Other parts get the condition that spares a look at them under the lock.
    Guarding,
    /// That condition is checked.
    Checking,
    /// The copy is compared with the source.
    Verifying,
    /// The two take the place of the one.
    Swapping,
    /// The one is dropped.
    Dropping,
    /// It is over, well.
    Done,
    /// It is over; everything is as before it.
    Failed,
}

macro_rules! names {
    ($($state:ident = $name:literal),* $(,)?) => {
        impl MoveState {
            /// Stable name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$state => $name),* }
            }

            fn from_name(name: &str) -> Result<Self, StoreError> {
                match name {
                    $($name => Ok(Self::$state),)*
                    _ => Err(StoreError::Decode(format!("state of a move {name:?}"))),
                }
            }
        }
    };
}

names! {
    Wanted = "wanted",
    Copying = "copying",
    Guarding = "guarding",
    Checking = "checking",
    Verifying = "verifying",
    Swapping = "swapping",
    Dropping = "dropping",
    Done = "done",
    Failed = "failed",
}

impl MoveState {
    /// The step that leads on, and how it runs; `None` at the end.
    const fn step(self) -> Option<(&'static str, Step)> {
        Some(match self {
            Self::Wanted => ("SELECT prepare_move($1), $2::bigint", Step::Restructure),
            Self::Copying => ("SELECT copy_move($1, $2), $2", Step::Beside),
            Self::Guarding => ("SELECT guard_move($1), $2::bigint", Step::Restructure),
            Self::Checking => ("SELECT check_guard($1), $2::bigint", Step::Beside),
            Self::Verifying => ("SELECT verify_move($1), $2::bigint", Step::Snapshot),
            Self::Swapping => ("SELECT swap_move($1), $2::bigint", Step::Restructure),
            Self::Dropping => ("SELECT drop_moved($1), $2::bigint", Step::Restructure),
            Self::Done | Self::Failed => return None,
        })
    }

    /// Whether it is over.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed)
    }
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

impl Manager<'_> {
    /// Takes the move that was begun to its end, if there is one.
    pub(super) async fn finish_moves(&self, managed: &mut Managed) -> Result<(), StoreError> {
        while let Some((id, mut state)) = self.unfinished().await? {
            while !state.is_final() {
                state = self.advance(id, state).await?;
            }
            managed.moves_ended.push(id);
        }
        Ok(())
    }

    /// Asks for a split of the largest part, when it is too large; whether it did.
    pub(super) async fn want_split(&self) -> Result<bool, StoreError> {
        let mut tx = self.store.db.control(Purpose::Read).await?;
        let parts = tree::partitions(&mut tx).await;
        let parts = tx.end(parts).await?;
        let largest = parts
            .into_iter()
            .filter(|part| part.hash.is_some() && part.bytes > self.rules.split_bytes)
            .max_by_key(|part| part.bytes);
        let Some(largest) = largest else { return Ok(false) };
        match self.store.want_move(&JOB, &WantedMove::Split(largest.name)).await {
            Ok(_) => Ok(true),
            Err(PartitionMoveError::Store(error)) => Err(error),
            // Somebody else asked first.
            Err(_) => Ok(false),
        }
    }

    async fn unfinished(&self) -> Result<Option<(i64, MoveState)>, StoreError> {
        let mut tx = self.owner.begin(Step::Beside).await?;
        let found: Result<Option<(i64, String)>, _> =
            sql("SELECT id, state FROM partition_move WHERE state NOT IN ('done', 'failed')")
                .optional(&mut tx)
                .await;
        let Some((id, state)) = tx.end(found).await? else { return Ok(None) };
        Ok(Some((id, MoveState::from_name(&state)?)))
    }

    /// Makes the next step, again while it meets what passes; a step that cannot succeed ends
    /// the move.
    pub(super) async fn advance(&self, id: i64, state: MoveState) -> Result<MoveState, StoreError> {
        let mut pause = PAUSE_MS;
        let mut attempts = 1;
        loop {
            let error = match self.try_step(id, state).await {
                Ok(next) => return Ok(next),
                Err(error) => error,
            };
            // The step was done, and only its answer was lost; or another manager did it.
            if let Ok(Some(now)) = self.store.partition_move(id).await
                && now.state != state
            {
                return Ok(now.state);
            }
            if let Some(reason) = lasting(&error) {
                tracing::error!(move_ = id, state = state.as_str(), %error, "a move has failed");
                return self.fail(id, reason).await;
            }
            if attempts == ATTEMPTS {
                return Err(error);
            }
            tracing::info!(move_ = id, state = state.as_str(), %error, "a step is tried again");
            tokio::time::sleep(Duration::from_millis(pause)).await;
            pause = (pause * 2).min(PAUSE_MS_MAX);
            attempts += 1;
        }
    }

    pub(super) async fn try_step(
        &self,
        id: i64,
        state: MoveState,
    ) -> Result<MoveState, StoreError> {
        if matches!(state, MoveState::Verifying | MoveState::Swapping) {
            self.catch_up(id).await?;
        }
        let Some((statement, how)) = state.step() else { return Ok(state) };
        let mut tx = self.owner.begin(how).await?;
        let begun = self.store.clock.monotonic_ms();
        let outcome = self.step(&mut tx, id, statement).await;
        let next = tx.end(outcome).await?;
        if how == Step::Restructure {
            let held_ms = self.store.clock.monotonic_ms().saturating_sub(begun);
            tracing::info!(move_ = id, state = state.as_str(), held_ms, "the tree has changed");
        }
        MoveState::from_name(&next)
    }

    async fn step(
        &self,
        tx: &mut SchemaTx,
        id: i64,
        statement: &'static str,
    ) -> Result<String, StoreError> {
        let rows = i64::from(self.rules.copy_rows);
        let (next, _): (String, i64) = sql(statement).bind(id).bind(rows).one(tx).await?;
        sql("UPDATE partition_move SET updated_at = $2 WHERE id = $1")
            .bind(id)
            .bind(stored(self.now()))
            .execute(tx)
            .await?;
        Ok(next)
    }

    /// Brings the copy near to the source, so that little is left to do under the lock.
    async fn catch_up(&self, id: i64) -> Result<(), StoreError> {
        loop {
            let mut tx = self.owner.begin(Step::Beside).await?;
            let taken: Result<(i64,), _> =
                sql("SELECT catch_up_move($1, $2)").bind(id).bind(REPLAY_ROWS).one(&mut tx).await;
            if tx.end(taken).await?.0 < REPLAY_ROWS {
                return Ok(());
            }
        }
    }

    async fn fail(&self, id: i64, reason: &str) -> Result<MoveState, StoreError> {
        let mut tx = self.owner.begin(Step::Restructure).await?;
        let failed: Result<(String,), _> =
            sql("SELECT fail_move($1, $2)").bind(id).bind(reason).one(&mut tx).await;
        MoveState::from_name(&tx.end(failed).await?.0)
    }
}

/// What PostgreSQL says, when another try would say the same. Locks (55P03, 40P01), snapshots
/// (40001), timeouts (57014) and shutdowns (57P..) pass, and so does a lost connection (08...).
fn lasting(error: &StoreError) -> Option<&str> {
    let StoreError::Database(sqlx::Error::Database(error)) = error else { return None };
    let code = error.code().unwrap_or_default().into_owned();
    let passes = matches!(code.as_str(), "55P03") || ["40", "57", "08"].contains(&code.get(..2)?);
    if passes { None } else { Some(error.message()) }
}
