//! `GET /admin/plans` and `/admin/plans/{plan}/versions`: what is offered, and what it was
//! before.
//!
//! Plans are declared in `policies/plans.toml`; nothing here changes one.

use std::{collections::BTreeMap, sync::Arc};

use axum::{extract::State, http::Uri, response::Response};
use model::{billing::Price, catalog::Catalog, plan::Plan, quota::Quotas};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::{
    Api,
    fields::{Fields, query},
    json,
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
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Plan")]
struct PlanView<'a> {
    name: &'a str,
    /// Of the content in force; `null` until it is recorded.
    version: Option<u64>,
    quotas: Quotas,
    /// An absent feature is false.
    features: &'a BTreeMap<String, bool>,
    /// Whether refusals offer it as an upgrade.
    offered: bool,
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

pub(super) async fn list(State(api): State<Api>) -> Response {
    let catalog = Arc::clone(&api.catalog.borrow());
    json(PlansView { items: catalog.plans.values().map(|plan| shown(plan, &catalog)).collect() })
}

fn shown<'a>(plan: &'a Plan, catalog: &Catalog) -> PlanView<'a> {
    PlanView {
        name: &plan.name,
        version: catalog.plan_versions.get(&plan.name).copied(),
        quotas: plan.quotas,
        features: &plan.features,
        offered: plan.offered,
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

    use model::catalog::Catalog;
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
    ];

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
