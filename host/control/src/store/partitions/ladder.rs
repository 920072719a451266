//! The ladder of a move: its states, and how each step runs.
//!
//! What a step does is a function of the migration; here is whom it may keep waiting, and
//! what becomes of one that does not succeed: a lock that is not to be had is tried again, a
//! fault ends the move. Invariant: a step is one transaction with its state, so whatever ends
//! a manager, the next one goes on at the step that was not done.

use std::time::Duration;

use super::{JOB, Managed, Manager, PartitionMoveError, Step, StoreError, WantedMove, sql, tree};
use crate::store::{
    db::{Purpose, SchemaTx},
    rows::stored,
};

/// Tries of a step that meets a lock or a lost connection, in one run of the manager.
const ATTEMPTS: u32 = 8;
/// First wait before another try, in ms; doubles. Callers who queued behind the lock pass.
const PAUSE_MS: u64 = 200;
/// Longest wait before another try, in ms.
const PAUSE_MS_MAX: u64 = 5_000;
/// Entries of the log that one transaction brings up to date.
const REPLAY_ROWS: i64 = 1_000;

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

            pub(super) fn from_name(name: &str) -> Result<Self, StoreError> {
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
