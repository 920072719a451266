//! `PATCH /admin/tenants/{id}`: a JSON merge patch, all of it or nothing, in force at the
//! edge when it is answered.
//!
//! Invariant: what cannot be done here is refused by name, never ignored. A read-only
//! member is accepted with the value it has, so that an answer can be edited and sent
//! back.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    extract::State,
    http::{HeaderMap, header},
    response::Response,
};
use model::{
    access::Right,
    anchor::Anchor,
    catalog::Catalog,
    tenant::{Status, SuspendReason, TenantId},
};
use schemars::JsonSchema;
use serde_json::Value;

use super::view::{TenantView, answer};
use crate::{
    api::{
        Api,
        body::Document,
        caller::Caller,
        fields::Fields,
        path::TenantPath,
        problem::{ApiError, Capability},
        rules,
    },
    store::{StatusChange, StoredTenant, TenantPatch},
};

/// Members that no patch changes.
const READ_ONLY: [&str; 11] = [
    "features",
    "id",
    "slug",
    "quotas",
    "quota_anchor_since",
    "plan_version",
    "created_at",
    "trial_ends_at",
    "grace_ends_at",
    "effective_status",
    "version",
];
const PARENT: &str = "parent_tenant_id";
/// Hosts of one tenant beside its slug: each costs an entry in every snapshot.
const DOMAINS_MAX: usize = 32;

const ONLINE_MOVE: Capability = Capability {
    name: "online_move",
    detail: "A tenant cannot be moved to another residency group, nor to another region of its \
             own: its data would stay behind where it is. Nothing was changed.",
    alternatives: &["create a tenant in the other group or region and move its clients to it"],
};

/// What of a tenant is changed; an absent member stays as it is.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "documents the shape that `read` reads")]
pub(in crate::api) struct TenantPatchBody {
    organization_name: Option<String>,
    display_name: Option<String>,
    admin_email: Option<String>,
    plan: Option<String>,
    data_residency: Option<String>,
    home_region: Option<String>,
    gdpr_settings: Option<super::gdpr::GdprBody>,
    /// Moves the tenant with its subtree; `null` makes it a root. A request of its own.
    parent_tenant_id: Option<uuid::Uuid>,
    status: Option<Status>,
    suspend_reason: Option<SuspendReason>,
    /// All exact hosts beside the slug's.
    custom_domains: Option<Vec<String>>,
    /// Merged by name; `null` removes one.
    quota_overrides: Option<BTreeMap<String, Option<u64>>>,
    /// Day of the month on which the month's quotas begin anew, from the end of the present
    /// month on; 29 to 31 are the last day of a shorter month.
    #[schemars(range(min = 1, max = 31))]
    quota_anchor_day: Option<u8>,
    attributes: Option<BTreeMap<String, Option<String>>>,
    /// Write-only.
    secrets: Option<BTreeMap<String, Option<String>>>,
}

pub(in crate::api) async fn patch(
    caller: Caller,
    State(api): State<Api>,
    TenantPath(id): TenantPath,
    headers: HeaderMap,
    document: Document,
) -> Result<Response, ApiError> {
    let rights = caller.rights_on(&api, id).ok_or(ApiError::NotFound)?;
    if !rights.contains(Right::TenantChange) {
        plan_only(&document)?;
    }
    let held = api.store.tenant(id).await?.ok_or(ApiError::NotFound)?;
    let expected = expected_version(&headers)?;
    let catalog = Arc::clone(&api.catalog.borrow());
    let stored = match read(&caller, document, &held, &catalog, &api)? {
        Asked::Patch(patch) => api.store.patch_tenant(caller.actor(), id, *patch, expected).await?,
        Asked::Move(_) if !rights.contains(Right::TenantMove) => {
            return Err(ApiError::Forbidden(Right::TenantMove));
        }
        Asked::Move(parent) => {
            let tenant = api.store.move_tenant(caller.actor(), id, parent, expected).await?;
            StoredTenant { tenant, secret_names: held.secret_names }
        }
    };
    Ok(answer(&stored, &catalog, &api.store))
}

/// What a patch asks for.
enum Asked {
    Patch(Box<TenantPatch>),
    /// Another parent; `None` makes a root.
    Move(Option<TenantId>),
}

/// A parent changes the plans of those below it, and nothing else of them.
fn plan_only(document: &Document) -> Result<(), ApiError> {
    match document.members.keys().all(|name| name == "plan") {
        true => Ok(()),
        false => Err(ApiError::Forbidden(Right::TenantChange)),
    }
}

