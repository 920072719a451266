//! Levels that responses report: the rules of a route, and the port that keeps them.
//!
//! A backend that creates a user or stores a file says so by the status of its answer or
//! by a field of it; [`MeterRule`]s turn that into changes of a tenant's level. Called per
//! response of a route that has rules, and nowhere else. Invariant: what a client sends
//! never changes a level; only an upstream's answer does.

use http::{HeaderMap, HeaderName, StatusCode};
use uuid::Uuid;

use crate::{quota::Metric, tenant::TenantId};

/// Largest change that one response may report, either way (2^50: a pebibyte): beyond it
/// somebody counts something else.
pub const DELTA_MAX: u64 = 1 << 50;

/// What a response on a route says about a level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeterRule {
    /// Which level: users, projects or storage (in bytes).
    pub metric: Metric,
    /// On which answers.
    pub on_status: StatusRange,
    /// By how much it changes.
    pub delta: Delta,
}

/// Where the size of a change stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delta {
    /// In the rule.
    Fixed(i64),
    /// In a field of the answer, as a signed decimal number.
    Header {
        /// Which.
        name: HeaderName,
        /// Whether it is taken away before the client sees the answer.
        strip: bool,
    },
}

/// An answer whose field is no number, or too large a one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadDelta;

impl MeterRule {
    /// What an answer reports, 0 included; `None` when it says nothing.
    ///
    /// # Errors
    /// The field is there and says nothing that can be counted.
    pub fn report(&self, status: StatusCode, headers: &HeaderMap) -> Result<Option<i64>, BadDelta> {
        if !self.on_status.contains(status) {
            return Ok(None);
        }
        let delta = match &self.delta {
            Delta::Fixed(delta) => *delta,
            Delta::Header { name, .. } => {
                let mut values = headers.get_all(name).iter();
                let Some(value) = values.next() else { return Ok(None) };
                let text = value.to_str().ok().filter(|_| values.next().is_none());
                text.and_then(|text| text.parse::<i64>().ok()).ok_or(BadDelta)?
            }
        };
        if delta.unsigned_abs() > DELTA_MAX {
            return Err(BadDelta);
        }
        Ok(Some(delta))
    }

    /// The field that clients do not get to see.
    #[must_use]
    pub fn stripped(&self) -> Option<&HeaderName> {
        match &self.delta {
            Delta::Header { name, strip: true } => Some(name),
            Delta::Header { .. } | Delta::Fixed(_) => None,
        }
    }
}

/// A status, or a class of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRange {
    first: u16,
    last: u16,
}

impl StatusRange {
    /// Reads `2xx` or `201`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (digit, rest) = text.split_at_checked(1)?;
        let class = digit.parse::<u16>().ok().filter(|class| (1..=5).contains(class))?;
        if rest == "xx" {
            return Some(Self { first: class * 100, last: class * 100 + 99 });
        }
        let all_digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        let status = text.parse().ok().filter(|_| all_digits)?;
        Some(Self { first: status, last: status })
    }

    /// Whether the status is in it.
    #[must_use]
    pub fn contains(self, status: StatusCode) -> bool {
        (self.first..=self.last).contains(&status.as_u16())
    }
}

/// One change of one tenant's level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LevelChange {
    /// Whose.
    pub tenant: TenantId,
    /// Of what.
    pub metric: Metric,
    /// By how much; bytes of storage.
    pub delta: i64,
}

/// Changes that are counted together, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LevelBatch {
    /// The journal that it comes from.
    pub journal: Uuid,
    /// Its place there, from 1; a later batch is never applied before an earlier one.
    pub number: u64,
    /// At most one change per tenant and metric, in the order of both.
    pub changes: Vec<LevelChange>,
}

/// Where the data plane leaves the changes that responses report.
pub trait LevelSink: Send + Sync {
    /// Keeps a change so that it survives the process; true when it is kept. Called before
    /// the answer that reports it goes on; never waits for a database.
    fn record(&self, change: LevelChange) -> bool;
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const FIELD: HeaderName = HeaderName::from_static("x-storage-delta-bytes");

    fn rule(on_status: &str, delta: Delta) -> MeterRule {
        let on_status = StatusRange::parse(on_status).expect(on_status);
        MeterRule { metric: Metric::Storage, on_status, delta }
    }

    #[test]
    fn a_status_or_a_class_is_meant() {
        for (range, inside, outside) in
            [("2xx", &[200, 201, 299][..], &[199, 300][..]), ("201", &[201], &[200, 202])]
        {
            let range = StatusRange::parse(range).expect(range);
            let holds = |status: u16| range.contains(StatusCode::from_u16(status).expect("one"));
            assert!(inside.iter().all(|status| holds(*status)));
            assert!(!outside.iter().any(|status| holds(*status)));
        }
        for bad in ["", "2", "20", "2x", "xx", "6xx", "0xx", "2XX", "+20", "2000", "200 ", "٢xx"] {
            assert_eq!(StatusRange::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_field_is_one_signed_number_or_nothing_is_counted() {
        let rule = rule("2xx", Delta::Header { name: FIELD, strip: true });
        let told = |values: &[&'static str], status| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(FIELD, HeaderValue::from_static(value));
            }
            rule.report(status, &headers)
        };
        let ok = StatusCode::OK;
        assert_eq!(told(&["-17"], ok), Ok(Some(-17)));
        assert_eq!(told(&["+17"], ok), Ok(Some(17)));
        assert_eq!(told(&["0"], ok), Ok(Some(0)));
        assert_eq!(told(&[], ok), Ok(None));
        assert_eq!(told(&["x"], StatusCode::NOT_FOUND), Ok(None), "not asked");
        let beyond = "1125899906842625";
        for bad in [&["x"][..], &[""], &["1.5"], &["1", "1"], &["1, 2"], &[beyond], &["1e3"]] {
            assert_eq!(told(bad, ok), Err(BadDelta), "{bad:?}");
        }
    }

    #[test]
    fn a_fixed_change_needs_only_the_status() {
        let rule = rule("201", Delta::Fixed(1));
        assert_eq!(rule.report(StatusCode::CREATED, &HeaderMap::new()), Ok(Some(1)));
        assert_eq!(rule.report(StatusCode::OK, &HeaderMap::new()), Ok(None));
        assert_eq!(rule.stripped(), None);
    }
}
