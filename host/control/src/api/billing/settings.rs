//! `GET` and `PUT /tenants/{tenant_id}/billing`: the product guide's `billing_consolidation`
//! document, with the instant from which it holds.
//!
//! Invariant: what is stored is a whole: percentages that sum to 100, tenants of the
//! subtree, each named once. All that is wrong is named at once.

use axum::{
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use model::{
    billing::{BasisPoints, Consolidation, Share, Shares, SharesError},
    clock::UnixMs,
    tenant::TenantId,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Number, Value};

use super::percent;
use crate::{
    api::{
        Api,
        body::Document,
        caller::Caller,
        fields::{Fields, Ruled},
        json,
        path::TenantPath,
        problem::ApiError,
        rules,
        tags::{content_tag, expected_tag},
    },
    store::{BillingError, BillingSettings, Settings},
};

/// Shares of one consolidation: more than any organisation chart has legal entities.
const SHARES_MAX: usize = 1_000;
const DOCUMENT: &str = "billing_consolidation";

/// Billing settings and when they come into force.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documents the shape that `read` reads")]
pub(in crate::api) struct BillingBody {
    billing_consolidation: ConsolidationBody,
    /// RFC 3339, not in the past; now unless given. A month is billed by what holds at its
    /// end.
    effective_from: Option<String>,
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "NewBillingConsolidation")]
#[expect(dead_code, reason = "documents the shape that `consolidation` reads")]
struct ConsolidationBody {
    /// The tenant of the path, if given.
    parent_tenant_id: Option<uuid::Uuid>,
    /// Tenants of the subtree, which the parent belongs to; required for consolidated
    /// invoicing. Their percentages sum to exactly 100.
    #[schemars(length(max = 1000))]
    child_tenants: Option<Vec<ShareBody>>,
    /// One invoice to the parent for its whole subtree, instead of one a tenant.
    consolidated_invoicing: bool,
    /// Kept and shown; pools have settings of their own. False unless given.
    shared_quotas: Option<bool>,
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "NewCostShare")]
#[expect(dead_code, reason = "documents the shape that `share` reads")]
struct ShareBody {
    tenant_id: uuid::Uuid,
    /// At most two decimals.
    #[schemars(range(min = 0.01, max = 100.0))]
    cost_allocation_percentage: f64,
}

/// Billing settings over time.
#[derive(Serialize, JsonSchema)]
pub(in crate::api) struct Billing {
    /// In force; `null` means that every tenant gets its own invoice.
    billing_consolidation: Option<ConsolidationView>,
    /// Since when.
    effective_from: Option<String>,
    /// Not yet in force, the next one first.
    upcoming: Vec<Dated>,
    /// No longer in force, the latest first.
    past: Vec<Dated>,
}

/// Settings with the instant from which they hold.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "DatedBillingConsolidation")]
struct Dated {
    effective_from: String,
    billing_consolidation: ConsolidationView,
}

