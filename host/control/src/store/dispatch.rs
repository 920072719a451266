//! The claim to dispatch quotas: one process of a database has it.
//!
//! The dispatcher of this version divides tranches inside its process, so a quota is used
//! in full only where one process draws from it; several need the shared dispatcher. The
//! edge therefore claims a PostgreSQL before it starts its quota engine (SQLite has one
//! process anyway), and a second one is refused at its start. Other uses of the store, such
//! as the command line, need no claim.
//!
//! Invariant: that no more than a limit is ever granted does not hang on the claim. Every
//! process opens epochs of its own under compare-and-swap, in windows that it holds; a
//! tranche is bound to its holder by the fence, and only that holder's final figures credit
//! it. A claim is lost when its connection is (a restart of the server); should a second
//! process then come, both stay within the limit, but one may answer 429 while the other
//! holds the last tokens (up to two tranches), and, as both have the same edge name, count
//! the other's open tranches as spent.

use std::time::Duration;

use super::{
    Store, StoreError,
    db::{self, Claim},
};

/// How long a start waits for a claim, in ms: as long as the server may take to notice that
/// a killed predecessor is gone, or that one takes to drain its last exchanges.
const PATIENCE_MS: u64 = 5_000;
/// How often it looks meanwhile, in ms.
const LOOK_MS: u64 = 100;

/// The claim, for as long as this lives.
#[derive(Debug)]
#[must_use = "the claim ends when it is dropped"]
pub struct DispatchClaim(#[expect(dead_code, reason = "held, never read")] Option<Claim>);

impl Store {
    /// Claims the quotas of this database for the dispatcher of this process. Waits some
    /// seconds for a predecessor to go.
    ///
    /// # Errors
    /// [`StoreError::Dispatched`]: another process has them; or the database failed.
    pub async fn claim_dispatch(&self) -> Result<DispatchClaim, StoreError> {
        self.claim_within(Duration::from_millis(PATIENCE_MS)).await
    }

    async fn claim_within(&self, patience: Duration) -> Result<DispatchClaim, StoreError> {
        let claimed = tokio::time::timeout(patience, self.wait_for_claim()).await;
        claimed.unwrap_or(Err(StoreError::Dispatched))
    }

    async fn wait_for_claim(&self) -> Result<DispatchClaim, StoreError> {
        loop {
            match self.db.claim().await? {
                db::Claimed::Yes(claim) => return Ok(DispatchClaim(claim)),
                db::Claimed::ByAnother => tokio::time::sleep(Duration::from_millis(LOOK_MS)).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Backend, on_both};

    /// Long enough for every machine that is not broken.
    const EVENTUALLY: Duration = Duration::from_secs(60);

    async fn one_process_dispatches(on: Backend) {
        let database = on.database();
        let _claim = database.open().await.claim_dispatch().await.expect("a claim");
    }

    on_both! { one_process_dispatches }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_second_process_is_refused_in_one_line_until_the_first_is_gone() {
        let database = Backend::Postgres.database();
        let (here, there) = (database.open().await, database.open().await);
        let claim = here.claim_within(EVENTUALLY).await.expect("a claim");
        let refused = there.claim_within(Duration::from_secs(1)).await.expect_err("a refusal");
        assert!(matches!(refused, StoreError::Dispatched), "{refused:?}");
        assert!(!refused.to_string().contains('\n'));
        let waiting = tokio::spawn(async move { there.claim_within(EVENTUALLY).await.map(drop) });
        drop(claim);
        waiting.await.expect("no panic").expect("the claim of one that is gone");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn databases_of_one_server_are_claimed_apart() {
        let one = Backend::Postgres.database().open().await;
        let two = Backend::Postgres.database().open().await;
        let _one = one.claim_within(EVENTUALLY).await.expect("a claim");
        let _two = two.claim_within(EVENTUALLY).await.expect("another");
    }
}
