//! The day of the month on which a tenant's months begin, and what it was before.
//!
//! Read where a window is looked up. A change never touches the window that holds it: the
//! new day counts from that window's end on, so the first month under it may be a short
//! one. Invariant: whatever the day and however often it changed, the months of a tenant
//! tile the time line, and a month that has begun keeps its bounds.

use serde::{Deserialize, Serialize};
use time::{Date, Duration, OffsetDateTime, Time, macros::date};

use crate::{clock::UnixMs, window::Window};

/// The latest day of a month, and so of an anchor; shorter months begin on their last day.
pub const ANCHOR_DAY_MAX: u8 = 31;
/// Days since 1970 that an anchor can tell apart: 24 bits, until the year 47,900.
const DAYS_MAX: u32 = (1 << 24) - 1;
/// Day 0 of [`Anchor`]'s days.
const EPOCH: Date = date!(1970 - 01 - 01);

/// On which day months begin, at 00:00 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub struct Anchor {
    /// The day, 1–31, of the months from `since` on.
    day: u8,
    /// When that became, or becomes, so: in days since 1970.
    since: u32,
    /// The day of the months before.
    before: u8,
    /// Since when that one was.
    before_since: u32,
}

/// An anchor as it is written down; what is absent is that of the calendar.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Stored {
    day: u8,
    since: u32,
    before: u8,
    before_since: u32,
}

/// Why there is no such anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnchorError {
    /// No day of a month.
    #[error("must be a day of the month, a whole number from 1 to {ANCHOR_DAY_MAX}")]
    NotADay,
    /// The present month is the short one of the last change. Were it changed again within,
    /// a clock that is behind would see the month before with other bounds than it had.
    #[error(
        "took effect with the present month, which is a short one: change it again from {} on",
        .0.rfc3339()
    )]
    TooSoon(UnixMs),
    /// Beyond the year 9999.
    #[error("there is no such month")]
    NoMonth,
}

impl Default for Stored {
    fn default() -> Self {
        Self { day: 1, since: 0, before: 1, before_since: 0 }
    }
}

impl Default for Anchor {
    /// Calendar months.
    fn default() -> Self {
        Self { day: 1, since: 0, before: 1, before_since: 0 }
    }
}

impl TryFrom<Stored> for Anchor {
    type Error = AnchorError;

    fn try_from(stored: Stored) -> Result<Self, AnchorError> {
        let Stored { day, since, before, before_since } = stored;
        let is_day = |day| (1..=ANCHOR_DAY_MAX).contains(&day);
        let in_order = before_since <= since && since <= DAYS_MAX;
        if !is_day(day) || !is_day(before) || !in_order {
            return Err(AnchorError::NotADay);
        }
        Ok(Self { day, since, before, before_since })
    }
}

impl Anchor {
    /// Months that always began on `day`.
    ///
    /// # Errors
    /// It is no day of a month.
    pub fn on(day: u8) -> Result<Self, AnchorError> {
        Self::try_from(Stored { day, before: day, ..Stored::default() })
    }

    /// The day, 1–31; while a change is under way, the one that it leads to.
    #[must_use]
    pub const fn day(self) -> u8 {
        self.day
    }

    /// The first instant under [`Anchor::day`].
    #[must_use]
    pub fn since(self) -> UnixMs {
        midnight(self.since).unwrap_or_default()
    }

    /// The same with another day from the end of the month that holds `now`.
    ///
    /// # Errors
    /// It is no day of a month, or the last change is not a month ago.
    pub fn moved(self, day: u8, now: UnixMs) -> Result<Self, AnchorError> {
        Self::on(day)?;
        if day == self.day {
            return Ok(self);
        }
        let today = day_of(now);
        if today < self.since {
            // The change before this one never came.
            return Ok(Self { day, ..self });
        }
        let month = self.month(now).ok_or(AnchorError::NoMonth)?;
        if self.since > 0 && month.start == self.since() {
            return Err(AnchorError::TooSoon(month.end));
        }
        Self::try_from(Stored {
            day,
            since: day_of(month.end),
            before: self.day,
            before_since: self.since,
        })
    }

    /// The month that holds `now`; `None` beyond the year 9999.
    #[must_use]
    pub fn month(self, now: UnixMs) -> Option<Window> {
        let today = day_of(now);
        let (day, first, last) = if today >= self.since {
            (self.day, self.since, DAYS_MAX)
        } else if today >= self.before_since {
            (self.before, self.before_since, self.since)
        } else {
            (self.before, 0, self.before_since)
        };
        let (start, end) = bounds(date_of(today)?, day)?;
        Some(Window {
            start: midnight(days(start).max(first))?,
            end: midnight(days(end).min(last))?,
        })
    }

    /// In one word, for a reader that may not wait; [`Anchor::from_bits`] reads it.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        (self.before_since as u64) << 34
            | (self.since as u64) << 10
            | (self.before as u64) << 5
            | self.day as u64
    }

    /// What [`Anchor::to_bits`] wrote; calendar months for anything else.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        let part = |shift: u32, width: u32| (bits >> shift & ((1 << width) - 1)) as u32;
        let stored = Stored {
            day: part(0, 5) as u8,
            before: part(5, 5) as u8,
            since: part(10, 24),
            before_since: part(34, 24),
        };
        Self::try_from(stored).unwrap_or_default()
    }
}

/// The days on which the month around `today` begins and ends, if months begin on `day`.
fn bounds(today: Date, day: u8) -> Option<(Date, Date)> {
    let begins = |first: Date| first.replace_day(day.min(first.month().length(first.year()))).ok();
    let first = today.replace_day(1).ok()?;
    let this = begins(first)?;
    if this <= today {
        let next = first.checked_add(Duration::days(31))?.replace_day(1).ok()?;
        return Some((this, begins(next)?));
    }
    let last = first.previous_day()?.replace_day(1).ok()?;
    Some((begins(last)?, this))
}

fn day_of(at: UnixMs) -> u32 {
    u32::try_from(at.0 / 86_400_000).unwrap_or(DAYS_MAX).min(DAYS_MAX)
}

fn days(date: Date) -> u32 {
    u32::try_from((date - EPOCH).whole_days()).unwrap_or(0)
}

fn date_of(days: u32) -> Option<Date> {
    EPOCH.checked_add(Duration::days(i64::from(days)))
}

fn midnight(days: u32) -> Option<UnixMs> {
    Some(UnixMs::from_date_time(OffsetDateTime::new_utc(date_of(days)?, Time::MIDNIGHT)))
}

#[cfg(test)]
mod tests;
