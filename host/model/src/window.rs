//! Quota windows: calendar months and days in UTC, half open `[start, end)`.
//!
//! Called when a window is opened, not per request. Invariant: windows of one metric
//! tile the time line, without gap or overlap.

use time::{Date, Duration, Month, OffsetDateTime, Time};

use crate::{clock::UnixMs, quota::Metric};

/// One window of one metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Window {
    /// First instant inside.
    pub start: UnixMs,
    /// First instant after.
    pub end: UnixMs,
}

impl Window {
    /// The window of `metric` that holds `now`: the calendar month for API calls, the
    /// day for AI requests, both UTC. `None` for metrics without a window.
    #[must_use]
    pub fn of(metric: Metric, now: UnixMs) -> Option<Self> {
        let date = now.date_time().date();
        let (first, next) = match metric {
            Metric::ApiCalls => {
                let first = date.replace_day(1).ok()?;
                let next = match first.month() {
                    Month::December => {
                        Date::from_calendar_date(first.year() + 1, Month::January, 1).ok()?
                    }
                    month => Date::from_calendar_date(first.year(), month.next(), 1).ok()?,
                };
                (first, next)
            }
            Metric::AiRequests => (date, date.checked_add(Duration::DAY)?),
            Metric::ConcurrentSessions | Metric::Storage | Metric::Users | Metric::Projects => {
                return None;
            }
        };
        let midnight =
            |day: Date| UnixMs::from_date_time(OffsetDateTime::new_utc(day, Time::MIDNIGHT));
        Some(Self { start: midnight(first), end: midnight(next) })
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

    fn month(at: OffsetDateTime) -> (String, String, u64) {
        let window = Window::of(Metric::ApiCalls, UnixMs::from_date_time(at)).expect("a month");
        (window.start.rfc3339(), window.end.rfc3339(), window.seconds() / 86_400)
    }

    #[test]
    fn months_follow_the_calendar() {
        for (at, start, end, days) in [
            (datetime!(2024-02-29 23:59:59 UTC), "2024-02-01", "2024-03-01", 29),
            (datetime!(2023-02-01 00:00:00 UTC), "2023-02-01", "2023-03-01", 28),
            (datetime!(2024-12-31 23:59:59 UTC), "2024-12-01", "2025-01-01", 31),
            (datetime!(2025-01-01 00:00:00 UTC), "2025-01-01", "2025-02-01", 31),
            (datetime!(2026-04-30 12:00:00 UTC), "2026-04-01", "2026-05-01", 30),
        ] {
            let (got_start, got_end, got_days) = month(at);
            assert_eq!(got_start, format!("{start}T00:00:00Z"));
            assert_eq!(got_end, format!("{end}T00:00:00Z"));
            assert_eq!(got_days, days);
        }
    }

    proptest! {
        #[test]
        fn windows_tile_the_time_line(at in 0_u64..4_000_000_000_000) {
            for metric in Metric::CONSUMABLE {
                let window = Window::of(metric, UnixMs(at)).expect("a window");
                prop_assert!(window.contains(UnixMs(at)));
                let next = Window::of(metric, window.end).expect("a window");
                prop_assert_eq!(next.start, window.end);
            }
        }
    }
}
