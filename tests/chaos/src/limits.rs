//! What was promised to whom, and when: limits change during a run.
//!
//! A limit counts from before the change is asked for when it rises, and until a grace after
//! it when it falls: a fall is in force within one lease TTL.

use std::sync::{Mutex, PoisonError};

use model::{clock::UnixMs, quota::Metric, window::Window};

use crate::tenants::TENANTS;

/// How long a lowered limit may still be spent from, in ms: one lease TTL (10 s), one report
/// (1 s) and the way of the change to the edges.
pub const FALL_GRACE_MS: u64 = 15_000;

/// One change.
#[derive(Clone, Copy, Debug)]
struct Change {
    at: UnixMs,
    limit: u64,
}

/// The limits of all tenants.
#[derive(Debug, Default)]
pub struct Limits(Mutex<Vec<Vec<Change>>>);

impl Limits {
    /// Everybody's first limit.
    #[must_use]
    pub fn new() -> Self {
        let first = |calls| vec![Change { at: UnixMs(0), limit: calls }];
        Self(Mutex::new(TENANTS.iter().map(|tenant| first(tenant.calls)).collect()))
    }

    /// From now on `limit` calls a month.
    pub fn change(&self, tenant: usize, at: UnixMs, limit: u64) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(changes) = all.get_mut(tenant) {
            changes.push(Change { at, limit });
        }
    }

    /// The limit of calls now.
    #[must_use]
    pub fn now(&self, tenant: usize) -> u64 {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(tenant).and_then(|changes| changes.last()).map_or(0, |change| change.limit)
    }

    /// The largest limit that was in force at any time of a window.
    #[must_use]
    pub fn highest(&self, tenant: usize, metric: Metric, window: Window) -> u64 {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(changes) = all.get(tenant) else { return 0 };
        if metric != Metric::ApiCalls {
            return TENANTS.get(tenant).map_or(0, |tenant| tenant.quota(metric));
        }
        let ends = changes
            .iter()
            .skip(1)
            .map(|next| next.at.plus_ms(FALL_GRACE_MS))
            .chain([UnixMs(u64::MAX)]);
        let in_force = changes
            .iter()
            .zip(ends)
            .filter(|(change, end)| change.at < window.end && *end > window.start);
        in_force.map(|(change, _)| change.limit).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_limit_of_a_window_is_one_that_was_in_force_in_it() {
        let limits = Limits::new();
        let window = |start, end| Window { start: UnixMs(start), end: UnixMs(end) };
        let (month, tiny) = (Metric::ApiCalls, 0);
        assert_eq!(limits.highest(tiny, month, window(0, 100_000)), 40);
        limits.change(tiny, UnixMs(50_000), 90);
        limits.change(tiny, UnixMs(120_000), 10);
        assert_eq!(limits.highest(tiny, month, window(0, 50_000)), 40, "raised in the next one");
        assert_eq!(limits.highest(tiny, month, window(0, 100_000)), 90);
        assert_eq!(limits.highest(tiny, month, window(130_000, 200_000)), 90, "within the grace");
        assert_eq!(limits.highest(tiny, month, window(140_000, 200_000)), 10);
        assert_eq!(limits.now(tiny), 10);
        assert_eq!(limits.highest(3, Metric::AiRequests, window(0, 1)), 400);
    }
}
