//! Signs the heads of the audit chains, once a day (UTC) and chain.
//!
//! Invariant: what is not signed today is signed by the next run, in whichever process.

use std::sync::Arc;

use super::JobDeps;
use crate::store::StoreError;

/// How often it looks, in ms: an hour, so that a day's head is signed early in the day.
pub(super) const EVERY_MS: u64 = 3_600_000;

pub(super) async fn run(deps: Arc<JobDeps>) -> Result<(), StoreError> {
    let signed = deps.store.sign_heads().await?;
    if signed > 0 {
        tracing::info!(chains = signed, "the heads of the audit chains are signed");
    }
    Ok(())
}
