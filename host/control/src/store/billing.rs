//! What families are billed: consolidation settings with their history, and invoices.
//!
//! A month is billed by what held at its last instant: the family (`tenant_parent`), plans
//! and statuses (`tenant_terms`), the consolidation in force. So it can be computed at any
//! later time, with the prices that the plans have then. Invariants: a consolidation names
//! only tenants of its parent's subtree; settings never change the past; an invoice that
//! was issued stays as it is, under a number of its own.

mod facts;
mod invoice;
pub(super) mod settings;
pub(super) mod terms;
#[cfg(test)]
mod tests;

pub use self::{
    invoice::{Bill, InvoiceError, Issued},
    settings::{BillingError, BillingSettings, Settings},
};
