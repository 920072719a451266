//! `POST /admin/tenants`: 201 with the new tenant in its trial.
//!
//! Invariant: all bad fields are named at once.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use model::{access::Right, catalog::Catalog, tenant::TenantId};
use schemars::JsonSchema;

use super::view::{TenantView, etag};
use crate::{
    api::{Api, body::Document, caller::Caller, fields::Fields, json, problem::ApiError, rules},
    store::NewTenant,
};

const HOME: &str = "home_region";

/// What a tenant is created from.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documents the shape that `read` reads")]
pub(in crate::api) struct NewTenantBody {
    #[schemars(length(min = 1, max = 200))]
    organization_name: String,
    /// The organisation's name unless given.
    #[schemars(length(min = 1, max = 200))]
    display_name: Option<String>,
    /// A DNS label; unique for ever.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    slug: String,
    /// Where notices go.
    #[schemars(length(max = 254), extend("format" = "email"))]
    admin_email: String,
    /// A declared plan.
    #[schemars(example = &"team")]
    plan: String,
    /// A declared residency group; a child inherits its parent's unless given.
    #[schemars(example = &"eu")]
    data_residency: Option<String>,
    /// A region of that group, which serves the tenant for good; its first unless given.
    #[schemars(example = &"eu-west-1")]
    home_region: Option<String>,
    parent_tenant_id: Option<uuid::Uuid>,
    /// Day of the month on which the month's quotas begin anew, at 00:00 UTC; 29 to 31 are
    /// the last day of a shorter month. A child inherits its parent's unless given; else 1.
    #[schemars(range(min = 1, max = 31))]
    quota_anchor_day: Option<u8>,
}

pub(in crate::api) async fn create(
    caller: Caller,
    State(api): State<Api>,
    document: Document,
) -> Result<Response, ApiError> {
    let catalog = Arc::clone(&api.catalog.borrow());
    let new = read(&caller, &api, &catalog, document)?;
    may_create(&caller, &api, &new)?;
    let tenant = api.store.create_tenant(caller.actor(), new).await?;
    let headers = [(header::LOCATION, location(tenant.id))];
    let view = json(TenantView::new(&tenant, &[], &catalog, &api.store));
    Ok((StatusCode::CREATED, etag(tenant.version), headers, view).into_response())
}

fn read(
    caller: &Caller,
    api: &Api,
    catalog: &Catalog,
    document: Document,
) -> Result<NewTenant, ApiError> {
    let mut fields = Fields::new(document.members);
    let organization_name = fields.required("organization_name", rules::name);
    let display_name = fields.optional("display_name", rules::name);
    let slug = fields.required("slug", rules::slug);
    let admin_email = fields.required("admin_email", rules::email);
    let plan = fields.required("plan", |value| rules::plan(value, catalog, !caller.is_operator()));
    let data_residency = residency(api, catalog, &mut fields);
    let home_region = home(catalog, data_residency.as_deref(), &mut fields);
    let parent = fields.optional("parent_tenant_id", |value| {
        let parent = rules::tenant_id(value)?;
        // To others than the operator an unknown parent is as one out of reach.
        let passes = !caller.is_operator() || api.store.knows(parent);
        if passes { Ok(parent) } else { Err("is no tenant".to_owned()) }
    });
    let quota_anchor = fields.optional("quota_anchor_day", rules::anchor);
    let (Some(organization_name), Some(slug), Some(admin_email), Some(plan)) =
        (organization_name, slug, admin_email, plan)
    else {
        return Err(fields.refuse());
    };
    fields.finish()?;
    Ok(NewTenant {
        slug,
        organization_name,
        display_name,
        admin_email,
        plan,
        data_residency,
        home_region,
        parent,
        quota_anchor,
    })
}

/// A parent's token creates below its own tenant only, the operator's anywhere.
fn may_create(caller: &Caller, api: &Api, new: &NewTenant) -> Result<(), ApiError> {
    match (caller.tenant(), new.parent) {
        (None, _) => Ok(()),
        (Some(_), Some(parent)) => caller.must(api, Right::TenantCreate, parent),
        (Some(_), None) => Err(ApiError::Forbidden(Right::TenantCreate)),
    }
}

/// The group asked for; a child may leave it out and inherits, a root needs a default.
fn residency(api: &Api, catalog: &Catalog, fields: &mut Fields) -> Option<String> {
    if fields.has("data_residency") || fields.has("parent_tenant_id") {
        return fields.optional("data_residency", |value| rules::residency(value, catalog));
    }
    fields.take("data_residency");
    let default = api.default_residency.clone().filter(|group| catalog.groups.contains_key(group));
    if default.is_none() {
        fields.reject(
            "data_residency",
            "is required for a tenant without a parent: this installation has no default",
        );
    }
    default
}

/// The region asked for, or the first of the group; a child that inherits its parent's group
/// inherits its home with it.
fn home(catalog: &Catalog, group: Option<&str>, fields: &mut Fields) -> Option<String> {
    let Some(members) = group.and_then(|group| catalog.groups.get(group)) else {
        if fields.take(HOME).is_some_and(|home| !home.is_null()) {
            fields.reject(HOME, "goes with data_residency, whose member it must be");
        }
        return None;
    };
    match fields.has(HOME) {
        true => fields.optional(HOME, |value| rules::region(value, members)),
        false => {
            fields.take(HOME);
            members.first().cloned()
        }
    }
}