fn read(
    caller: &Caller,
    document: Document,
    held: &StoredTenant,
    catalog: &Catalog,
    api: &Api,
) -> Result<Asked, ApiError> {
    let shown = TenantView::of(held, catalog, &api.store);
    let shown = serde_json::to_value(shown).unwrap_or_default();
    let mut fields = Fields::new(document.members);
    let place = place(&mut fields, held, &shown);
    refuse_read_only(&mut fields, &shown);
    let moves = moves(&mut fields, held, &shown, catalog);
    let patch = TenantPatch {
        organization_name: fields.changed("organization_name", rules::name),
        display_name: fields.changed("display_name", rules::name),
        admin_email: fields.changed("admin_email", rules::email),
        plan: fields.changed("plan", |value| rules::plan(value, catalog, !caller.is_operator())),
        status: status(&mut fields, held),
        custom_domains: fields
            .items("custom_domains", DOMAINS_MAX, |value| rules::domain(value, &api.base_domain)),
        quota_overrides: fields.members("quota_overrides", rules::quota),
        quota_anchor_day: fields.changed("quota_anchor_day", rules::anchor).map(Anchor::day),
        gdpr: super::gdpr::read(&mut fields),
        attributes: fields.members("attributes", rules::attribute),
        secrets: fields.members("secrets", rules::secret),
    };
    fields.finish()?;
    if moves {
        return Err(ApiError::NeedsRelease(ONLINE_MOVE));
    }
    Ok(place.map_or_else(|| Asked::Patch(Box::new(patch)), Asked::Move))
}

/// Whether another residency group, or another home in it, is asked for.
fn moves(fields: &mut Fields, held: &StoredTenant, shown: &Value, catalog: &Catalog) -> bool {
    const HOME: &str = "home_region";
    let held = &held.tenant.data_residency;
    let to = fields.changed("data_residency", |value| rules::residency(value, catalog));
    let group = to.as_ref().unwrap_or(held);
    let home = fields.take(HOME).filter(|home| shown.get(HOME) != Some(home));
    if let Some(home) = &home
        && let Err(detail) =
            rules::region(home, catalog.groups.get(group).map_or(&[], Vec::as_slice))
    {
        fields.reject(HOME, detail);
    }
    group != held || home.is_some()
}

/// Another place in the family, if one is asked for. Whose child a tenant is concerns other
/// tenants, so it changes in a transaction of its own, without anything else.
fn place(fields: &mut Fields, held: &StoredTenant, shown: &Value) -> Option<Option<TenantId>> {
    let parent = match fields.has(PARENT) {
        true => Some(fields.optional(PARENT, rules::tenant_id)?),
        false => fields.take(PARENT).map(|_| None)?,
    };
    if parent == held.tenant.parent {
        return None;
    }
    if fields.rest().any(|(name, value)| shown.get(name) != Some(value)) {
        fields.reject(PARENT, "a move is a request of its own: send it without other changes");
        return None;
    }
    Some(parent)
}

fn refuse_read_only(fields: &mut Fields, shown: &Value) {
    for name in READ_ONLY {
        if fields.take(name).is_some_and(|value| shown.get(name) != Some(&value)) {
            fields.reject(
                name,
                match name {
                    "quotas" => "cannot be changed; set quota_overrides",
                    _ => "cannot be changed",
                },
            );
        }
    }
    let names = fields.take("secrets");
    match names {
        Some(value @ Value::Array(_)) if shown.get("secrets") == Some(&value) => {}
        Some(value) => fields.put_back("secrets", value),
        None => {}
    }
}

fn status(fields: &mut Fields, held: &StoredTenant) -> Option<StatusChange> {
    let status = fields.changed("status", rules::status);
    let reason = fields.optional("suspend_reason", rules::suspend_reason);
    if reason.is_some() && status.unwrap_or(held.tenant.status) != Status::Suspended {
        fields.reject("suspend_reason", "goes with the status suspended only");
        return None;
    }
    match (status, reason) {
        (Some(status), reason) => Some(StatusChange::To(status, reason)),
        (None, Some(_)) => Some(StatusChange::To(Status::Suspended, reason)),
        (None, None) => None,
    }
}

/// The version that `If-Match` asks for. A tag that was never given out matches nothing.
pub(in crate::api) fn expected_version(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(field) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let tag = field.to_str().unwrap_or_default().trim();
    if tag == "*" {
        return Ok(None);
    }
    let version = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')?.parse().ok());
    version.map(Some).ok_or(ApiError::VersionMismatch)
}

#[cfg(test)]
mod tests {
    use model::quota::Metric;
    use serde_json::{Value, json};

    use crate::testing::{Backend, Control, acme, id_of, on_both, path_of, tenant};

