//! Looks for thresholds that were reached, every second, in every process.
//!
//! Invariant: running it more often, or in more processes, tells nobody twice.

use std::sync::Arc;

use super::JobDeps;
use crate::store::StoreError;

/// How often it looks, in ms: figures of the ledger are a second old at most.
pub(super) const EVERY_MS: u64 = 1_000;

/// Inserts the events of what was reached since the last run.
///
/// # Errors
/// The store failed; the next run goes on.
pub(super) async fn run(deps: Arc<JobDeps>) -> Result<(), StoreError> {
    let catalog = Arc::clone(&deps.catalog.borrow());
    let done = deps.store.evaluate_alerts(&catalog).await?;
    if done.events > 0 {
        tracing::info!(events = done.events, "thresholds of quotas were reached");
    }
    Ok(())
}