/// How the bills of a parent and its subtree are made out.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "BillingConsolidation")]
struct ConsolidationView {
    #[schemars(with = "uuid::Uuid")]
    parent_tenant_id: TenantId,
    child_tenants: Vec<ShareView>,
    consolidated_invoicing: bool,
    shared_quotas: bool,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CostShare")]
struct ShareView {
    #[schemars(with = "uuid::Uuid")]
    tenant_id: TenantId,
    #[schemars(with = "f64")]
    cost_allocation_percentage: Number,
}

impl Billing {
    fn new(tenant: TenantId, settings: BillingSettings) -> Self {
        let dated = |settings: Settings| Dated {
            effective_from: settings.effective_from.rfc3339(),
            billing_consolidation: ConsolidationView::new(tenant, settings.consolidation),
        };
        let (billing_consolidation, effective_from) = match settings.current.map(dated) {
            Some(current) => (Some(current.billing_consolidation), Some(current.effective_from)),
            None => (None, None),
        };
        Self {
            billing_consolidation,
            effective_from,
            upcoming: settings.upcoming.into_iter().map(dated).collect(),
            past: settings.past.into_iter().map(dated).collect(),
        }
    }
}

impl ConsolidationView {
    fn new(parent: TenantId, consolidation: Consolidation) -> Self {
        let view = |share: Share| ShareView {
            tenant_id: share.tenant,
            cost_allocation_percentage: percent(share.basis_points),
        };
        Self {
            parent_tenant_id: parent,
            child_tenants: consolidation.shares.iter().flat_map(Shares::iter).map(view).collect(),
            consolidated_invoicing: consolidation.consolidated_invoicing,
            shared_quotas: consolidation.shared_quotas,
        }
    }
}

pub(in crate::api) async fn show(
    State(api): State<Api>,
    TenantPath(tenant): TenantPath,
) -> Result<Response, ApiError> {
    if !api.store.knows(tenant) {
        return Err(ApiError::NotFound);
    }
    Ok(answer(tenant, api.store.billing(tenant).await?))
}

fn answer(tenant: TenantId, settings: BillingSettings) -> Response {
    let tag = content_tag(&settings.tag());
    (tag, json(Billing::new(tenant, settings))).into_response()
}

pub(in crate::api) async fn put(
    caller: Caller,
    State(api): State<Api>,
    TenantPath(tenant): TenantPath,
    headers: HeaderMap,
    document: Document,
) -> Result<Response, ApiError> {
    let if_tag = expected_tag(&headers)?;
    if !api.store.knows(tenant) {
        return Err(ApiError::NotFound);
    }
    let (consolidation, from) = read(&api, tenant, document)?;
    let set = api.store.set_billing(caller.actor(), tenant, consolidation, from, if_tag).await?;
    Ok(answer(tenant, set))
}

fn read(
    api: &Api,
    tenant: TenantId,
    document: Document,
) -> Result<(Consolidation, Option<UnixMs>), ApiError> {
    let mut fields = Fields::new(document.members);
    let effective_from = fields.optional("effective_from", rules::instant);
    let inner = fields.required(DOCUMENT, object);
    let consolidation = inner.and_then(|inner| {
        let mut inner = Fields::new(inner);
        let read = consolidation(api, tenant, &mut inner);
        fields.absorb(DOCUMENT, inner);
        read
    });
    let Some(consolidation) = consolidation else { return Err(fields.refuse()) };
    fields.finish()?;
    Ok((consolidation, effective_from))
}

/// `None` means that a fault is remembered.
fn consolidation(api: &Api, tenant: TenantId, fields: &mut Fields) -> Option<Consolidation> {
    fields.optional("parent_tenant_id", |value| match rules::tenant_id(value)? {
        parent if parent == tenant => Ok(()),
        _ => Err("must be the tenant of the path".to_owned()),
    });
    let consolidated_invoicing = fields.required("consolidated_invoicing", boolean);
    let shared_quotas = fields.optional("shared_quotas", boolean).unwrap_or(false);
    let shares = shares(api, tenant, fields);
    if consolidated_invoicing == Some(true) && matches!(shares, Some(None)) {
        fields.reject("child_tenants", "is required for consolidated invoicing");
        return None;
    }
    Some(Consolidation {
        shares: shares?,
        consolidated_invoicing: consolidated_invoicing?,
        shared_quotas,
    })
}

/// The shares, if there are any; the outer `None` means that a fault is remembered.
fn shares(api: &Api, parent: TenantId, fields: &mut Fields) -> Option<Option<Shares>> {
    let items = fields.optional("child_tenants", |value| match value.as_array() {
        Some(items) if items.len() <= SHARES_MAX => Ok(items.clone()),
        _ => Err(format!("must be a list of at most {SHARES_MAX} shares")),
    });
    let items = items.unwrap_or_default();
    if items.is_empty() {
        return Some(None);
    }
    let count = items.len();
    let mut shares = Vec::with_capacity(count);
    for (at, item) in items.into_iter().enumerate() {
        let Value::Object(item) = item else {
            fields.reject(format!("child_tenants[{at}]"), "must be an object");
            continue;
        };
        let mut inner = Fields::new(item);
        shares.extend(share(api, parent, &mut inner));
        fields.absorb(&format!("child_tenants[{at}]"), inner);
    }
    if shares.len() < count {
        return None;
    }
    match Shares::new(shares) {
        Ok(shares) => Some(Some(shares)),
        Err(error @ (SharesError::Sum { .. } | SharesError::Twice(_))) => {
            fields.reject("child_tenants", error.to_string());
            None
        }
    }
}

fn share(api: &Api, parent: TenantId, fields: &mut Fields) -> Option<Share> {
    let tenant = fields.required("tenant_id", |value| {
        let tenant = rules::tenant_id(value)?;
        if api.store.is_in_subtree(parent, tenant) {
            return Ok(tenant);
        }
        Err("is not in the subtree of the tenant of the path".to_owned())
    });
    let basis_points = fields.required("cost_allocation_percentage", |value| match value {
        // The shortest text of a number is what the client wrote: two decimals stay two.
        Value::Number(number) => {
            BasisPoints::from_percent(&number.to_string()).map_err(|error| error.to_string())
        }
        _ => Err("must be a number".to_owned()),
    });
    Some(Share { tenant: tenant?, basis_points: basis_points? })
}

fn object(value: &Value) -> Ruled<Map<String, Value>> {
    value.as_object().cloned().ok_or_else(|| "must be an object".to_owned())
}

fn boolean(value: &Value) -> Ruled<bool> {
    value.as_bool().ok_or_else(|| "must be true or false".to_owned())
}

impl From<BillingError> for ApiError {
    fn from(error: BillingError) -> Self {
        match error {
            BillingError::NotFound => Self::NotFound,
            BillingError::TagMismatch => Self::VersionMismatch,
            BillingError::Outside(_) => {
                Self::field(format!("{DOCUMENT}.child_tenants"), error.to_string())
            }
            BillingError::Past { .. } => Self::field("effective_from", error.to_string()),
            BillingError::Store(error) => Self::Store(error),
        }
    }
}