    on_both![
        a_patch_changes_what_it_names_and_nothing_else,
        members_merge_and_null_removes_them,
        secrets_reach_the_directory_but_no_answer,
        a_patch_with_one_bad_field_changes_nothing_and_names_them_all,
        an_answer_can_be_edited_and_sent_back,
        moving_to_another_residency_group_is_refused_as_a_whole,
        a_domain_belongs_to_one_tenant_until_it_is_given_up,
        if_match_protects_a_version,
        a_tenant_of_an_undeclared_plan_is_shown_without_quotas,
        every_patch_is_in_the_directory_when_it_is_answered,
    ];

    async fn a_patch_changes_what_it_names_and_nothing_else(on: Backend) {
        let control = Control::start(on).await;
        let before = control.create(&acme()).await;
        let answer = control
            .patch(
                &before,
                &json!({
                    "plan": "team",
                    "admin_email": "ops@acme-corp.com",
                    "custom_domains": ["WWW.Acme.example", "a.acme.example"],
                    "quota_overrides": {"max_users": 12},
                    "attributes": {"tier": "gold"},
                }),
            )
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let mut expected = before.clone();
        expected["plan"] = "team".into();
        expected["admin_email"] = "ops@acme-corp.com".into();
        expected["custom_domains"] = json!(["a.acme.example", "www.acme.example"]);
        expected["quota_overrides"] = json!({"max_users": 12});
        expected["attributes"] = json!({"tier": "gold"});
        expected["quotas"] = json!({
            "max_users": 12,
            "max_projects": 50,
            "max_api_calls_per_month": 100000,
            "max_storage_mb": 10240,
            "max_ai_requests_per_day": 1000,
            "max_concurrent_sessions": 10
        });
        expected["version"] = 2.into();
        assert_eq!(answer.json, expected);
        assert_eq!(control.get(&path_of(&before)).await.json, expected);
        let directory = control.store.directory().borrow().clone();
        let published = &directory.record(id_of(&before)).expect("a tenant").tenant;
        assert_eq!(published.plan, "team");
        let plan = &control.deps.catalog.borrow().plans["team"].quotas;
        assert_eq!(published.effective_quotas(plan).of(Metric::Users), 12);
    }

    async fn members_merge_and_null_removes_them(on: Backend) {
        let control = Control::start(on).await;
        let tenant = control.create(&acme()).await;
        control.patch(&tenant, &json!({"attributes": {"a": "1", "b": "2"}})).await;
        let merged = control.patch(&tenant, &json!({"attributes": {"a": null, "c": "3"}})).await;
        assert_eq!(merged.json["attributes"], json!({"b": "2", "c": "3"}));
        let cleared = control.patch(&tenant, &json!({"attributes": null})).await;
        assert_eq!(cleared.json["attributes"], json!({}));
    }

    async fn secrets_reach_the_directory_but_no_answer(on: Backend) {
        let control = Control::start(on).await;
        let tenant = control.create(&acme()).await;
        let patch = json!({"secrets": {"signing": "s3cr3t-value", "other": "x"}});
        let answer = control.patch(&tenant, &patch).await;
        assert_eq!(answer.json["secrets"], json!(["other", "signing"]));
        for text in [answer.text, control.get(&path_of(&tenant)).await.text] {
            assert!(!text.contains("s3cr3t-value"), "{text}");
        }
        let published = control.store.published(id_of(&tenant)).expect("a tenant");
        assert_eq!(published.secrets["signing"].expose(), "s3cr3t-value");
        control.patch(&tenant, &json!({"secrets": {"signing": null}})).await;
        let published = control.store.published(id_of(&tenant)).expect("a tenant");
        assert_eq!(published.secrets.keys().collect::<Vec<_>>(), ["other"]);
    }

    async fn a_patch_with_one_bad_field_changes_nothing_and_names_them_all(on: Backend) {
        let control = Control::start(on).await;
        let before = control.create(&acme()).await;
        let answer = control
            .patch(
                &before,
                &json!({
                    "slug": "other",
                    "display_name": "Fine",
                    "plan": null,
                    "custom_domains": ["ok.example", "bad domain", "evil.localhost", "a.example:80"],
                    "quota_overrides": {"max_cats": 1, "max_users": -1},
                    "attributes": {"sp ace": "x"},
                    "suspend_reason": "abuse",
                    "colour": "red",
                }),
            )
            .await;
        let mut named = answer.bad_fields();
        named.sort_unstable();
        assert_eq!(
            named,
            [
                "attributes.sp ace",
                "colour",
                "custom_domains[1]",
                "custom_domains[2]",
                "custom_domains[3]",
                "plan",
                "quota_overrides.max_cats",
                "quota_overrides.max_users",
                "slug",
                "suspend_reason",
            ]
        );
        assert_eq!(control.get(&path_of(&before)).await.json, before);
    }

