//! `GET /admin/plans` and `/admin/plans/{plan}/versions`: what is offered, and what it was
//! before.
//!
//! Plans are declared in `policies/plans.toml`; nothing here changes one.

use std::{collections::BTreeMap, sync::Arc};

use axum::{extract::State, http::Uri, response::Response};
use model::{
    billing::Price,
    catalog::Catalog,
    loss::OnAuthorityLoss,
    plan::{ChargeOn, Plan},
    quota::Quotas,
    rate::Rate,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::{
    Api,
    fields::{Fields, query},
    json,
    page::Asked,
    path::PlanPath,
    problem::ApiError,
    rules,
};
use crate::store::PlanVersion;

/// Versions of a page unless asked otherwise.
const LIMIT_DEFAULT: u32 = 50;
/// Versions of the longest page: each is a kilobyte or two of JSON.
const LIMIT_MAX: u32 = 200;

/// Which versions to list.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "documents the parameters that `page` reads")]
pub(super) struct VersionsQuery {
    /// 1 to 200.
    limit: Option<u32>,
    /// A `next_cursor` of the page before.
    cursor: Option<String>,
}

/// The plans in force, by name.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Plans")]
pub(super) struct PlansView<'a> {
    items: Vec<PlanView<'a>>,
    /// `null` on the last page.
    next_cursor: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Plan")]
struct PlanView<'a> {
    name: &'a str,
    /// Of the content in force; `null` until it is recorded.
    version: Option<u64>,
    quotas: Quotas,
    /// Quotas in place of these during a trial.
    trial_quotas: &'a BTreeMap<String, u64>,
    /// An absent feature is false.
    features: &'a BTreeMap<String, bool>,
    /// Whether refusals offer it as an upgrade.
    offered: bool,
    /// Which outcomes of a forwarded request keep their token.
    charge_on: ChargeOn,
    /// What happens to a request when nobody can say whether its quota holds one more.
    on_authority_loss: OnAuthorityLoss,
    /// Requests a second and at once; `null` is no such limit.
    rate: Option<Rate>,
    /// In minor units; `null` is free.
    price: Option<&'a Price>,
}

/// Contents of one plan, the newest first.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "PlanVersions")]
pub(super) struct VersionsView {
    items: Vec<VersionView>,
    next_cursor: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "PlanVersion")]
struct VersionView {
    version: u64,
    /// Whether it is the one in force.
    current: bool,
    first_seen_at: String,
    /// SHA-256 of the content, hexadecimal.
    digest: String,
    /// The plan as it was declared.
    plan: Value,
}

pub(super) async fn list(State(api): State<Api>, uri: Uri) -> Result<Response, ApiError> {
    let asked = Asked::read(&uri)?;
    let catalog = Arc::clone(&api.catalog.borrow());
    let page = asked.cut(catalog.plans.values().collect(), |plan| plan.name.clone());
    let page = page.map(|plan| shown(plan, &catalog));
    Ok(json(PlansView { items: page.items, next_cursor: page.next_cursor }))
}

fn shown<'a>(plan: &'a Plan, catalog: &Catalog) -> PlanView<'a> {
    PlanView {
        name: &plan.name,
        version: catalog.plan_versions.get(&plan.name).copied(),
        quotas: plan.quotas,
        trial_quotas: &plan.trial_quotas,
        features: &plan.features,
        offered: plan.offered,
        charge_on: plan.charge_on,
        on_authority_loss: plan.on_authority_loss,
        rate: plan.rate,
        price: plan.price.as_ref(),
    }
}

