//! Adds up every quota account: what must never happen is told at once when it does.
//!
//! Invariant: it only reads.

use std::sync::Arc;

use super::JobDeps;
use crate::store::StoreError;

/// How often, in ms: an hour; it reads every account.
pub(super) const EVERY_MS: u64 = 3_600_000;

pub(super) async fn run(deps: Arc<JobDeps>) -> Result<(), StoreError> {
    for violation in deps.store.audit_quotas().await? {
        tracing::error!(?violation, "quota_invariant_broken: an account does not add up");
    }
    Ok(())
}
