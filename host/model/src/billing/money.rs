//! What a plan costs, in minor units of a currency (cents).
//!
//! Invariant: a price that exists is bounded, so that no sum of a family overflows.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Largest price: ten thousand million of a currency with cents; more is a slip of the pen.
const MINOR_MAX: u64 = 1_000_000_000_000;
/// Currencies without minor units (ISO 4217).
const WITHOUT_MINOR: [&str; 17] = [
    "BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND",
    "VUV", "XAF", "XOF", "XPF",
];
/// Currencies whose unit has a thousand minor ones.
const IN_THOUSANDTHS: [&str; 7] = ["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"];

/// A currency's ISO 4217 code.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency(Box<str>);

/// The text is no currency code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a currency has three capital letters, as in USD")]
pub struct CurrencyError;

impl Currency {
    /// The code.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// An amount as people write it: `100.01`.
    #[must_use]
    pub fn decimal(&self, minor: u64) -> String {
        let (digits, unit) = match self.as_str() {
            code if WITHOUT_MINOR.contains(&code) => return minor.to_string(),
            code if IN_THOUSANDTHS.contains(&code) => (3, 1_000),
            _ => (2, 100),
        };
        format!("{}.{:0digits$}", minor / unit, minor % unit)
    }
}

/// The currency of a bill on which nothing has a price.
impl Default for Currency {
    fn default() -> Self {
        Self("USD".into())
    }
}

impl FromStr for Currency {
    type Err = CurrencyError;

    fn from_str(text: &str) -> Result<Self, CurrencyError> {
        if text.len() == 3 && text.bytes().all(|b| b.is_ascii_uppercase()) {
            Ok(Self(text.into()))
        } else {
            Err(CurrencyError)
        }
    }
}

impl TryFrom<String> for Currency {
    type Error = CurrencyError;

    fn try_from(text: String) -> Result<Self, CurrencyError> {
        text.parse()
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> Self {
        currency.0.into()
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a plan costs, as declared in `[plan.price]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Currency of both figures.
    #[schemars(with = "String")]
    pub currency: Currency,
    /// For a month, in minor units.
    #[serde(default, deserialize_with = "bounded")]
    pub monthly_minor: u64,
    /// For a thousand charged API calls, in minor units; 0 leaves usage free.
    #[serde(default, deserialize_with = "bounded")]
    pub per_1000_api_calls_minor: u64,
}

impl Price {
    /// What a month's calls cost: by the call, rounded half up to the minor unit.
    #[must_use]
    pub fn usage_minor(&self, api_calls: u64) -> u64 {
        let thousandths = u128::from(api_calls) * u128::from(self.per_1000_api_calls_minor);
        u64::try_from((thousandths + 500) / 1_000).unwrap_or(u64::MAX)
    }
}

fn bounded<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let minor = u64::deserialize(from)?;
    if minor <= MINOR_MAX {
        return Ok(minor);
    }
    Err(serde::de::Error::custom(format!("a price is at most {MINOR_MAX} minor units")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_the_decimals_of_their_currency() {
        let shown = |code: &str, minor| code.parse::<Currency>().expect("a code").decimal(minor);
        assert_eq!(shown("USD", 10_001), "100.01");
        assert_eq!(shown("EUR", 5), "0.05");
        assert_eq!(shown("JPY", 4_900), "4900");
        assert_eq!(shown("KWD", 4_900), "4.900");
    }

    #[test]
    fn a_code_has_three_capital_letters() {
        for bad in ["", "usd", "US", "USDX", "U$D", "ÄÖ"] {
            assert_eq!(bad.parse::<Currency>(), Err(CurrencyError), "{bad}");
        }
    }

    #[test]
    fn a_declared_price_has_a_currency_and_is_bounded() {
        let price = |text: &str| toml::from_str::<Price>(text);
        let declared = price("currency = \"USD\"\nmonthly_minor = 4900").expect("a price");
        assert_eq!((declared.monthly_minor, declared.per_1000_api_calls_minor), (4_900, 0));
        assert!(price("monthly_minor = 4900").is_err());
        assert!(price("currency = \"USD\"\nmonthly_minor = 1000000000001").is_err());
        assert!(price("currency = \"USD\"\nmonthly_minor = -1").is_err());
        assert!(price("currency = \"USD\"\nyearly_minor = 1").is_err());
    }

    #[test]
    fn the_shipped_plans_are_priced_in_one_currency() {
        #[derive(Deserialize)]
        struct File {
            plan: Vec<crate::plan::Plan>,
        }
        let shipped = include_str!("../../../../policies/plans.toml");
        let file: File = toml::from_str(shipped).expect("plans");
        let prices: Vec<_> = file.plan.iter().filter_map(|plan| plan.price.as_ref()).collect();
        assert!(!prices.is_empty() && prices.len() < file.plan.len(), "some are free");
        assert!(prices.iter().all(|price| price.currency.as_str() == "USD"));
    }

    #[test]
    fn usage_is_rounded_half_up_once_for_the_month() {
        let price =
            Price { currency: Currency::default(), monthly_minor: 0, per_1000_api_calls_minor: 10 };
        for (calls, minor) in [(0, 0), (49, 0), (50, 1), (1_000, 10), (85_049, 850), (85_050, 851)]
        {
            assert_eq!(price.usage_minor(calls), minor, "{calls}");
        }
        assert!(price.usage_minor(u64::MAX) > 1 << 50);
    }
}
