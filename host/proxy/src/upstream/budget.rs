//! How many further tries a worker may make.
//!
//! Each request earns a share of a retry, a retry costs a whole one. Invariant: over any
//! span, retries are at most the burst plus the share of the requests in it.

use std::cell::Cell;

use super::UpstreamsConfig;

/// What one retry costs, in shares of a request.
const RETRY_COST: u32 = 100;

/// The budget of one worker.
pub(crate) struct Budget {
    shares: Cell<u32>,
    earned: u32,
    full: u32,
}

impl Budget {
    pub(crate) fn new(config: &UpstreamsConfig) -> Self {
        let full = config.retry_burst.saturating_mul(RETRY_COST);
        Self { shares: Cell::new(full), earned: config.retry_percent, full }
    }

    /// A request came.
    pub(crate) fn earn(&self) {
        self.shares.set(self.shares.get().saturating_add(self.earned).min(self.full));
    }

    /// Takes a retry; false when there is none left.
    pub(crate) fn take(&self) -> bool {
        let left = self.shares.get().checked_sub(RETRY_COST);
        left.inspect(|left| self.shares.set(*left)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn retries_never_exceed_burst_and_share(
            percent in 0u32..=100,
            burst in 0u32..20,
            steps in prop::collection::vec(any::<bool>(), 0..400),
        ) {
            let config = UpstreamsConfig {
                retry_percent: percent,
                retry_burst: burst,
                ..UpstreamsConfig::default()
            };
            let budget = Budget::new(&config);
            let (mut requests, mut retries) = (0u32, 0u32);
            for is_request in steps {
                if is_request {
                    budget.earn();
                    requests += 1;
                } else if budget.take() {
                    retries += 1;
                }
                prop_assert!(retries * 100 <= burst * 100 + requests * percent);
            }
        }
    }

    #[test]
    fn a_spent_budget_comes_back_with_requests() {
        let budget = Budget::new(&UpstreamsConfig::default());
        let at_once = (0..100).take_while(|_| budget.take()).count();
        assert_eq!(at_once, 10);
        (0..4).for_each(|_| budget.earn());
        assert!(!budget.take());
        budget.earn();
        assert!(budget.take());
    }
}
