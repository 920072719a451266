//! The control API: one endpoint a file, JSON in and out, problem+json for refusals.
//!
//! [`endpoints`] is the one list: the router, the authorization and the OpenAPI document
//! come from it. `/api/v1` is canonical; `/v1`, the product guide's other spelling, reaches
//! the same handlers.
//!
//! Invariant: every endpoint under `/api/v1` names the right that it asks for; health and
//! metrics are open, because the listener is on loopback by default, and so is the
//! document. Every mutation leaves one entry in an audit chain, in its own transaction.

mod alerts;
mod audit;
mod billing;
mod body;
mod caller;
mod capabilities;
mod endpoint;
mod fields;
mod health;
mod hierarchy;
mod keys;
mod once;
mod openapi;
mod overrides;
mod page;
mod partitions;
mod path;
mod plan_changes;
mod plans;
mod plugins;
mod policies;
mod pools;
mod problem;
mod quotas;
mod rules;
mod tags;
mod tenants;
mod tokens;
mod usage;

use std::{fmt, ops::Deref, sync::Arc};

use axum::{
    Json, Router,
    extract::DefaultBodyLimit,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
    routing::get,
};
use model::{
    access::Right,
    catalog::{Catalog, ReloadStatus},
    clock::Clock,
    gate::UsageSource,
    plugin::Inspector,
    sessions::Sessions,
};
use serde::Serialize;
use tokio::sync::{Semaphore, watch};

use crate::{
    jobs::TrialEnd,
    notify::NotifyConfig,
    store::{AdminToken, Store},
};
use endpoint::Endpoint;
pub use health::Readiness;
use openapi::OpenApi;
use problem::ApiError;

/// What the API works on.
#[derive(Clone)]
pub struct Deps {
    /// Tenants, keys and secrets.
    pub store: Arc<Store>,
    /// Where consumption is read from.
    pub usage: Arc<dyn UsageSource>,
    /// Where live sessions are counted.
    pub sessions: Arc<dyn Sessions>,
    /// What tenants may be given.
    pub catalog: watch::Receiver<Arc<Catalog>>,
    /// How the declarations were loaded.
    pub reload: watch::Receiver<Arc<ReloadStatus>>,
    /// Whether the edge serves.
    pub ready: watch::Receiver<Readiness>,
    /// Makes the text of `/metrics`.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Verifies the operator's token.
    pub admin_token: AdminToken,
    /// The domain whose direct subdomains are slugs; no custom domain may lie in it.
    pub base_domain: Box<str>,
    /// Residency group of a root tenant that names none; `None` requires one.
    pub default_residency: Option<String>,
    /// What becomes of a tenant at the end of its trial.
    pub trial_end: TrialEnd,
    /// Where notices may go.
    pub notify: NotifyConfig,
    /// Looks at plugins before they count.
    pub plugins: Arc<dyn Inspector>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl fmt::Debug for Deps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deps").field("base_domain", &self.base_domain).finish_non_exhaustive()
    }
}

/// The handlers' state.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    deps: Arc<Deps>,
    openapi: OpenApi,
    health: health::tenant::Recent,
    /// Turns to look a token up.
    lookups: Arc<Semaphore>,
    /// Turns to upload a plugin.
    uploads: Arc<Semaphore>,
}

impl Deref for Api {
    type Target = Deps;

    fn deref(&self) -> &Deps {
        &self.deps
    }
}

/// Every endpoint below `/api/v1` and `/v1`.
fn endpoints() -> Vec<Endpoint> {
    let mut endpoints = listed();
    endpoints.extend(plugins::endpoints());
    endpoints
}

