//! Keeps the parts of the tenants' data: months ahead, retention, splits that are due.
//!
//! What it does is `store/partitions`; a run lasts as long as the move that it finds or
//! begins. Invariant: one process of a database manages at a time, and a run that was cut off
//! is gone on with by the next.

use std::sync::Arc;

use super::JobDeps;
use crate::store::{PartitionRules, StoreError};

/// How often it looks, in ms: an hour; months are made a quarter ahead, and a part grows by
/// little in an hour.
pub(super) const EVERY_MS: u64 = 3_600_000;

pub(super) async fn run(deps: Arc<JobDeps>) -> Result<(), StoreError> {
    let managed = deps.store.manage_partitions(&PartitionRules::default()).await?;
    if managed.has_done_something() {
        tracing::info!(
            months_made = managed.months_made.len(),
            months_dropped = ?managed.months_dropped,
            rows_deleted = managed.rows_deleted,
            moves_ended = ?managed.moves_ended,
            "the parts of the tenants' data were kept"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::{Backend, Control, on_both};

    on_both![a_run_on_an_empty_database_ends_well_and_again];

    async fn a_run_on_an_empty_database_ends_well_and_again(on: Backend) {
        let control = Control::start(on).await;
        for _ in 0..2 {
            super::run(std::sync::Arc::new(control.deps.clone())).await.expect("a run");
        }
    }
}
