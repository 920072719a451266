//! Billing of families: consolidation settings, and invoices.
//!
//! Prices are the plans' (`[plan.price]`). Invariant: amounts are whole minor units
//! everywhere but in the texts for people, which are made from them.

mod csv;
pub(super) mod invoices;
pub(super) mod settings;
#[cfg(test)]
mod tests;

use model::billing::BasisPoints;
use serde_json::Number;

/// A share as a JSON number of percent: `40`, `33.33`.
fn percent(points: BasisPoints) -> Number {
    let points = points.get();
    if points.is_multiple_of(100) {
        return (points / 100).into();
    }
    Number::from_f64(f64::from(points) / 100.0).unwrap_or_else(|| 0.into())
}
