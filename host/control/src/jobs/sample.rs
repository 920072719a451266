//! Brings the history of usage up to the quota ledger.
//!
//! Invariant: of several processes one samples; the others find it done.

use std::sync::Arc;

use super::JobDeps;
use crate::store::StoreError;

/// How often it looks, in ms: a minute; trends are at most so old.
pub(super) const EVERY_MS: u64 = 60_000;

pub(super) async fn run(deps: Arc<JobDeps>) -> Result<(), StoreError> {
    let sampled = deps.store.sample_usage().await?;
    tracing::debug!(windows = sampled.windows, dropped = sampled.dropped, "usage was sampled");
    Ok(())
}
