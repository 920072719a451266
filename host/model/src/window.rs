//! Quota windows: months from a tenant's anchor day, and days, in UTC, half open
//! `[start, end)`.
//!
//! Called when a window is opened, not per request. Invariant: a tenant's windows of one
//! metric tile the time line, without gap or overlap.

use crate::{anchor::Anchor, clock::UnixMs, quota::Metric};

/// Length of a UTC day, in ms.
const DAY_MS: u64 = 86_400_000;

/// One window of one metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Window {
    /// First instant inside.
    pub start: UnixMs,
    /// First instant after.
    pub end: UnixMs,
}

impl Window {
    /// The window of `metric` that holds `now`: the month from the anchor's day for API
    /// calls, the UTC day for AI requests. `None` for metrics without a window.
    #[must_use]
    pub fn of(metric: Metric, now: UnixMs, anchor: Anchor) -> Option<Self> {
        match metric {
            Metric::ApiCalls => anchor.month(now),
            Metric::AiRequests => {
                let start = now.0 - now.0 % DAY_MS;
                Some(Self { start: UnixMs(start), end: UnixMs(start.checked_add(DAY_MS)?) })
            }
            Metric::ConcurrentSessions | Metric::Storage | Metric::Users | Metric::Projects => None,
        }
    }

    /// Whether `at` lies in the window.
    #[must_use]
    pub fn contains(&self, at: UnixMs) -> bool {
        self.start <= at && at < self.end
    }

    /// Length in seconds: the `w` of `RateLimit-Policy`.
    #[must_use]
    pub const fn seconds(&self) -> u64 {
        self.end.ms_since(self.start) / 1000
    }

    /// Seconds from `now` to the end, rounded up: the `t` of `RateLimit`.
    #[must_use]
    pub const fn seconds_left(&self, now: UnixMs) -> u64 {
        self.end.ms_since(now).div_ceil(1000)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    #[test]
    fn only_months_have_an_anchor() {
        let (now, anchor) = (at(datetime!(2026-11-23 18:00 UTC)), Anchor::on(31).expect("one"));
        let of = |metric| Window::of(metric, now, anchor);
        let window = |start, end| Some(Window { start: at(start), end: at(end) });
        let (day, next) = (datetime!(2026-11-23 0:00 UTC), datetime!(2026-11-24 0:00 UTC));
        assert_eq!(of(Metric::AiRequests), window(day, next));
        let (start, end) = (datetime!(2026-10-31 0:00 UTC), datetime!(2026-11-30 0:00 UTC));
        assert_eq!(of(Metric::ApiCalls), window(start, end));
        assert_eq!(of(Metric::Storage), None);
    }

    fn at(at: time::OffsetDateTime) -> UnixMs {
        UnixMs::from_date_time(at)
    }

    proptest! {
        #[test]
        fn windows_tile_the_time_line(at in 0_u64..4_000_000_000_000, day in 1_u8..=31) {
            let anchor = Anchor::on(day).expect("an anchor");
            for metric in Metric::CONSUMABLE {
                let window = Window::of(metric, UnixMs(at), anchor).expect("a window");
                prop_assert!(window.contains(UnixMs(at)));
                let next = Window::of(metric, window.end, anchor).expect("a window");
                prop_assert_eq!(next.start, window.end);
            }
        }
    }
}
