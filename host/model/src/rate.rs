//! A rate: how many requests a second are let through, and how many at once.
//!
//! Declared for plans, tenants and the named limits of a policy; read by the limiter, which
//! keeps to it exactly. Invariant: a rate that exists has both figures within bounds, so
//! that the limiter's arithmetic in nanoseconds never overflows.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Largest `per_second`: an admission each microsecond, far beyond what one edge serves.
pub const PER_SECOND_MAX: u32 = 1_000_000;
/// Largest `burst`: at one request a second it takes eleven days to refill.
pub const BURST_MAX: u32 = 1_000_000;

/// Over any span of `t` seconds at most `burst + per_second × t` requests are let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Requests a second, in the long run: 1 to 1,000,000.
    #[serde(deserialize_with = "per_second")]
    #[schemars(with = "u32", range(min = 1, max = 1_000_000))]
    per_second: NonZeroU32,
    /// Requests at once, after a pause: 1 to 1,000,000.
    #[serde(deserialize_with = "burst")]
    #[schemars(with = "u32", range(min = 1, max = 1_000_000))]
    burst: NonZeroU32,
}

impl Rate {
    /// `None` when a figure is out of bounds.
    #[must_use]
    pub const fn new(per_second: u32, burst: u32) -> Option<Self> {
        if per_second > PER_SECOND_MAX || burst > BURST_MAX {
            return None;
        }
        match (NonZeroU32::new(per_second), NonZeroU32::new(burst)) {
            (Some(per_second), Some(burst)) => Some(Self { per_second, burst }),
            _ => None,
        }
    }

    /// In one word, for a reader that may not wait; [`Rate::from_bits`] reads it.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        (self.per_second.get() as u64) << 32 | self.burst.get() as u64
    }

    /// What [`Rate::to_bits`] wrote; the least rate for anything else.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        match Self::new((bits >> 32) as u32, bits as u32) {
            Some(rate) => rate,
            None => Self { per_second: NonZeroU32::MIN, burst: NonZeroU32::MIN },
        }
    }

    /// Requests a second, in the long run.
    #[must_use]
    pub const fn per_second(self) -> u32 {
        self.per_second.get()
    }

    /// Requests at once, after a pause.
    #[must_use]
    pub const fn burst(self) -> u32 {
        self.burst.get()
    }
}

fn per_second<'de, D: serde::Deserializer<'de>>(from: D) -> Result<NonZeroU32, D::Error> {
    within(from, PER_SECOND_MAX)
}

fn burst<'de, D: serde::Deserializer<'de>>(from: D) -> Result<NonZeroU32, D::Error> {
    within(from, BURST_MAX)
}

fn within<'de, D: serde::Deserializer<'de>>(from: D, most: u32) -> Result<NonZeroU32, D::Error> {
    let value = i64::deserialize(from)?;
    let fits = u32::try_from(value).ok().filter(|value| *value <= most).and_then(NonZeroU32::new);
    fits.ok_or_else(|| {
        serde::de::Error::custom(format!("must be a whole number from 1 to {most}, not {value}"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_figure_out_of_bounds_is_refused_with_the_bounds() {
        let read = |value| serde_json::from_value::<Rate>(value).map_err(|error| error.to_string());
        assert_eq!(read(json!({"per_second": 50, "burst": 100})), Ok(Rate::new(50, 100).unwrap()));
        for (value, most) in [
            (json!({"per_second": 0, "burst": 1}), PER_SECOND_MAX),
            (json!({"per_second": 1_000_001, "burst": 1}), PER_SECOND_MAX),
            (json!({"per_second": 1, "burst": -1}), BURST_MAX),
        ] {
            let error = read(value.clone()).expect_err("out of bounds");
            assert!(error.contains(&format!("from 1 to {most}")), "{value}: {error}");
        }
        for rate in [Rate::new(1, 1), Rate::new(PER_SECOND_MAX, 7)].map(|rate| rate.unwrap()) {
            assert_eq!(Rate::from_bits(rate.to_bits()), rate);
        }
        assert_eq!(Rate::new(0, 1), None);
        assert_eq!(Rate::new(1, BURST_MAX + 1), None);
    }
}
