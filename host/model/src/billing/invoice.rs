//! An invoice: what each member of a family is charged, and who bears how much of it.
//!
//! Invariant: the charges and the lines sum to the same total, in one currency.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{BasisPoints, Currency, Period, Price, Shares};
use crate::tenant::{Status, TenantId};

/// What one tenant is charged for a month.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// Who is charged.
    pub tenant: TenantId,
    /// Its legal name.
    pub organization_name: String,
    /// Its plan at the end of the month.
    pub plan: String,
    /// Its status at the end of the month, which decides whether it is charged at all.
    pub status: Status,
    /// For the plan.
    pub plan_minor: u64,
    /// API calls that count; 0 where the plan has no price for them.
    pub api_calls: u64,
    /// For these calls.
    pub usage_minor: u64,
}

/// Whether a tenant that ends the month in `status` is charged for it. A trial is free, and
/// who is not served does not pay.
#[must_use]
pub const fn is_billed(status: Status) -> bool {
    matches!(status, Status::Active | Status::PastDue)
}

impl Charge {
    /// Both parts.
    #[must_use]
    pub const fn total_minor(&self) -> u64 {
        self.plan_minor.saturating_add(self.usage_minor)
    }

    /// Fills in what a price makes of a tenant's plan, status and calls.
    #[must_use]
    pub fn priced(self, price: Option<&Price>) -> Self {
        match price.filter(|_| is_billed(self.status)) {
            None => Self { plan_minor: 0, api_calls: 0, usage_minor: 0, ..self },
            Some(price) => Self {
                plan_minor: price.monthly_minor,
                usage_minor: price.usage_minor(self.api_calls),
                ..self
            },
        }
    }
}

/// What one tenant bears of an invoice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvoiceLine {
    /// Who bears it.
    pub tenant: TenantId,
    /// Its legal name.
    pub organization_name: String,
    /// Its share of the total.
    pub basis_points: BasisPoints,
    /// The amount.
    pub amount_minor: u64,
}

/// The bill of one payer for one month.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invoice {
    /// To whom it is made out.
    pub payer: TenantId,
    /// For which month.
    pub period: Period,
    /// Currency of every amount.
    pub currency: Currency,
    /// What was charged, by member of the family.
    pub charges: Vec<Charge>,
    /// Who bears how much.
    pub lines: Vec<InvoiceLine>,
    /// The sum of the charges, and of the lines.
    pub total_minor: u64,
}

/// The members of a family have prices in several currencies.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the plans of the family are priced in several currencies: {}", self.codes())]
pub struct MixedCurrencies(pub BTreeSet<Currency>);

impl MixedCurrencies {
    fn codes(&self) -> String {
        self.0.iter().map(Currency::as_str).collect::<Vec<_>>().join(", ")
    }
}

impl Invoice {
    /// Prices the charges of a family and splits their sum. Each charge comes with the price
    /// of its plan; without shares the payer bears everything.
    ///
    /// # Errors
    /// Amounts of several currencies cannot be summed.
    pub fn of(
        payer: TenantId,
        period: Period,
        members: Vec<(Charge, Option<Price>)>,
        shares: Option<&Shares>,
    ) -> Result<Self, MixedCurrencies> {
        let mut currencies = BTreeSet::new();
        let mut charges = Vec::with_capacity(members.len());
        for (member, price) in members {
            let charge = member.priced(price.as_ref());
            currencies.extend(price.filter(|_| charge.total_minor() > 0).map(|p| p.currency));
            charges.push(charge);
        }
        if currencies.len() > 1 {
            return Err(MixedCurrencies(currencies));
        }
        let total_minor =
            charges.iter().fold(0_u64, |sum, charge| sum.saturating_add(charge.total_minor()));
        let parts = match shares {
            Some(shares) => shares
                .split(total_minor)
                .into_iter()
                .map(|(share, amount)| (share.tenant, share.basis_points, amount))
                .collect(),
            None => vec![(payer, BasisPoints::WHOLE, total_minor)],
        };
        let name = |tenant: TenantId| {
            let charge = charges.iter().find(|charge| charge.tenant == tenant);
            charge.map(|charge| charge.organization_name.clone()).unwrap_or_default()
        };
        let line = |(tenant, basis_points, amount_minor)| InvoiceLine {
            tenant,
            organization_name: name(tenant),
            basis_points,
            amount_minor,
        };
        let lines = parts.into_iter().map(line).collect();
        let currency = currencies.pop_first().unwrap_or_default();
        Ok(Self { payer, period, currency, charges, lines, total_minor })
    }

