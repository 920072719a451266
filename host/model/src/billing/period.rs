//! A billing period: one calendar month in UTC, whatever day a tenant's quota windows
//! begin on.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use time::{Date, Month, OffsetDateTime, Time};

use crate::{anchor::Anchor, clock::UnixMs, window::Window};

/// A calendar month in UTC, written `2026-10`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Period {
    window: Window,
}

/// The text is no month.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a month like 2026-10")]
pub struct PeriodError;

impl Period {
    /// The month that holds `now`.
    #[must_use]
    pub fn of(now: UnixMs) -> Self {
        let window = Anchor::default().month(now);
        // A month without a next one lies beyond the year 9999.
        Self { window: window.unwrap_or(Window { start: now, end: now }) }
    }

    /// From its first instant to the first one after it.
    #[must_use]
    pub const fn window(self) -> Window {
        self.window
    }

    /// Whether it is over at `now`, so that nothing can be added to it.
    #[must_use]
    pub fn is_closed(self, now: UnixMs) -> bool {
        self.window.end <= now
    }

    /// Whether it has begun at `now`.
    #[must_use]
    pub fn has_begun(self, now: UnixMs) -> bool {
        self.window.start <= now
    }
}

impl FromStr for Period {
    type Err = PeriodError;

    fn from_str(text: &str) -> Result<Self, PeriodError> {
        let (year, month) = text.split_once('-').ok_or(PeriodError)?;
        let digits = |text: &str, count| {
            (text.len() == count && text.bytes().all(|b| b.is_ascii_digit())).then_some(())
        };
        digits(year, 4).and(digits(month, 2)).ok_or(PeriodError)?;
        let year: i32 = year.parse().map_err(|_| PeriodError)?;
        let month: u8 = month.parse().map_err(|_| PeriodError)?;
        let month = Month::try_from(month).map_err(|_| PeriodError)?;
        let first = Date::from_calendar_date(year, month, 1).map_err(|_| PeriodError)?;
        let at = OffsetDateTime::new_utc(first, Time::MIDNIGHT);
        if at < OffsetDateTime::UNIX_EPOCH {
            return Err(PeriodError);
        }
        let window = Anchor::default().month(UnixMs::from_date_time(at));
        window.map(|window| Self { window }).ok_or(PeriodError)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.window.start.date_time();
        write!(f, "{:04}-{:02}", first.year(), u8::from(first.month()))
    }
}

impl TryFrom<String> for Period {
    type Error = PeriodError;

    fn try_from(text: String) -> Result<Self, PeriodError> {
        text.parse()
    }
}

impl From<Period> for String {
    fn from(period: Period) -> Self {
        period.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_month_closes_with_its_last_instant() {
        let january: Period = "2024-01".parse().expect("a month");
        let end = january.window().end;
        assert_eq!(end.rfc3339(), "2024-02-01T00:00:00Z");
        assert!(january.is_closed(end) && !january.is_closed(UnixMs(end.0 - 1)));
        assert!(january.has_begun(UnixMs(1_704_067_200_000)));
        assert!(!january.has_begun(UnixMs(1_704_067_199_999)));
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in [
            "",
            "2026",
            "2026-13",
            "2026-00",
            "26-10",
            "2026-1",
            "2026-10-01",
            "+026-10",
            "1969-12",
            "9999-12",
        ] {
            assert_eq!(bad.parse::<Period>(), Err(PeriodError), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn the_month_of_an_instant_is_written_and_read_back(at in 0_u64..4_000_000_000_000) {
            let period = Period::of(UnixMs(at));
            prop_assert!(period.window().contains(UnixMs(at)));
            prop_assert_eq!(period.to_string().parse(), Ok(period));
        }
    }
}
