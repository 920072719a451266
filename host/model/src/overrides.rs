//! Quotas that stand in place of a plan's for a time.
//!
//! Looked at when overrides are set and when one begins or ends, never per request: what
//! is in force then stays on the tenant. Invariant: from one boundary to the next the same
//! quotas are in force.

use std::collections::BTreeMap;

use crate::{clock::UnixMs, quota::Metric};

/// A quota with its dates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaOverride {
    /// Of what.
    pub metric: Metric,
    /// The quota.
    pub value: u64,
    /// The first instant at which it is in force.
    pub effective_from: UnixMs,
    /// The first instant at which it no longer is; `None` leaves it in force.
    pub effective_until: Option<UnixMs>,
    /// Why, for people.
    pub reason: String,
}

impl QuotaOverride {
    /// Whether `now` lies within its dates.
    #[must_use]
    pub fn holds(&self, now: UnixMs) -> bool {
        self.effective_from <= now && self.effective_until.is_none_or(|until| now < until)
    }
}

/// The quotas in force at `now`, by their names in a plan. Of two overrides of one metric
/// the one that began later wins.
#[must_use]
pub fn in_force(overrides: &[QuotaOverride], now: UnixMs) -> BTreeMap<String, u64> {
    let mut holding: Vec<_> = overrides.iter().filter(|dated| dated.holds(now)).collect();
    holding.sort_by_key(|dated| dated.effective_from);
    let quota = |dated: &QuotaOverride| (dated.metric.quota_name().to_owned(), dated.value);
    holding.into_iter().map(quota).collect()
}

/// The next instant after `now` at which an override begins or ends.
#[must_use]
pub fn next_boundary(overrides: &[QuotaOverride], now: UnixMs) -> Option<UnixMs> {
    let boundaries = |dated: &QuotaOverride| [Some(dated.effective_from), dated.effective_until];
    overrides.iter().flat_map(boundaries).flatten().filter(|at| *at > now).min()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dated(metric: Metric, value: u64, from: u64, until: Option<u64>) -> QuotaOverride {
        QuotaOverride {
            metric,
            value,
            effective_from: UnixMs(from),
            effective_until: until.map(UnixMs),
            reason: String::new(),
        }
    }

    #[test]
    fn the_later_one_wins_while_it_lasts() {
        let overrides = [
            dated(Metric::Users, 2, 20, Some(30)),
            dated(Metric::Users, 1, 10, None),
            dated(Metric::Storage, 3, 25, Some(26)),
        ];
        let users = |now| in_force(&overrides, UnixMs(now)).get("max_users").copied();
        assert_eq!(
            [9, 10, 19, 20, 29, 30].map(users),
            [None, Some(1), Some(1), Some(2), Some(2), Some(1)]
        );
        let mut at = UnixMs(0);
        let mut boundaries = Vec::new();
        while let Some(next) = next_boundary(&overrides, at) {
            boundaries.push(next.0);
            at = next;
        }
        assert_eq!(boundaries, [10, 20, 25, 26, 30]);
    }

    fn any_override() -> impl Strategy<Value = QuotaOverride> {
        (0_usize..6, 0_u64..100, 0_u64..40, prop::option::of(1_u64..20)).prop_map(
            |(metric, value, from, length)| {
                dated(Metric::ALL[metric], value, from, length.map(|length| from + length))
            },
        )
    }

    proptest! {
        #[test]
        fn nothing_changes_between_two_boundaries(
            overrides in prop::collection::vec(any_override(), 0..12), now in 0_u64..60,
        ) {
            let last = next_boundary(&overrides, UnixMs(now)).map_or(70, |next| next.0 - 1);
            let held = in_force(&overrides, UnixMs(now));
            for later in now..=last {
                prop_assert_eq!(&in_force(&overrides, UnixMs(later)), &held);
            }
        }
    }
}
