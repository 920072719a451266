//! `GET` and `POST /tenants/{tenant_id}/billing/invoices`: a month's invoice, as a draft or
//! as it was issued, in JSON or CSV.
//!
//! Invariant: a tenant that another one pays for sees its own line and nothing else of the
//! family's bill.

use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use model::{
    billing::{Charge, Currency, InvoiceLine, Period, PeriodError},
    tenant::{Status, TenantId},
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Number, Value};

use super::{csv, percent};
use crate::{
    api::{
        Api,
        body::Document,
        caller::Caller,
        fields::{Fields, Ruled, query},
        json,
        path::TenantPath,
        problem::{ApiError, Conflict},
        rules,
    },
    store::{Bill, InvoiceError},
};

/// Which invoice, and how.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "documents the query that `show` reads")]
pub(in crate::api) struct InvoiceQuery {
    /// A calendar month in UTC, `2026-10`; the current one unless given.
    #[schemars(regex(pattern = "^[0-9]{4}-[0-9]{2}$"))]
    period: Option<String>,
    /// `json` or `csv`; as the Accept field prefers unless given.
    format: Option<String>,
}

/// The month to issue.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documents the shape that `issue` reads")]
pub(in crate::api) struct IssueBody {
    /// A calendar month in UTC that is over, `2026-10`.
    #[schemars(regex(pattern = "^[0-9]{4}-[0-9]{2}$"))]
    period: String,
}

/// An invoice, or what it would be now.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Invoice")]
pub(in crate::api) struct InvoiceView {
    #[schemars(with = "uuid::Uuid")]
    pub(super) tenant_id: TenantId,
    pub(super) period: String,
    period_start: String,
    /// First instant after the month.
    period_end: String,
    /// `draft` until it is issued, then `issued` for good.
    #[schemars(extend("enum" = ["draft", "issued"]))]
    pub(super) status: &'static str,
    /// Consecutive over the installation.
    pub(super) invoice_number: Option<String>,
    issued_at: Option<String>,
    /// Who pays: an ancestor where that one consolidates. Then only the tenant's own line is
    /// shown, and no charges.
    #[schemars(with = "uuid::Uuid")]
    pub(super) billed_to: TenantId,
    pub(super) currency: String,
    /// The sum of the lines, and of the charges.
    total_minor: u64,
    /// The same for people: `100.01`.
    total: String,
    pub(super) line_items: Vec<LineView>,
    charges: Vec<ChargeView>,
}

/// What one tenant bears.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "InvoiceLine")]
pub(super) struct LineView {
    #[schemars(with = "uuid::Uuid")]
    pub(super) tenant_id: TenantId,
    pub(super) organization_name: String,
    #[schemars(with = "f64")]
    pub(super) cost_allocation_percentage: Number,
    amount_minor: u64,
    pub(super) amount: String,
}

/// What one tenant is charged.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "InvoiceCharge")]
struct ChargeView {
    #[schemars(with = "uuid::Uuid")]
    tenant_id: TenantId,
    organization_name: String,
    /// At the end of the month.
    plan: String,
    /// At the end of the month; only `active` and `past_due` are charged.
    status: Status,
    plan_minor: u64,
    /// Charged API calls; 0 where the plan has no price for them.
    api_calls: u64,
    usage_minor: u64,
    amount_minor: u64,
    amount: String,
}

impl LineView {
    fn new(line: InvoiceLine, currency: &Currency) -> Self {
        Self {
            tenant_id: line.tenant,
            organization_name: line.organization_name,
            cost_allocation_percentage: percent(line.basis_points),
            amount_minor: line.amount_minor,
            amount: currency.decimal(line.amount_minor),
        }
    }
}

impl ChargeView {
    fn new(charge: Charge, currency: &Currency) -> Self {
        let amount_minor = charge.total_minor();
        Self {
            tenant_id: charge.tenant,
            organization_name: charge.organization_name,
            plan: charge.plan,
            status: charge.status,
            plan_minor: charge.plan_minor,
            api_calls: charge.api_calls,
            usage_minor: charge.usage_minor,
            amount_minor,
            amount: currency.decimal(amount_minor),
        }
    }
}