    async fn an_answer_can_be_edited_and_sent_back(on: Backend) {
        let control = Control::start(on).await;
        let mut tenant = control.create(&acme()).await;
        control.patch(&tenant, &json!({"secrets": {"s": "x"}})).await;
        tenant = control.get(&path_of(&tenant)).await.json;
        tenant["display_name"] = "New".into();
        let answer = control.patch(&tenant, &tenant).await;
        assert_eq!((answer.status, &answer.json["display_name"]), (200, &"New".into()));
        assert_eq!(answer.json["secrets"], json!(["s"]));
    }

    async fn moving_to_another_residency_group_is_refused_as_a_whole(on: Backend) {
        let control = Control::start(on).await;
        let before = control.create(&acme()).await;
        let patch = json!({"data_residency": "uk", "display_name": "New"});
        let answer = control.patch(&before, &patch).await;
        assert_eq!((answer.status, &answer.json["needs"]), (501, &"release".into()));
        assert_eq!(answer.json["code"], "needs-release");
        assert_eq!(answer.json["capability"], "online_move");
        assert!(answer.json["alternatives"].as_array().is_some_and(|list| !list.is_empty()));
        assert_eq!(control.get(&path_of(&before)).await.json, before);
        assert_eq!(control.patch(&before, &json!({"data_residency": "us"})).await.status, 200);
        let unknown = control.patch(&before, &json!({"data_residency": "mars"})).await;
        assert_eq!(unknown.bad_fields(), ["data_residency"]);
        // Its home within the group is where its data is, too.
        let home = control.patch(&before, &json!({"home_region": "us-west-2"})).await;
        assert_eq!((home.status, &home.json["capability"]), (501, &"online_move".into()));
        for abroad in [json!({"home_region": "eu-central-1"}), json!({"home_region": null})] {
            assert_eq!(control.patch(&before, &abroad).await.bad_fields(), ["home_region"]);
        }
        assert_eq!(control.get(&path_of(&before)).await.json, before);
    }

    async fn a_domain_belongs_to_one_tenant_until_it_is_given_up(on: Backend) {
        let control = Control::start(on).await;
        let (one, two) =
            (control.create(&tenant("one")).await, control.create(&tenant("two")).await);
        let claim = json!({"custom_domains": ["shop.example"], "display_name": "Changed"});
        assert_eq!(control.patch(&one, &claim).await.status, 200);
        let refused = control.patch(&two, &claim).await;
        assert_eq!((refused.status, &refused.json["code"]), (409, &"domain-taken".into()));
        assert_eq!(control.get(&path_of(&two)).await.json, two);
        control.patch(&one, &json!({"custom_domains": null})).await;
        assert_eq!(control.patch(&two, &claim).await.status, 200);
    }

    async fn if_match_protects_a_version(on: Backend) {
        let control = Control::start(on).await;
        let tenant = control.create(&acme()).await;
        let tag = control.get(&path_of(&tenant)).await.headers["etag"].clone();
        let send = async |tag: &str, name: &str| {
            let fields = [("content-type", "application/merge-patch+json"), ("if-match", tag)];
            let path = path_of(&tenant);
            let patch = json!({"display_name": name}).to_string();
            control.with(("PATCH", path.as_str()), &fields, &patch).await
        };
        let tag = tag.to_str().expect("text");
        assert_eq!(send(tag, "New").await.headers["etag"], "\"2\"");
        let stale = send(tag, "Newer").await;
        assert_eq!((stale.status, &stale.json["code"]), (412, &"version-mismatch".into()));
        assert_eq!(send("\"x\"", "Newer").await.status, 412);
        assert_eq!(send("*", "Newer").await.json["version"], 3);
        assert_eq!(send("*", "Newer").await.json["version"], 3, "nothing to change");
    }

    async fn a_tenant_of_an_undeclared_plan_is_shown_without_quotas(on: Backend) {
        let control = Control::start(on).await;
        let tenant = control.create(&acme()).await;
        control.catalog.send_modify(|catalog| {
            let mut fewer = (**catalog).clone();
            fewer.plans.remove("enterprise");
            *catalog = fewer.into();
        });
        let answer = control.get(&path_of(&tenant)).await;
        assert_eq!((answer.status, &answer.json["quotas"]), (200, &Value::Null));
    }

    async fn every_patch_is_in_the_directory_when_it_is_answered(on: Backend) {
        let control = Control::start(on).await;
        let tenant = control.create(&acme()).await;
        let directory = control.store.directory();
        let version = directory.borrow().version;
        control.patch(&tenant, &json!({"status": "active"})).await;
        let published = directory.borrow().clone();
        assert_eq!(published.version, version + 1);
        let record = published.record(id_of(&tenant)).expect("a tenant");
        assert_eq!(record.tenant.status.as_str(), "active");
    }
}
