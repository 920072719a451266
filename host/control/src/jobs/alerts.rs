//! Looks for thresholds that were reached. Every second or two, in every process.
//!
//! Invariant: running it more often, or in more processes, tells nobody twice.

use model::catalog::Catalog;

use crate::store::{Store, StoreError};

/// Inserts the events of what was reached since the last run.
///
/// # Errors
/// The store failed; the next run goes on.
pub(crate) async fn run(store: &Store, catalog: &Catalog) -> Result<(), StoreError> {
    let done = store.evaluate_alerts(catalog).await?;
    if done.events > 0 {
        tracing::info!(events = done.events, "thresholds of quotas were reached");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