/// Those that are written out one by one.
fn listed() -> Vec<Endpoint> {
    const IF_MATCH: (&str, &str) = ("If-Match", "Only this version (ETag) is changed.");
    vec![
        Endpoint::get("/openapi.json", openapi::read)
            .open()
            .summary("This document")
            .answers::<serde_json::Value>(200),
        // Tenants.
        Endpoint::get("/admin/tenants", tenants::list::list)
            .right(Right::TenantList)
            .summary("Tenants in the order of their creation")
            .query::<tenants::list::ListQuery>()
            .answers::<tenants::list::Page<'_>>(200),
        Endpoint::post("/admin/tenants", tenants::create::create)
            .right(Right::TenantCreate)
            .summary("Create a tenant in its trial")
            .body::<tenants::create::NewTenantBody>()
            .answers::<tenants::view::TenantView<'_>>(201),
        Endpoint::get("/admin/tenants/{tenant_id}", tenants::read::read)
            .right(Right::TenantRead)
            .summary("A tenant")
            .answers::<tenants::view::TenantView<'_>>(200),
        Endpoint::patch("/admin/tenants/{tenant_id}", tenants::patch::patch)
            .right(Right::TenantPlan)
            .summary("Change a tenant")
            .header(IF_MATCH.0, IF_MATCH.1)
            .merge_patch::<tenants::patch::TenantPatchBody>()
            .answers::<tenants::view::TenantView<'_>>(200),
        Endpoint::post("/admin/tenants/{tenant_id}/suspend", tenants::status::suspend)
            .right(Right::TenantStatus)
            .summary("Suspend a tenant and those below it")
            .optional_body::<tenants::status::Suspension>()
            .answers::<tenants::view::TenantView<'_>>(200),
        Endpoint::post("/admin/tenants/{tenant_id}/resume", tenants::status::resume)
            .right(Right::TenantStatus)
            .summary("End a suspension")
            .optional_body::<tenants::status::Resumption>()
            .answers::<tenants::view::TenantView<'_>>(200),
        // Data-plane keys.
        Endpoint::get("/admin/tenants/{tenant_id}/keys", keys::list)
            .right(Right::KeysRead)
            .summary("Data-plane keys of a tenant")
            .query::<page::PageQuery>()
            .answers::<keys::List>(200),
        Endpoint::post("/admin/tenants/{tenant_id}/keys", keys::issue)
            .right(Right::KeysManage)
            .summary("Issue a data-plane key")
            .optional_body::<keys::NewKeyBody>()
            .answers::<keys::Issued<'_>>(201),
        Endpoint::delete("/admin/tenants/{tenant_id}/keys/{key_id}", keys::revoke)
            .right(Right::KeysManage)
            .summary("Revoke a data-plane key")
            .answers_empty(204),
        // Tokens of this API.
        Endpoint::get("/tenants/{tenant_id}/tokens", tokens::list)
            .right(Right::TokensRead)
            .summary("Tokens of a tenant")
            .query::<page::PageQuery>()
            .answers::<tokens::TokenList>(200),
        Endpoint::post("/tenants/{tenant_id}/tokens", tokens::issue)
            .right(Right::TokensManage)
            .summary("Issue a token of a tenant")
            .body::<tokens::NewTokenBody>()
            .answers::<tokens::IssuedTokenView>(201),
        Endpoint::post("/tenants/{tenant_id}/tokens/{token_id}/rotate", tokens::rotate)
            .right(Right::TokensManage)
            .summary("Replace a token; the old one lives on for a while")
            .optional_body::<tokens::Rotation>()
            .answers::<tokens::IssuedTokenView>(201),
        Endpoint::delete("/tenants/{tenant_id}/tokens/{token_id}", tokens::revoke)
            .right(Right::TokensManage)
            .summary("Revoke a token of a tenant")
            .answers_empty(204),
        Endpoint::get("/admin/tokens", tokens::list_platform)
            .right(Right::PlatformRead)
            .summary("The operator's tokens")
            .query::<page::PageQuery>()
            .answers::<tokens::TokenList>(200),
        Endpoint::post("/admin/tokens", tokens::issue_platform)
            .right(Right::PlatformManage)
            .summary("Issue an operator's token")
            .body::<tokens::NewTokenBody>()
            .answers::<tokens::IssuedTokenView>(201),
        Endpoint::post("/admin/tokens/{token_id}/rotate", tokens::rotate_platform)
            .right(Right::PlatformManage)
            .summary("Replace an operator's token")
            .optional_body::<tokens::Rotation>()
            .answers::<tokens::IssuedTokenView>(201),
        Endpoint::delete("/admin/tokens/{token_id}", tokens::revoke_platform)
            .right(Right::PlatformManage)
            .summary("Revoke an operator's token")
            .answers_empty(204),
        // Usage.
        Endpoint::get("/tenants/{tenant_id}/usage", usage::read)
            .right(Right::UsageRead)
            .summary("Usage and quotas of a tenant")
            .answers::<usage::Usage>(200),
        Endpoint::get("/tenants/{tenant_id}/usage/trends", usage::trends::read)
            .right(Right::UsageRead)
            .summary("Usage by hour or day")
            .query::<usage::trends::TrendsQuery>()
            .header("If-None-Match", "304 when the trends are still those of this ETag.")
            .answers::<usage::trends::Trends>(200)
            .answers_empty(304),
        Endpoint::put("/tenants/{tenant_id}/usage/levels", usage::levels::put)
            .right(Right::UsageReport)
            .summary("Report users, projects and storage as counted")
            .body::<usage::levels::LevelsBody>()
            .answers::<usage::levels::Levels>(200),
        Endpoint::post("/tenants/{tenant_id}/usage/claims", usage::claims::take)
            .right(Right::UsageReport)
            .summary("Claim users, projects or storage under the quota, or give back")
            .body::<usage::claims::ClaimBody>()
            .answers::<usage::claims::ClaimView>(201),
        Endpoint::get("/tenants/{tenant_id}/usage/reservations", usage::reservations::list)
            .right(Right::UsageRead)
            .summary("Room set aside for requests under way, or of unknown outcome")
            .query::<page::PageQuery>()
            .answers::<usage::reservations::List>(200),
        Endpoint::post(
            "/tenants/{tenant_id}/usage/reservations/{reservation_id}",
            usage::reservations::resolve,
        )
        .right(Right::UsageReport)
        .summary("Say what became of a request of unknown outcome")
        .body::<usage::reservations::Resolution>()
        .answers_empty(204),
        // Pools.
        Endpoint::get("/tenants/{tenant_id}/pools", pools::get)
            .right(Right::PoolsRead)
            .summary("What a tenant shares with its children")
            .answers::<pools::Pools>(200),
        Endpoint::put("/tenants/{tenant_id}/pools", pools::put)
            .right(Right::PoolsManage)
            .summary("Set what a tenant shares with its children")
            .header(IF_MATCH.0, IF_MATCH.1)
            .body::<pools::PoolsBody>()
            .answers::<pools::Pools>(200),
        // Alerts.
        Endpoint::get("/tenants/{tenant_id}/alerts", alerts::read)
            .right(Right::AlertsRead)
            .summary("What a tenant wants to be told")
            .answers::<alerts::AlertsView>(200),
        Endpoint::put("/tenants/{tenant_id}/alerts", alerts::put)
            .right(Right::AlertsManage)
            .summary("Say what a tenant wants to be told, as a whole")
            .header(IF_MATCH.0, IF_MATCH.1)
            .body::<alerts::AlertsBody>()
            .answers::<alerts::AlertsView>(200),
        Endpoint::post("/tenants/{tenant_id}/alerts/webhook-secret", alerts::rotate_secret)
            .right(Right::AlertsManage)
            .summary("Make a new secret for webhooks; the one before signs for another day")
            .optional_body::<alerts::WebhookSecretRotation>()
            .answers::<alerts::NewWebhookSecret>(201),
        Endpoint::get("/tenants/{tenant_id}/alerts/events", alerts::list)
            .right(Right::AlertsRead)
            .summary("What happened to a tenant and how telling it goes, newest first")
            .query::<alerts::EventsQuery>()
            .answers::<alerts::EventsView>(200),
        // Audit.
        Endpoint::get("/tenants/{tenant_id}/audit", audit::of_tenant)
            .right(Right::AuditRead)
            .summary("The audit chain of a tenant")
            .query::<audit::AuditQuery>()
            .answers::<audit::AuditPage>(200),
        Endpoint::get("/admin/audit", audit::of_platform)
            .right(Right::PlatformRead)
            .summary("The audit chain of the platform")
            .query::<audit::AuditQuery>()
            .answers::<audit::AuditPage>(200),
        Endpoint::get("/tenants/{tenant_id}/audit/heads", audit::heads::of_tenant)
            .right(Right::AuditRead)
            .summary("The signed heads of a tenant's audit chain, the latest first")
            .query::<page::PageQuery>()
            .answers::<audit::heads::HeadPage>(200),
        Endpoint::get("/admin/audit/heads", audit::heads::of_all)
            .right(Right::PlatformRead)
            .summary("The latest signed head of every audit chain")
            .query::<page::PageQuery>()
            .answers::<audit::heads::HeadPage>(200),
        Endpoint::get("/audit/key", audit::heads::key)
            .open()
            .summary("The public key that heads of audit chains are signed with")
            .answers::<audit::heads::KeyView<'_>>(200),
        // Plans and dates of a tenant.
        Endpoint::get("/admin/tenants/{tenant_id}/overrides", overrides::read)
            .right(Right::TenantRead)
            .summary("Quotas of a tenant with dates")
            .answers::<overrides::OverridesView<'_>>(200),
        Endpoint::put("/admin/tenants/{tenant_id}/overrides", overrides::replace)
            .right(Right::TenantChange)
            .summary("Replace the quotas of a tenant with dates")
            .header(IF_MATCH.0, IF_MATCH.1)
            .body::<overrides::OverridesBody>()
            .answers::<overrides::OverridesView<'_>>(200),
        Endpoint::get("/admin/tenants/{tenant_id}/plan-changes", plan_changes::list)
            .right(Right::TenantRead)
            .summary("Changes of a tenant's plan at a later time")
            .query::<page::PageQuery>()
            .answers::<plan_changes::PlanChangesView>(200),
        Endpoint::post("/admin/tenants/{tenant_id}/plan-changes", plan_changes::schedule)
            .right(Right::TenantPlan)
            .summary("Have a tenant's plan change at a time")
            .body::<plan_changes::NewPlanChangeBody>()
            .answers::<plan_changes::PlanChangeView>(201),
        Endpoint::delete(
            "/admin/tenants/{tenant_id}/plan-changes/{change_id}",
            plan_changes::cancel,
        )
        .right(Right::TenantPlan)
        .summary("Cancel a change of plan")
        .answers_empty(204),
        Endpoint::get("/admin/plans", plans::list)
            .right(Right::PlatformRead)
            .summary("The plans in force")
            .query::<page::PageQuery>()
            .answers::<plans::PlansView<'_>>(200),
        Endpoint::get("/admin/plans/{plan}/versions", plans::versions)
            .right(Right::PlatformRead)
            .summary("Contents of a plan, the newest first")
            .query::<plans::VersionsQuery>()
            .answers::<plans::VersionsView>(200),
        // Health of a tenant.
        Endpoint::get("/tenants/{tenant_id}/health", health::tenant::read)
            .right(Right::HealthRead)
            .summary("Health of a tenant: as its worst check")
            .answers::<health::tenant::TenantHealth>(200),
        health_as_the_guide_spells_it(),
        // Families and what they are billed.
        Endpoint::get("/tenants/{tenant_id}/hierarchy", hierarchy::read)
            .right(Right::TenantRead)
            .summary("A tenant's ancestors and subtree")
            .answers::<hierarchy::Hierarchy>(200),
        Endpoint::get("/tenants/{tenant_id}/children", hierarchy::children)
            .right(Right::TenantRead)
            .summary("The children of a tenant")
            .query::<hierarchy::ChildrenQuery>()
            .answers::<hierarchy::Children>(200),
        Endpoint::get("/tenants/{tenant_id}/billing", billing::settings::show)
            .right(Right::BillingRead)
            .summary("How the bills of a tenant and its subtree are made out")
            .answers::<billing::settings::Billing>(200),
        Endpoint::put("/tenants/{tenant_id}/billing", billing::settings::put)
            .right(Right::BillingManage)
            .summary("Consolidate the bills of a tenant and its subtree")
            .header(IF_MATCH.0, IF_MATCH.1)
            .body::<billing::settings::BillingBody>()
            .answers::<billing::settings::Billing>(200),
        Endpoint::get("/tenants/{tenant_id}/billing/invoices", billing::invoices::show)
            .right(Right::BillingRead)
            .summary("The invoice of a month")
            .query::<billing::invoices::InvoiceQuery>()
            .answers::<billing::invoices::InvoiceView>(200)
            .answers_text(200, "text/csv"),
        Endpoint::post("/tenants/{tenant_id}/billing/invoices", billing::invoices::issue)
            .right(Right::InvoicesIssue)
            .summary("Issue the invoice of a month that is over")
            .body::<billing::invoices::IssueBody>()
            .answers::<billing::invoices::InvoiceView>(201)
            .answers::<billing::invoices::InvoiceView>(200),
        // Partitions.
        Endpoint::get("/admin/partitions", partitions::read)
            .right(Right::PlatformRead)
            .summary("The parts of the tenants' data, with sizes and moves")
            .answers::<partitions::Tree>(200),
        Endpoint::post("/admin/partitions/split", partitions::split)
            .right(Right::PlatformManage)
            .summary("Split a part in two while it is in use")
            .body::<partitions::SplitBody>()
            .answers::<partitions::MoveView>(202),
        Endpoint::post("/admin/partitions/isolate", partitions::isolate)
            .right(Right::PlatformManage)
            .summary("Give a huge tenant a part of its own")
            .body::<partitions::IsolateBody>()
            .answers::<partitions::MoveView>(202),
        Endpoint::post("/admin/partitions/run", partitions::run)
            .right(Right::PlatformManage)
            .summary("Make months, end retention, split what is too large, now")
            .answers::<partitions::Run>(200)
            .answers::<partitions::Run>(202),
        // The installation.
        Endpoint::get("/admin/capabilities", capabilities::read)
            .right(Right::PlatformRead)
            .summary("What this database can do, and what is missing")
            .answers::<capabilities::Capabilities>(200),
        Endpoint::get("/admin/quotas/audit", quotas::audit)
            .right(Right::PlatformRead)
            .summary("Add up every quota account; an empty list is the proof")
            .answers::<quotas::QuotaAudit>(200),
        Endpoint::get("/admin/policies", policies::read)
            .right(Right::PlatformRead)
            .summary("What is declared and in force")
            .answers::<serde_json::Value>(200),
    ]
}