fn location(id: TenantId) -> HeaderValue {
    HeaderValue::try_from(format!("/api/v1/admin/tenants/{id}"))
        .unwrap_or_else(|_| HeaderValue::from_static("/api/v1/admin/tenants"))
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use serde_json::{Value, json};

    use crate::testing::{Backend, Control, acme, on_both, path_of, tenant};

    const PATH: &str = "/api/v1/admin/tenants";

    on_both![
        of_a_hundred_parallel_creates_of_one_slug_exactly_one_succeeds,
        the_guides_example_is_answered_field_by_field,
        the_guides_other_spelling_of_the_path_reaches_the_same_handler,
        all_bad_fields_are_named_at_once,
        slugs_that_are_no_labels_or_reserved_are_refused,
        a_repeated_request_gets_the_first_answer_even_after_a_change,
        an_idempotency_key_is_forgotten_after_a_day,
        a_child_inherits_residency_unless_it_names_its_own,
        a_home_is_a_region_of_the_group_and_a_child_inherits_both,
        a_root_without_residency_gets_the_installations_default,
        a_family_has_at_most_eight_levels,
    ];

    async fn the_guides_example_is_answered_field_by_field(on: Backend) {
        let control = Control::start(on).await;
        let answer = control.json("POST", PATH, &acme()).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        assert_eq!(answer.headers["content-type"], "application/json");
        assert_eq!(answer.headers["location"].to_str().expect("text"), path_of(&answer.json));
        let guide = json!({
            "id": answer.json["id"],
            "organization_name": "Acme Corporation",
            "slug": "acme-corp",
            "status": "trial",
            "plan": "enterprise",
            "data_residency": "us",
            "quotas": {
                "max_users": 999999,
                "max_projects": 999999,
                "max_api_calls_per_month": 999999999,
                "max_storage_mb": 1048576,
                "max_ai_requests_per_day": 10000,
                "max_concurrent_sessions": 100
            },
            "created_at": "2024-01-01T00:00:00Z",
            "trial_ends_at": "2024-01-31T00:00:00Z"
        });
        let guide = guide.to_string();
        let members = guide.strip_suffix('}').expect("an object");
        assert!(answer.text.starts_with(members), "{}\n{members}", answer.text);
        assert_eq!(answer.json["display_name"], "Acme Corp");
        assert_eq!(answer.json["admin_email"], "admin@acme-corp.com");
        assert_eq!(answer.json["parent_tenant_id"], Value::Null);
    }

    async fn the_guides_other_spelling_of_the_path_reaches_the_same_handler(on: Backend) {
        let control = Control::start(on).await;
        let answer = control.json("POST", "/v1/admin/tenants", &acme()).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        assert_eq!(control.get(&path_of(&answer.json)).await.json, answer.json);
    }

    async fn all_bad_fields_are_named_at_once(on: Backend) {
        let control = Control::start(on).await;
        let bad = json!({
            "organization_name": " ",
            "display_name": 7,
            "slug": "-Acme",
            "admin_email": "nobody",
            "plan": "gold",
            "data_residency": "mars",
            "parent_tenant_id": "00000000-0000-0000-0000-000000000000",
            "colour": "red",
            "quotas": {}
        });
        let answer = control.json("POST", PATH, &bad).await;
        let mut expected: Vec<_> = bad.as_object().expect("an object").keys().collect();
        let mut named = answer.bad_fields();
        expected.sort();
        named.sort_unstable();
        assert_eq!(named, expected);
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        let nothing = control.json("POST", PATH, &json!({})).await;
        assert_eq!(
            nothing.bad_fields(),
            ["organization_name", "slug", "admin_email", "plan", "data_residency"]
        );
        assert_eq!(control.store.tenant_count(), 0);
    }

    async fn slugs_that_are_no_labels_or_reserved_are_refused(on: Backend) {
        let control = Control::start(on).await;
        let too_long = "a".repeat(64);
        for slug in ["", "api", "www", "a.b", "Ümlaut", "a_b", "a-", too_long.as_str()] {
            let answer = control.json("POST", PATH, &tenant(slug)).await;
            assert_eq!(answer.bad_fields(), ["slug"], "{slug}");
        }
        control.create(&tenant(&"a".repeat(63))).await;
    }

    async fn of_a_hundred_parallel_creates_of_one_slug_exactly_one_succeeds(on: Backend) {
        let control = Control::start(on).await;
        let answers = join_all((0..100).map(|_| {
            let (body, deps) = (acme().to_string(), control.deps.clone());
            tokio::spawn(async move {
                let request = axum::http::Request::post(PATH)
                    .header("authorization", "Bearer admin-token")
                    .header("content-type", "application/json")
                    .body(axum::body::Body::from(body))
                    .expect("a request");
                tower::ServiceExt::oneshot(crate::router(deps), request)
                    .await
                    .expect("infallible")
                    .status()
                    .as_u16()
            })
        }))
        .await;
        let statuses: Vec<_> = answers.into_iter().map(|answer| answer.expect("a task")).collect();
        assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1);
        assert_eq!(statuses.iter().filter(|status| **status == 409).count(), 99);
        assert_eq!(control.store.tenant_count(), 1);
        assert_eq!(control.json("POST", PATH, &acme()).await.json["code"], "slug-taken");
    }

    async fn a_repeated_request_gets_the_first_answer_even_after_a_change(on: Backend) {
        let control = Control::start(on).await;
        let fields = [("content-type", "application/json"), ("idempotency-key", "k1")];
        let body = acme().to_string();
        let first = control.with(("POST", PATH), &fields, &body).await;
        assert_eq!(first.status, 201, "{}", first.text);
        control.patch(&first.json, &json!({"plan": "team"})).await;
        let again = control.with(("POST", PATH), &fields, &body).await;
        assert_eq!((again.status, &again.text), (201, &first.text));
        assert_eq!(again.headers["location"], first.headers["location"]);
        assert_eq!(again.headers["idempotent-replayed"], "true");
        let other = control.with(("POST", PATH), &fields, &tenant("other").to_string()).await;
        assert_eq!((other.status, &other.json["code"]), (422, &"idempotency-key-reused".into()));
        let other_key = [("content-type", "application/json"), ("idempotency-key", "k2")];
        assert_eq!(control.with(("POST", PATH), &other_key, &body).await.status, 409);
        assert_eq!(control.store.tenant_count(), 1);
    }

    async fn an_idempotency_key_is_forgotten_after_a_day(on: Backend) {
        let control = Control::start(on).await;
        let fields = [("content-type", "application/json"), ("idempotency-key", "k1")];
        control.with(("POST", PATH), &fields, &acme().to_string()).await;
        control.clock.advance_ms(86_400_000);
        let later = control.with(("POST", PATH), &fields, &tenant("other").to_string()).await;
        assert_eq!(later.status, 201, "{}", later.text);
    }

    async fn a_child_inherits_residency_unless_it_names_its_own(on: Backend) {
        let control = Control::start(on).await;
        let parent = control.create(&acme()).await;
        let mut child = tenant("inheriting");
        child["parent_tenant_id"] = parent["id"].clone();
        child.as_object_mut().expect("an object").shift_remove("data_residency");
        child.as_object_mut().expect("an object").shift_remove("display_name");
        let inheriting = control.create(&child).await;
        assert_eq!(inheriting["data_residency"], "us");
        assert_eq!(inheriting["parent_tenant_id"], parent["id"]);
        assert_eq!(inheriting["display_name"], "Acme Corporation");
        child["slug"] = "european".into();
        child["data_residency"] = "eu".into();
        assert_eq!(control.create(&child).await["data_residency"], "eu");
    }

    async fn a_home_is_a_region_of_the_group_and_a_child_inherits_both(on: Backend) {
        let control = Control::start(on).await;
        assert_eq!(control.create(&tenant("first")).await["home_region"], "us-east-1");
        let mut chosen = tenant("chosen");
        chosen["home_region"] = "us-west-2".into();
        let parent = control.create(&chosen).await;
        assert_eq!(parent["home_region"], "us-west-2");
        let mut child = tenant("child");
        child["parent_tenant_id"] = parent["id"].clone();
        child.as_object_mut().expect("an object").shift_remove("data_residency");
        assert_eq!(control.create(&child).await["home_region"], "us-west-2");
        child["slug"] = "abroad".into();
        child["home_region"] = "us-west-2".into();
        let alone = control.json("POST", PATH, &child).await;
        assert_eq!(alone.bad_fields(), ["home_region"], "without its group");
        child["data_residency"] = "eu".into();
        assert_eq!(control.json("POST", PATH, &child).await.bad_fields(), ["home_region"]);
    }

    async fn a_root_without_residency_gets_the_installations_default(on: Backend) {
        let control =
            Control::start_with(on, |deps| deps.default_residency = Some("uk".to_owned())).await;
        let mut root = acme();
        root["data_residency"] = Value::Null;
        assert_eq!(control.create(&root).await["data_residency"], "uk");
        let undeclared = Some("mars".to_owned());
        let control = Control::start_with(on, |deps| deps.default_residency = undeclared).await;
        let refused = control.json("POST", PATH, &root).await;
        assert_eq!(refused.bad_fields(), ["data_residency"]);
    }

    async fn a_family_has_at_most_eight_levels(on: Backend) {
        let control = Control::start(on).await;
        let mut parent = control.create(&tenant("level-1")).await;
        for level in 2..=8 {
            let mut child = tenant(&format!("level-{level}"));
            child["parent_tenant_id"] = parent["id"].clone();
            parent = control.create(&child).await;
        }
        let mut ninth = tenant("level-9");
        ninth["parent_tenant_id"] = parent["id"].clone();
        let answer = control.json("POST", PATH, &ninth).await;
        assert_eq!(answer.bad_fields(), ["parent_tenant_id"]);
    }
}