    /// What a tenant bears of it, if it has a share.
    #[must_use]
    pub fn line_of(&self, tenant: TenantId) -> Option<&InvoiceLine> {
        self.lines.iter().find(|line| line.tenant == tenant)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use uuid::Uuid;

    use super::{super::Share, *};

    fn id(number: u128) -> TenantId {
        TenantId(Uuid::from_u128(number))
    }

    fn member(number: u128, status: Status, price: (&str, u64)) -> (Charge, Option<Price>) {
        let charge = Charge {
            tenant: id(number),
            organization_name: format!("Tenant {number}"),
            plan: "team".to_owned(),
            status,
            plan_minor: 0,
            api_calls: 1_500,
            usage_minor: 0,
        };
        let price = Price {
            currency: price.0.parse().expect("a code"),
            monthly_minor: price.1,
            per_1000_api_calls_minor: 0,
        };
        (charge, Some(price))
    }

    fn october() -> Period {
        "2026-10".parse().expect("a month")
    }

    fn thirds() -> Shares {
        let share = |(number, points): (u128, u32)| Share {
            tenant: id(number),
            basis_points: points.try_into().expect("in range"),
        };
        let shares = [(1, 4_000), (2, 3_500), (3, 2_500)].map(share);
        Shares::new(shares.to_vec()).expect("a whole")
    }

    #[test]
    fn the_guides_family_shares_its_bill_to_the_cent() {
        let members = vec![
            member(0, Status::Active, ("USD", 5_001)),
            member(1, Status::PastDue, ("USD", 5_000)),
            member(2, Status::Trial, ("USD", 9_999)),
            member(3, Status::Suspended, ("EUR", 9_999)),
        ];
        let invoice = Invoice::of(id(0), october(), members, Some(&thirds())).expect("an invoice");
        assert_eq!(invoice.total_minor, 10_001);
        assert_eq!(invoice.currency.decimal(invoice.total_minor), "100.01");
        let amounts: Vec<_> = invoice.lines.iter().map(|line| line.amount_minor).collect();
        assert_eq!(amounts, [4_001, 3_500, 2_500]);
        assert_eq!(invoice.lines[0].organization_name, "Tenant 1");
        assert_eq!(invoice.line_of(id(0)), None, "the parent holds no share");
        assert_eq!(invoice.charges[2].total_minor(), 0, "a trial is free");
    }

    #[test]
    fn without_shares_the_payer_bears_everything() {
        let members = vec![member(7, Status::Active, ("EUR", 4_900))];
        let invoice = Invoice::of(id(7), october(), members, None).expect("an invoice");
        assert_eq!(invoice.lines.len(), 1);
        let line = invoice.line_of(id(7)).expect("its line");
        assert_eq!((line.amount_minor, line.basis_points), (4_900, BasisPoints::WHOLE));
        assert_eq!(invoice.currency.as_str(), "EUR");
    }

    #[test]
    fn amounts_of_two_currencies_are_not_summed() {
        let members =
            vec![member(0, Status::Active, ("USD", 1)), member(1, Status::Active, ("EUR", 1))];
        let refused = Invoice::of(id(0), october(), members, None).expect_err("two currencies");
        assert!(refused.to_string().ends_with("EUR, USD"));
        let free =
            vec![member(0, Status::Active, ("USD", 1)), member(1, Status::Active, ("EUR", 0))];
        assert!(Invoice::of(id(0), october(), free, None).is_ok(), "nothing is owed in EUR");
    }

    #[test]
    fn a_stored_invoice_is_read_back_as_it_was() {
        let members = vec![member(1, Status::Active, ("USD", 4_900))];
        let invoice = Invoice::of(id(0), october(), members, Some(&thirds())).expect("an invoice");
        let stored = serde_json::to_string(&invoice).expect("JSON");
        assert_eq!(serde_json::from_str::<Invoice>(&stored).expect("an invoice"), invoice);
    }

    proptest! {
        #[test]
        fn charges_and_lines_sum_to_the_total(
            monthly in vec(0_u64..1_000_000_000, 0..20), shared in any::<bool>(),
        ) {
            let members =
                (0..).zip(monthly).map(|(n, minor)| member(n, Status::Active, ("USD", minor)));
            let shares = thirds();
            let shares = shared.then_some(&shares);
            let invoice = Invoice::of(id(0), october(), members.collect(), shares);
            let invoice = invoice.expect("one currency");
            let charged: u64 = invoice.charges.iter().map(Charge::total_minor).sum();
            let borne: u64 = invoice.lines.iter().map(|line| line.amount_minor).sum();
            prop_assert_eq!((charged, borne), (invoice.total_minor, invoice.total_minor));
        }
    }
}
