//! Invoices: computed for a month, and once issued kept as they are.
//!
//! Invariant: a payer has one invoice a month, and numbers are consecutive: a number is
//! taken in the transaction that stores its invoice.

use std::{collections::BTreeMap, sync::Arc};

use model::{
    billing::{Charge, Invoice, MixedCurrencies, Period, is_billed},
    catalog::Catalog,
    clock::UnixMs,
    ledger::{Authority, AuthorityError, WindowKey},
    quota::Metric,
    tenant::TenantId,
    window::Window,
};

use super::facts::{self, Billed, Payer};
use crate::store::{
    Store, StoreError,
    audit::{self, Act, Actor},
    change::detached,
    db::{ControlTx, Purpose, locking, sql},
    rows,
};

/// The invoice of whoever pays for a tenant; a draft until it is issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bill {
    /// The invoice; its payer may be an ancestor of the tenant that was asked about.
    pub invoice: Invoice,
    /// Set once it is issued.
    pub issued: Option<Issued>,
}

/// The place of an invoice among all issued ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Issued {
    /// Consecutive over the installation, from 1.
    pub number: u64,
    /// When.
    pub at: UnixMs,
}

/// Why there is no invoice.
#[derive(Debug, thiserror::Error)]
pub enum InvoiceError {
    /// There was no such tenant in that month.
    #[error("there was no such tenant in that month")]
    NotThere,
    /// The month has not begun.
    #[error("the month has not begun")]
    NotBegun,
    /// The month is not over, so its invoice cannot be issued.
    #[error("the month ends at {}", end.rfc3339())]
    Open {
        /// When it is over.
        end: UnixMs,
    },
    /// Another tenant pays.
    #[error("the tenant {0} is billed for it")]
    BilledTo(TenantId),
    /// A plan is no longer declared, so nobody knows its price.
    #[error("the plan {plan:?} of tenant {tenant} is not declared")]
    Unpriced {
        /// Whose plan.
        tenant: TenantId,
        /// Its name.
        plan: String,
    },
    /// The prices have several currencies.
    #[error(transparent)]
    Currencies(#[from] MixedCurrencies),
    /// The usage is not known at the moment.
    #[error(transparent)]
    Usage(#[from] AuthorityError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What there is of a bill before it is priced.
enum Found {
    Stored(Bill),
    Facts(Payer, Vec<Billed>),
}

impl Store {
    /// The bill of a month for a tenant: as it was issued, or as it would be now.
    ///
    /// # Errors
    /// As [`InvoiceError`] says.
    pub async fn bill(
        &self,
        tenant: TenantId,
        period: Period,
        catalog: &Catalog,
    ) -> Result<Bill, InvoiceError> {
        if !period.has_begun(self.clock.now()) {
            return Err(InvoiceError::NotBegun);
        }
        let mut tx = self.db.control(Purpose::Read).await?;
        let found = find(&mut tx, tenant, period).await;
        match tx.end(found).await?.ok_or(InvoiceError::NotThere)? {
            Found::Stored(bill) => Ok(bill),
            Found::Facts(payer, billed) => {
                let invoice = self.priced(payer, billed, period, catalog).await?;
                Ok(Bill { invoice, issued: None })
            }
        }
    }

    /// Issues the invoice of a month that is over, or finds it issued. The second part tells
    /// whether it was issued just now.
    ///
    /// # Errors
    /// As [`InvoiceError`] says.
    pub async fn issue_invoice(
        self: &Arc<Self>,
        by: &Actor,
        tenant: TenantId,
        period: Period,
        catalog: Arc<Catalog>,
    ) -> Result<(Bill, bool), InvoiceError> {
        let bill = self.bill(tenant, period, &catalog).await?;
        if bill.invoice.payer != tenant {
            return Err(InvoiceError::BilledTo(bill.invoice.payer));
        }
        if bill.issued.is_some() {
            return Ok((bill, false));
        }
        let now = self.clock.now();
        if !period.is_closed(now) {
            return Err(InvoiceError::Open { end: period.window().end });
        }
        let store = Arc::clone(self);
        let act = Act::new(by, "invoice.issue", period.to_string());
        detached(async move {
            let mut tx = store.db.control(Purpose::Write).await?;
            let issued = issue(&mut tx, act, bill.invoice, now).await;
            tx.end(issued).await
        })
        .await
    }

    async fn priced(
        &self,
        payer: Payer,
        billed: Vec<Billed>,
        period: Period,
        catalog: &Catalog,
    ) -> Result<Invoice, InvoiceError> {
        let mut members = Vec::with_capacity(billed.len());
        for member in billed {
            let plan = catalog.plans.get(&member.plan);
            if plan.is_none() && is_billed(member.status) {
                return Err(InvoiceError::Unpriced { tenant: member.id, plan: member.plan });
            }
            members.push((member, plan.and_then(|plan| plan.price.clone())));
        }
        let metered = members.iter().filter(|(member, price)| {
            let per_call = price.as_ref().is_some_and(|price| price.per_1000_api_calls_minor > 0);
            per_call && is_billed(member.status)
        });
        let calls = self.calls(metered.map(|(member, _)| member.id), period).await?;
        let charges = members.into_iter().map(|(member, price)| {
            let charge = Charge {
                tenant: member.id,
                organization_name: member.organization_name,
                plan: member.plan,
                status: member.status,
                plan_minor: 0,
                api_calls: calls.get(&member.id).copied().unwrap_or(0),
                usage_minor: 0,
            };
            (charge, price)
        });
        let shares = payer.consolidation.and_then(|settings| settings.shares);
        Ok(Invoice::of(payer.id, period, charges.collect(), shares.as_ref())?)
    }

    /// API calls that were charged against the quotas in the windows that ended in a month,
    /// by the ledger, which keeps its windows for 400 days. Of calendar windows that is the
    /// month itself; whatever the anchor, each window is in one month's invoice.
    async fn calls(
        &self,
        tenants: impl Iterator<Item = TenantId>,
        period: Period,
    ) -> Result<BTreeMap<TenantId, u64>, InvoiceError> {
        let tenants: Vec<_> = tenants.collect();
        if tenants.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut tx = self.db.control(Purpose::Read).await?;
        let keys = ended_in(&mut tx, &tenants, period).await;
        let keys = tx.end(keys).await?;
        let accounts = self.accounts(keys.clone()).await?;
        let mut calls = BTreeMap::new();
        for (key, account) in keys.into_iter().zip(accounts) {
            *calls.entry(key.tenant).or_default() += account.map_or(0, |account| account.charged);
        }
        Ok(calls)
    }
}

/// The windows of API calls that ended in a month, or will.
async fn ended_in(
    tx: &mut ControlTx,
    tenants: &[TenantId],
    period: Period,
) -> Result<Vec<WindowKey>, StoreError> {
    let (metric, mut keys) = (Metric::ApiCalls, Vec::new());
    for tenant in tenants {
        let windows: Vec<(i64, i64)> = sql("SELECT start_ms, end_ms FROM quota_window
             WHERE tenant_id = $1 AND metric = $2 AND end_ms > $3 AND end_ms <= $4")
        .bind(tenant.0)
        .bind(metric.as_str())
        .bind(rows::stored(period.window().start))
        .bind(rows::stored(period.window().end))
        .all(tx)
        .await?;
        keys.extend(windows.into_iter().map(|(start, end)| {
            let window = Window { start: rows::instant(start), end: rows::instant(end) };
            WindowKey { tenant: *tenant, metric, window }
        }));
    }
    Ok(keys)
}

async fn find(
    tx: &mut ControlTx,
    tenant: TenantId,
    period: Period,
) -> Result<Option<Found>, StoreError> {
    let Some(payer) = facts::payer(tx, tenant, period).await? else { return Ok(None) };
    if let Some(bill) = stored(tx, payer.id, period).await? {
        return Ok(Some(Found::Stored(bill)));
    }
    let billed = facts::billed(tx, &payer, period).await?;
    Ok(Some(Found::Facts(payer, billed)))
}

async fn stored(
    tx: &mut ControlTx,
    payer: TenantId,
    period: Period,
) -> Result<Option<Bill>, StoreError> {
    let row: Option<(i64, i64, String)> = sql("SELECT number, issued_at, document FROM invoice
         WHERE tenant_id = $1 AND period = $2")
    .bind(payer.0)
    .bind(period.to_string())
    .optional(tx)
    .await?;
    let bill = |(number, at, document): (i64, i64, String)| {
        let number = u64::try_from(number).unwrap_or(0);
        let issued = Some(Issued { number, at: rows::instant(at) });
        Ok(Bill { invoice: rows::object(&document)?, issued })
    };
    row.map(bill).transpose()
}

async fn issue(
    tx: &mut ControlTx,
    mut act: Act,
    invoice: Invoice,
    now: UnixMs,
) -> Result<(Bill, bool), InvoiceError> {
    // Whoever holds the row issues; others wait and find what was issued.
    let (last,): (i64,) = locking!("SELECT last_number FROM invoice_head").one(tx).await?;
    if let Some(before) = stored(tx, invoice.payer, invoice.period).await? {
        return Ok((before, false));
    }
    let number = last + 1;
    sql("UPDATE invoice_head SET last_number = $1").bind(number).execute(tx).await?;
    sql("INSERT INTO invoice (tenant_id, period, number, issued_at, document)
         VALUES ($1, $2, $3, $4, $5)")
    .bind(invoice.payer.0)
    .bind(invoice.period.to_string())
    .bind(number)
    .bind(rows::stored(now))
    .bind(rows::json(&invoice)?)
    .execute(tx)
    .await?;
    act.describe(None, Some(&invoice));
    audit::append(tx, invoice.payer, &act, now).await?;
    let issued = Some(Issued { number: u64::try_from(number).unwrap_or(0), at: now });
    Ok((Bill { invoice, issued }, true))
}