impl InvoiceView {
    /// The bill as `tenant` may see it.
    fn new(tenant: TenantId, bill: Bill) -> Self {
        let Bill { mut invoice, issued } = bill;
        if invoice.payer != tenant {
            invoice.charges.clear();
            invoice.lines.retain(|line| line.tenant == tenant);
            invoice.total_minor = invoice.lines.iter().map(|line| line.amount_minor).sum();
        }
        let currency = invoice.currency;
        let lines = invoice.lines.into_iter().map(|line| LineView::new(line, &currency));
        let charges = invoice.charges.into_iter().map(|charge| ChargeView::new(charge, &currency));
        let window = invoice.period.window();
        Self {
            tenant_id: tenant,
            period: invoice.period.to_string(),
            period_start: window.start.rfc3339(),
            period_end: window.end.rfc3339(),
            status: if issued.is_some() { "issued" } else { "draft" },
            invoice_number: issued.map(|issued| format!("INV-{:08}", issued.number)),
            issued_at: issued.map(|issued| issued.at.rfc3339()),
            billed_to: invoice.payer,
            total_minor: invoice.total_minor,
            total: currency.decimal(invoice.total_minor),
            line_items: lines.collect(),
            charges: charges.collect(),
            currency: currency.into(),
        }
    }
}

pub(in crate::api) async fn show(
    State(api): State<Api>,
    TenantPath(tenant): TenantPath,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    if !api.store.knows(tenant) {
        return Err(ApiError::NotFound);
    }
    let mut fields = Fields::new(query(&uri)?);
    let asked = fields.optional("period", period);
    let as_csv = fields.optional("format", |value| match rules::text(value)? {
        "csv" => Ok(true),
        "json" => Ok(false),
        _ => Err("must be one of: json, csv".to_owned()),
    });
    fields.finish()?;
    let period = asked.unwrap_or_else(|| Period::of(api.clock.now()));
    let catalog = std::sync::Arc::clone(&api.catalog.borrow());
    let view = InvoiceView::new(tenant, api.store.bill(tenant, period, &catalog).await?);
    if as_csv.unwrap_or_else(|| csv::is_preferred(&headers)) {
        return Ok(csv::answer(&view));
    }
    Ok(json(view))
}

pub(in crate::api) async fn issue(
    caller: Caller,
    State(api): State<Api>,
    TenantPath(tenant): TenantPath,
    document: Document,
) -> Result<Response, ApiError> {
    if !api.store.knows(tenant) {
        return Err(ApiError::NotFound);
    }
    let mut fields = Fields::new(document.members);
    let asked = fields.required("period", period);
    let Some(period) = asked else { return Err(fields.refuse()) };
    fields.finish()?;
    let catalog = std::sync::Arc::clone(&api.catalog.borrow());
    let (bill, now) = api.store.issue_invoice(caller.actor(), tenant, period, catalog).await?;
    let answer = json(InvoiceView::new(tenant, bill));
    if !now {
        return Ok(answer);
    }
    Ok((StatusCode::CREATED, location(tenant, period), answer).into_response())
}

fn location(tenant: TenantId, period: Period) -> [(HeaderName, HeaderValue); 1] {
    let path = format!("/api/v1/tenants/{tenant}/billing/invoices?period={period}");
    let path = HeaderValue::try_from(path);
    [(header::LOCATION, path.unwrap_or_else(|_| HeaderValue::from_static("/api/v1")))]
}

fn period(value: &Value) -> Ruled<Period> {
    rules::text(value)?.parse().map_err(|error: PeriodError| error.to_string())
}

impl From<InvoiceError> for ApiError {
    fn from(error: InvoiceError) -> Self {
        let conflict = |code, title, detail| Self::Conflict(Conflict { code, title, detail });
        match error {
            InvoiceError::NotThere | InvoiceError::NotBegun => {
                Self::field("period", error.to_string())
            }
            InvoiceError::Open { .. } => {
                conflict("period-open", "The month is not over", error.to_string())
            }
            InvoiceError::BilledTo(_) => {
                conflict("billed-to-parent", "Another tenant pays", error.to_string())
            }
            InvoiceError::Unpriced { .. } => {
                // It may be another tenant's plan: the operator finds it in the log.
                tracing::warn!(%error, "an invoice cannot be computed");
                let detail = "A plan of the family is no longer declared, so its price is not \
                    known; declare it again, or move its tenants to another plan.";
                conflict("plan-undeclared", "A plan has no price", detail.to_owned())
            }
            InvoiceError::Currencies(_) => {
                conflict("mixed-currencies", "Several currencies", error.to_string())
            }
            InvoiceError::Usage(error) => {
                tracing::warn!(%error, "an invoice waits for usage figures");
                Self::UsageUnavailable
            }
            InvoiceError::Store(error) => Self::Store(error),
        }
    }
}
