//! Shares of a cost in basis points, and how an amount is split by them.
//!
//! Invariant: [`Shares`] sum to exactly 10,000 and name each tenant once, so a split
//! distributes every minor unit, none twice.

use std::{cmp::Reverse, collections::BTreeSet};

use serde::{Deserialize, Serialize};

use crate::tenant::TenantId;

/// Hundredths of a percent, up to the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct BasisPoints(u32);

/// Why a percentage is none that can be billed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a number from 0.01 to 100 with at most two decimals")]
pub struct PercentError;

impl BasisPoints {
    /// All of an amount.
    pub const WHOLE: Self = Self(10_000);

    /// Reads a decimal percentage digit by digit, so that no rounding of floats is in it.
    ///
    /// # Errors
    /// Not a plain decimal, more than two decimals that count, or out of range.
    pub fn from_percent(text: &str) -> Result<Self, PercentError> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
        let decimals = decimals.trim_end_matches('0');
        let plain = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || whole.len() > 3 || !plain(whole) || !plain(decimals) {
            return Err(PercentError);
        }
        let hundredths = match decimals.len() {
            0..=2 => format!("{decimals:0<2}"),
            _ => return Err(PercentError),
        };
        let points: u32 = format!("{whole}{hundredths}").parse().map_err(|_| PercentError)?;
        Self::try_from(points)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for BasisPoints {
    type Error = PercentError;

    fn try_from(points: u32) -> Result<Self, PercentError> {
        if (1..=Self::WHOLE.0).contains(&points) { Ok(Self(points)) } else { Err(PercentError) }
    }
}

impl From<BasisPoints> for u32 {
    fn from(points: BasisPoints) -> Self {
        points.0
    }
}

/// One tenant's share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Who bears it.
    pub tenant: TenantId,
    /// How much of the whole.
    pub basis_points: BasisPoints,
}

/// Shares of a whole, in the order in which they were declared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Share>", into = "Vec<Share>")]
pub struct Shares(Vec<Share>);

/// Why shares are no split of a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SharesError {
    /// They sum to something else.
    #[error("the percentages must sum to exactly 100; they sum to {}.{:02}", sum / 100, sum % 100)]
    Sum {
        /// What they sum to, in basis points.
        sum: u64,
    },
    /// A tenant is named twice.
    #[error("the tenant {0} is named twice")]
    Twice(TenantId),
}

impl Shares {
    /// Shares that split a whole.
    ///
    /// # Errors
    /// They do not sum to 10,000 basis points, or name a tenant twice.
    pub fn new(shares: Vec<Share>) -> Result<Self, SharesError> {
        let mut named = BTreeSet::new();
        if let Some(twice) = shares.iter().find(|share| !named.insert(share.tenant)) {
            return Err(SharesError::Twice(twice.tenant));
        }
        let sum = shares.iter().map(|share| u64::from(share.basis_points.get())).sum();
        if sum == u64::from(BasisPoints::WHOLE.get()) {
            Ok(Self(shares))
        } else {
            Err(SharesError::Sum { sum })
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Share> + '_ {
        self.0.iter().copied()
    }

    /// Splits `total` by largest remainder: everyone gets the whole units of their exact
    /// part, and the units left over go one each to the largest remainders; of equal ones
    /// the one declared first.
    #[must_use]
    pub fn split(&self, total: u64) -> Vec<(Share, u64)> {
        let whole = u128::from(BasisPoints::WHOLE.get());
        let exact = |share: &Share| u128::from(total) * u128::from(share.basis_points.get());
        let floor = |share: &Share| u64::try_from(exact(share) / whole).unwrap_or(u64::MAX);
        let mut split: Vec<_> = self.0.iter().map(|share| (*share, floor(share))).collect();
        let given = split.iter().fold(0_u64, |sum, (_, part)| sum.saturating_add(*part));
        let mut order: Vec<_> = (0..).zip(&self.0).collect::<Vec<(usize, &Share)>>();
        order.sort_by_key(|(at, share)| (Reverse(exact(share) % whole), *at));
        let left = usize::try_from(total.saturating_sub(given)).unwrap_or(usize::MAX);
        for (at, _) in order.into_iter().take(left) {
            if let Some((_, part)) = split.get_mut(at) {
                *part += 1;
            }
        }
        split
    }
}

impl TryFrom<Vec<Share>> for Shares {
    type Error = SharesError;

    fn try_from(shares: Vec<Share>) -> Result<Self, SharesError> {
        Self::new(shares)
    }
}

impl From<Shares> for Vec<Share> {
    fn from(shares: Shares) -> Self {
        shares.0
    }
}

/// How the bills of a parent and its subtree are made out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consolidation {
    /// Who bears which part of the family's bill; `None` leaves all of it to the parent.
    pub shares: Option<Shares>,
    /// One invoice to the parent for all, instead of one a tenant.
    pub consolidated_invoicing: bool,
    /// Whether the family means to share its quotas; the pools go by their own settings.
    pub shared_quotas: bool,
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use uuid::Uuid;