/// The product guide's path, which stands beside `/api/v1` too.
fn health_as_the_guide_spells_it() -> Endpoint {
    Endpoint::get("/health/tenant/{tenant_id}", health::tenant::read)
        .right(Right::HealthRead)
        .summary("Health of a tenant, in the product guide's spelling")
        .answers::<health::tenant::TenantHealth>(200)
}

/// All endpoints of the control listener.
pub fn router(deps: Deps) -> Router {
    let endpoints = endpoints();
    let api = Api {
        deps: Arc::new(deps),
        openapi: OpenApi::of(&endpoints),
        health: health::tenant::Recent::default(),
        lookups: Arc::new(Semaphore::new(caller::LOOKUPS_MAX)),
        uploads: Arc::new(Semaphore::new(plugins::UPLOADS_MAX)),
    };
    let health = health_as_the_guide_spells_it();
    let routes = endpoints
        .iter()
        .fold(Router::new(), |routes, endpoint| routes.route(endpoint.path, endpoint.route(&api)));
    Router::new()
        .nest("/api/v1", routes.clone())
        .nest("/v1", routes)
        .route(health.path, health.route(&api))
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .fallback(async || ApiError::NoSuchPath)
        .method_not_allowed_fallback(async || ApiError::NoSuchMethod)
        .layer(DefaultBodyLimit::max(body::BODY_BYTES_MAX))
        .with_state(api)
}

/// A JSON answer that no cache may keep.
fn json(body: impl Serialize) -> Response {
    let no_store = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (no_store, Json(body)).into_response()
}

#[cfg(test)]
mod tests;