pub(super) async fn versions(
    State(api): State<Api>,
    PlanPath(plan): PlanPath,
    uri: Uri,
) -> Result<Response, ApiError> {
    let (before, limit) = page(&uri)?;
    let mut found = api.store.plan_versions(&plan, before, limit + 1).await?;
    let catalog = Arc::clone(&api.catalog.borrow());
    if found.is_empty() && before.is_none() && !catalog.plans.contains_key(&plan) {
        return Err(ApiError::NotFound);
    }
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next_cursor = found.last().filter(|_| more).map(|last| last.version.to_string());
    let current = catalog.plan_versions.get(&plan).copied();
    let items = found.into_iter().map(|version| seen(version, current)).collect();
    Ok(json(VersionsView { items, next_cursor }))
}

fn seen(version: PlanVersion, current: Option<u64>) -> VersionView {
    VersionView {
        version: version.version,
        current: current == Some(version.version),
        first_seen_at: version.first_seen_at.rfc3339(),
        digest: version.digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        plan: serde_json::from_str(&version.body).unwrap_or_default(),
    }
}

/// The version that the page lies below, and its length.
fn page(uri: &Uri) -> Result<(Option<u64>, u32), ApiError> {
    let mut fields = Fields::new(query(uri)?);
    let before = fields.optional("cursor", |value| {
        let version = rules::text(value)?.parse().ok();
        version.ok_or_else(|| "must be a next_cursor given here".to_owned())
    });
    let limit = fields.optional("limit", |value| rules::number(value, 1, u64::from(LIMIT_MAX)));
    fields.finish()?;
    let limit = limit.and_then(|limit| u32::try_from(limit).ok());
    Ok((before, limit.unwrap_or(LIMIT_DEFAULT)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::{catalog::Catalog, plan::ChargeOn};
    use serde_json::json;

    use crate::testing::{Backend, Control, acme, on_both};

    /// Changes what `team` allots, and has it recorded.
    async fn change(control: &Control, users: u64) {
        let mut changed = Catalog::clone(&control.catalog.borrow());
        Arc::make_mut(changed.plans.get_mut("team").expect("a plan")).quotas.max_users = users;
        changed.plan_versions = control.store.record_plans(&changed.plans).await.expect("recorded");
        control.catalog.send_replace(Arc::new(changed));
    }

    on_both![
        plans_show_the_version_in_force,
        versions_are_listed_page_by_page,
        every_bad_parameter_is_named,
        a_trial_has_the_quotas_of_a_trial_and_overrides_go_over_them,
        plans_show_what_is_charged_their_rate_and_their_rules_for_a_lost_authority,
    ];

    async fn plans_show_what_is_charged_their_rate_and_their_rules_for_a_lost_authority(
        on: Backend,
    ) {
        let control = Control::start(on).await;
        let shown = |plans: &serde_json::Value| {
            let plan = &plans["items"][1];
            (plan["charge_on"].clone(), plan["rate"].clone(), plan["on_authority_loss"].clone())
        };
        let plans = control.get("/api/v1/admin/plans").await.json;
        let denied = json!({"api_calls": "deny", "ai_requests": "deny", "storage": "deny"});
        assert_eq!(shown(&plans), (json!("answered"), json!(null), denied));
        let rate = json!({"per_second": 50, "burst": 100});
        let rules = json!({
            "api_calls": {"overdraft": 7}, "ai_requests": "deny", "storage": "allow",
        });
        let mut changed = Catalog::clone(&control.catalog.borrow());
        let plan = Arc::make_mut(changed.plans.get_mut("enterprise").expect("a plan"));
        plan.charge_on = ChargeOn::Admission;
        plan.rate = serde_json::from_value(rate.clone()).expect("a rate");
        plan.on_authority_loss = serde_json::from_value(rules.clone()).expect("rules");
        changed.plan_versions = control.store.record_plans(&changed.plans).await.expect("recorded");
        control.catalog.send_replace(Arc::new(changed));
        let plans = control.get("/api/v1/admin/plans").await.json;
        assert_eq!(shown(&plans), (json!("admission"), rate.clone(), rules.clone()));
        let versions = control.get("/api/v1/admin/plans/enterprise/versions").await.json;
        let newest = &versions["items"][0]["plan"];
        assert_eq!((&newest["rate"], &newest["on_authority_loss"]), (&rate, &rules));
    }

    async fn a_trial_has_the_quotas_of_a_trial_and_overrides_go_over_them(on: Backend) {
        let control = Control::start(on).await;
        let mut changed = Catalog::clone(&control.catalog.borrow());
        let plan = Arc::make_mut(changed.plans.get_mut("enterprise").expect("a plan"));
        plan.trial_quotas = [("max_users".to_owned(), 3), ("max_projects".to_owned(), 4)].into();
        control.catalog.send_replace(Arc::new(changed));
        let quotas = |tenant: &serde_json::Value| {
            let quotas = &tenant["quotas"];
            (quotas["max_users"].as_u64(), quotas["max_projects"].as_u64())
        };
        let tenant = control.create(&acme()).await;
        assert_eq!(quotas(&tenant), (Some(3), Some(4)));
        let patch = json!({"quota_overrides": {"max_projects": 5}});
        let tenant = control.patch(&tenant, &patch).await.json;
        assert_eq!(quotas(&tenant), (Some(3), Some(5)));
        let tenant = control.patch(&tenant, &json!({"status": "active"})).await.json;
        assert_eq!(quotas(&tenant), (Some(999_999), Some(5)));
        let shown = control.get("/api/v1/admin/plans").await.json;
        assert_eq!(shown["items"][1]["trial_quotas"], json!({"max_users": 3, "max_projects": 4}));
    }

    async fn plans_show_the_version_in_force(on: Backend) {
        let control = Control::start(on).await;
        change(&control, 11).await;
        change(&control, 12).await;
        let plans = control.get("/api/v1/admin/plans").await;
        assert_eq!(plans.status, 200, "{}", plans.text);
        let names: Vec<_> = plans.json["items"].as_array().expect("plans").iter().collect();
        assert_eq!(names.len(), 3);
        assert_eq!(names[2]["name"], "team");
        assert_eq!(names[2]["version"], 2);
        assert_eq!(names[2]["quotas"]["max_users"], 12);
        let mut tenant = acme();
        tenant["plan"] = "team".into();
        assert_eq!(control.create(&tenant).await["plan_version"], 2);
    }

    async fn versions_are_listed_page_by_page(on: Backend) {
        let control = Control::start(on).await;
        for users in [11, 12, 13, 11] {
            change(&control, users).await;
        }
        let path = "/api/v1/admin/plans/team/versions";
        let first = control.get(&format!("{path}?limit=2")).await.json;
        let shown = |page: &serde_json::Value| {
            let items = page["items"].as_array().expect("items").iter();
            let of = |item: &serde_json::Value| {
                let users = &item["plan"]["quotas"]["max_users"];
                (item["version"].as_u64(), users.as_u64(), item["current"] == json!(true))
            };
            items.map(of).collect::<Vec<_>>()
        };
        assert_eq!(shown(&first), [(Some(3), Some(13), false), (Some(2), Some(12), false)]);
        assert_eq!(first["items"][0]["first_seen_at"], "2024-01-01T00:00:00Z");
        assert_eq!(first["items"][0]["digest"].as_str().expect("text").len(), 64);
        let cursor = first["next_cursor"].as_str().expect("a cursor");
        let last = control.get(&format!("{path}?limit=2&cursor={cursor}")).await.json;
        assert_eq!(shown(&last), [(Some(1), Some(11), true)]);
        assert_eq!(last["next_cursor"], json!(null));
        assert_eq!(control.get("/api/v1/admin/plans/platinum/versions").await.status, 404);
    }

    async fn every_bad_parameter_is_named(on: Backend) {
        let control = Control::start(on).await;
        let path = "/api/v1/admin/plans/team/versions?limit=0&cursor=x&colour=red";
        assert_eq!(control.get(path).await.bad_fields(), ["cursor", "limit", "colour"]);
    }
}