    use super::*;

    fn tenant(number: usize) -> TenantId {
        TenantId(Uuid::from_u128(number as u128))
    }

    fn shares(points: &[u32]) -> Result<Shares, SharesError> {
        let share = |(number, points): (usize, &u32)| Share {
            tenant: tenant(number),
            basis_points: BasisPoints::try_from(*points).expect("in range"),
        };
        Shares::new(points.iter().enumerate().map(share).collect())
    }

    fn amounts(points: &[u32], total: u64) -> Vec<u64> {
        let shares = shares(points).expect("a whole");
        shares.split(total).into_iter().map(|(_, part)| part).collect()
    }

    #[test]
    fn the_guides_split_of_an_odd_cent_adds_up() {
        assert_eq!(amounts(&[4_000, 3_500, 2_500], 10_001), [4_001, 3_500, 2_500]);
    }

    #[test]
    fn a_unit_left_over_goes_to_the_largest_remainder_and_of_equal_ones_to_the_first() {
        assert_eq!(amounts(&[3_334, 3_333, 3_333], 100), [34, 33, 33]);
        assert_eq!(amounts(&[2_500, 2_500, 2_500, 2_500], 2), [1, 1, 0, 0]);
        assert_eq!(amounts(&[1, 9_999], 1), [0, 1]);
        assert_eq!(amounts(&[10_000], u64::MAX), [u64::MAX]);
    }

    #[test]
    fn other_sums_and_a_tenant_named_twice_are_refused() {
        let refused = shares(&[4_000, 3_500, 2_400]).expect_err("99 %");
        assert_eq!(refused, SharesError::Sum { sum: 9_900 });
        assert!(refused.to_string().ends_with("they sum to 99.00"));
        assert_eq!(shares(&[]), Err(SharesError::Sum { sum: 0 }));
        let half = BasisPoints::try_from(5_000).expect("in range");
        let twice = vec![Share { tenant: tenant(1), basis_points: half }; 2];
        assert_eq!(Shares::new(twice), Err(SharesError::Twice(tenant(1))));
    }

    #[test]
    fn a_percentage_has_at_most_two_decimals_that_count() {
        let points = |text| BasisPoints::from_percent(text).map(BasisPoints::get);
        for (text, expected) in
            [("40", 4_000), ("33.33", 3_333), ("0.01", 1), ("100.0", 10_000), ("12.5", 1_250)]
        {
            assert_eq!(points(text), Ok(expected), "{text}");
        }
        for bad in ["", "0", "0.00", "33.333", "100.01", "-1", "1e1", ".5", "+5", "1000", "٣"] {
            assert_eq!(points(bad), Err(PercentError), "{bad}");
        }
    }

    #[test]
    fn stored_shares_that_are_no_whole_are_not_read() {
        let stored = |points: u32| {
            serde_json::json!([{"tenant": tenant(1), "basis_points": points}]).to_string()
        };
        assert!(serde_json::from_str::<Shares>(&stored(10_000)).is_ok());
        assert!(serde_json::from_str::<Shares>(&stored(9_999)).is_err());
        assert!(serde_json::from_str::<Shares>(&stored(20_000)).is_err());
    }

    /// Positive numbers that sum to the whole: the gaps between distinct cuts of it.
    fn wholes() -> impl Strategy<Value = Vec<u32>> {
        vec(1_u32..10_000, 0..12).prop_map(|mut cuts| {
            cuts.extend([0, 10_000]);
            cuts.sort_unstable();
            cuts.dedup();
            cuts.windows(2).map(|pair| pair[1] - pair[0]).collect()
        })
    }

    proptest! {
        #[test]
        fn parts_add_up_and_lie_within_one_unit_of_the_exact_part(
            points in wholes(), total in any::<u64>(),
        ) {
            let parts = amounts(&points, total);
            let sum: u128 = parts.iter().map(|part| u128::from(*part)).sum();
            prop_assert_eq!(sum, u128::from(total));
            for (part, points) in parts.iter().zip(&points) {
                let exact = u128::from(total) * u128::from(*points);
                let scaled = u128::from(*part) * 10_000;
                prop_assert!(scaled.abs_diff(exact) < 10_000, "{part} of {total} at {points}");
            }
        }

        #[test]
        fn a_larger_share_never_pays_less(points in wholes(), total in any::<u32>()) {
            let parts = amounts(&points, u64::from(total));
            for (one, first) in points.iter().zip(&parts) {
                for (other, second) in points.iter().zip(&parts) {
                    prop_assert!(one <= other || first >= second);
                }
            }
        }
    }
}
