//! Time as the rest of the program sees it: injected, so that tests can move it.
//!
//! Called on every request. Invariant: the only place that reads the system clocks.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Milliseconds since the Unix epoch, UTC.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UnixMs(pub u64);

impl UnixMs {
    /// This instant plus `ms` milliseconds; saturates.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this instant; 0 when `earlier` is later.
    #[must_use]
    pub const fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The instant as a calendar time in UTC; the last representable one beyond year 9999.
    #[must_use]
    pub fn date_time(self) -> OffsetDateTime {
        i64::try_from(self.0 / 1000)
            .ok()
            .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
            .map_or(time::macros::datetime!(9999-12-31 23:59:59 UTC), |at| {
                at + time::Duration::milliseconds((self.0 % 1000) as i64)
            })
    }

    /// RFC 3339 with second precision, for example `2024-01-31T00:00:00Z`.
    #[must_use]
    pub fn rfc3339(self) -> String {
        let at = self.date_time();
        let whole = at.replace_nanosecond(0).unwrap_or(at);
        whole.format(&Rfc3339).unwrap_or_default()
    }

    /// RFC 3339 to the millisecond, without a fraction where there is none.
    #[must_use]
    pub fn rfc3339_exact(self) -> String {
        self.date_time().format(&Rfc3339).unwrap_or_default()
    }

    /// The instant of a calendar time; 0 before 1970.
    #[must_use]
    pub fn from_date_time(at: OffsetDateTime) -> Self {
        Self(u64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(0))
    }
}

/// Where the program takes its time from. Never blocks.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The wall clock.
    fn now(&self) -> UnixMs;
    /// Milliseconds on a clock that never goes back and goes on while the machine sleeps, so
    /// that a lease that ended meanwhile is seen to have; its zero is arbitrary.
    fn monotonic_ms(&self) -> u64;
}

/// The machine's clocks.
#[derive(Debug, Default)]
pub struct SystemClock(());

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that the others inject")]
    fn now(&self) -> UnixMs {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn monotonic_ms(&self) -> u64 {
        // `Instant` is CLOCK_MONOTONIC, which stands still in a suspend.
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        u64::try_from(now.tv_sec * 1_000 + now.tv_nsec / 1_000_000).unwrap_or(0)
    }
}

/// A clock that stands still until a test moves it.
#[derive(Debug, Default)]
pub struct ManualClock {
    now: AtomicU64,
    monotonic: AtomicU64,
}

impl ManualClock {
    /// A clock that shows `now`.
    #[must_use]
    pub fn at(now: UnixMs) -> Self {
        Self { now: AtomicU64::new(now.0), monotonic: AtomicU64::new(0) }
    }

    /// Moves both clocks forward.
    pub fn advance_ms(&self, ms: u64) {
        self.now.fetch_add(ms, Ordering::SeqCst);
        self.monotonic.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixMs {
        UnixMs(self.now.load(Ordering::SeqCst))
    }

    fn monotonic_ms(&self) -> u64 {
        self.monotonic.load(Ordering::SeqCst)
    }
}
