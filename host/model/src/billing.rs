//! Billing as arithmetic: prices, months, shares in basis points, and an invoice whose
//! lines add up.
//!
//! Used by the control plane, which brings the facts (who belonged to a family, under
//! which plan, with what usage). Invariants: money is whole minor units, never a float;
//! shares sum to exactly 10,000 basis points; the lines of an invoice sum to its total,
//! and so do its charges. What a month costs goes by the state at its last instant.

mod invoice;
mod money;
mod period;
mod share;

pub use self::{
    invoice::{Charge, Invoice, InvoiceLine, MixedCurrencies, is_billed},
    money::{Currency, CurrencyError, Price},
    period::{Period, PeriodError},
    share::{BasisPoints, Consolidation, PercentError, Share, Shares, SharesError},
};
