//! An operation and its commit.
//!
//! What the database undid because two processes met crosswise (serialisation failure,
//! deadlock) is run again, a bounded number of times. Any other failure means that the
//! authority is unavailable: also a connection that ended in the middle of COMMIT, after
//! which nobody knows. Invariant: an answer leaves only after the COMMIT of the very run
//! that made it, so no permit comes from a run that was undone.

use std::{future::Future, time::Duration};

use model::clock::UnixMs;

use super::super::{
    Store, StoreError,
    db::{ControlTx, Purpose},
};

/// Runs of one operation: beyond it the caller's own pause is better than another try.
const ATTEMPTS_MAX: u32 = 5;
/// Pause before the second run, in ms, and longer by as much before each further one: a
/// commit of the other takes about this.
const PAUSE_MS: u64 = 10;
/// SQLSTATE of transactions that the database undid for others' sake.
const UNDONE: [&str; 2] = ["40001", "40P01"];

/// What one transaction does. May run several times: it keeps nothing of a former run.
pub(super) trait Operation: Send + Sync {
    /// What the caller gets once it is durable.
    type Answer: Send;

    /// Does everything but the commit. `now` is the authority's time.
    fn run(
        &self,
        tx: &mut ControlTx,
        now: UnixMs,
    ) -> impl Future<Output = Result<Self::Answer, StoreError>> + Send;
}

/// Runs an operation and commits it.
pub(super) async fn committed<O: Operation>(
    store: &Store,
    operation: &O,
) -> Result<O::Answer, StoreError> {
    let mut attempt: u32 = 1;
    loop {
        let mut tx = store.db.control(Purpose::Account).await?;
        let outcome = match store.authority_time.now(&mut tx, &*store.clock).await {
            Ok(now) => operation.run(&mut tx, now).await,
            Err(error) => Err(error),
        };
        match tx.end(outcome).await {
            Err(error) if attempt < ATTEMPTS_MAX && was_undone(&error) => {
                tracing::debug!(%error, attempt, "a quota transaction runs again");
                tokio::time::sleep(Duration::from_millis(PAUSE_MS * u64::from(attempt))).await;
                attempt += 1;
            }
            ended => return ended,
        }
    }
}

/// Whether the database says that it has undone the transaction, and why is others.
fn was_undone(error: &StoreError) -> bool {
    let StoreError::Database(sqlx::Error::Database(error)) = error else { return false };
    error.code().is_some_and(|code| UNDONE.contains(&&*code))
}
