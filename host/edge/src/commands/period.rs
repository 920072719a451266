//! Lengths of time on the command line: `90d`, `24h`.

use std::str::FromStr;

use model::clock::{Clock, SystemClock};

/// Units and their length in seconds.
const UNITS: [(char, u64); 5] = [('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400), ('w', 604_800)];
/// Longest period, in seconds: a hundred years, so that every end has a date.
const PERIOD_S_MAX: u64 = 100 * 366 * 86_400;

/// A length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Period {
    /// In seconds.
    pub(super) seconds: u64,
}

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || "must be a whole number and a unit: 30m, 24h, 90d or 12w".to_owned();
        let unit = text.chars().last().ok_or_else(refused)?;
        let (_, unit_s) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(refused)?;
        let digits = text.strip_suffix(unit).unwrap_or_default();
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(refused());
        }
        let count: u64 = digits.parse().map_err(|_| refused())?;
        match count.checked_mul(*unit_s) {
            Some(0) => Err("must be longer than nothing".to_owned()),
            Some(seconds) if seconds <= PERIOD_S_MAX => Ok(Self { seconds }),
            _ => Err("must be at most 36600d".to_owned()),
        }
    }
}

impl Period {
    /// When it ends if it starts now, by this machine's clock, in RFC 3339.
    pub(super) fn end(self) -> String {
        SystemClock::default().now().plus_ms(self.seconds * 1_000).rfc3339()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_a_unit_are_a_period() {
        for (text, seconds) in [("1s", 1), ("30m", 1_800), ("24h", 86_400), ("90d", 7_776_000)] {
            assert_eq!(text.parse(), Ok(Period { seconds }), "{text}");
        }
        assert_eq!("2w".parse::<Period>(), "14d".parse());
        for bad in ["", "d", "90", "-1d", "+1d", "1.5h", "1 d", "0d", "1y", "36601d", "ä", "1ä"] {
            assert!(bad.parse::<Period>().is_err(), "{bad}");
        }
        assert!(format!("{}w", u64::MAX).parse::<Period>().is_err());
    }
}
