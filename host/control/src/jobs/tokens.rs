//! Forgets tokens and data-plane keys that have been dead for long, so that the lists stay
//! readable, and idempotency keys past their time.
//!
//! Their audit entries stay. Invariant: what lives is never touched.

use std::sync::Arc;

use super::JobDeps;
use crate::store::StoreError;

/// How often it looks, in ms: an hour; nothing waits for it.
pub(super) const EVERY_MS: u64 = 3_600_000;

pub(super) async fn run(deps: Arc<JobDeps>) -> Result<(), StoreError> {
    deps.store.forget_dead_tokens().await?;
    deps.store.forget_dead_keys().await?;
    deps.store.forget_old_requests().await
}
