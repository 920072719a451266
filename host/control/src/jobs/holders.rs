//! Looks after the holders of quotas: ends those that are silent, and what waits for them.
//!
//! A holder is silent only if it could have been heard: after an outage of the database, or
//! a jump of its clock, everybody gets the whole time again. Invariant: nothing that is done
//! here credits a token that a holder may still spend.

use std::sync::{Arc, Mutex, PoisonError};

use model::clock::UnixMs;

use super::JobDeps;
use crate::store::StoreError;

/// How often it looks, in ms: a sixth of the time that a holder may be silent.
pub(super) const EVERY_MS: u64 = 10_000;
/// Time without a report after which a holder is lost, in ms: 60 s. A living one reports at
/// least every few seconds; an edge that restarts on the same machine is inherited sooner.
const HOLDER_SILENT_MS: u64 = 60_000;
/// Time between two looks beyond which the database counts as having been out of reach, in
/// ms: three of them.
const GAP_MS: u64 = 3 * EVERY_MS;

/// Since when the database has been within reach, as seen from here.
#[derive(Clone, Debug, Default)]
pub(super) struct Reach(Arc<Mutex<Option<Looks>>>);

#[derive(Clone, Copy, Debug)]
struct Looks {
    first: UnixMs,
    last: UnixMs,
}

impl Reach {
    /// Notes a look; whether everybody alive could have reported in time.
    fn looked(&self, now: UnixMs) -> bool {
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = match *looks {
            Some(Looks { first, last }) if now >= last && now.ms_since(last) <= GAP_MS => first,
            _ => now,
        };
        *looks = Some(Looks { first, last: now });
        now.ms_since(first) >= HOLDER_SILENT_MS
    }
}

pub(super) async fn run(deps: Arc<JobDeps>, reach: Reach) -> Result<(), StoreError> {
    let store = &deps.store;
    if reach.looked(store.authority_now().await?) {
        let lost = store.lose_silent_holders(HOLDER_SILENT_MS).await?;
        tracing::debug!(lost, "silent holders were looked for");
    }
    store.close_ended_windows().await?;
    let credited = store.sweep_epochs().await?;
    tracing::debug!(credited, "shared epochs were swept");
    store.forget_ended_holders().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_counts_only_while_the_database_was_within_reach() {
        let reach = Reach::default();
        let look = |seconds: u64| reach.looked(UnixMs(seconds * 1_000));
        assert!((0..6).all(|n| !look(n * 10)), "not for the first minute");
        assert!(look(60));
        assert!(look(90), "a look may be late");
        assert!(!look(150), "an outage, or a clock that was set forward");
        assert!((16..21).all(|n| !look(n * 10)));
        assert!(look(210));
        assert!(!look(100), "a clock that was set back");
    }
}
