//! `GET` and `PUT /admin/tenants/{tenant_id}/overrides`: quotas with dates, set as a whole
//! list; those without dates are the tenant's `quota_overrides`.
//!
//! Invariant: no two overrides of a list contend: of one metric, each begins at a time of
//! its own.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use model::{
    catalog::Catalog, clock::UnixMs, overrides::QuotaOverride, quota::Quotas, tenant::TenantId,
};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    Api,
    body::Document,
    caller::Caller,
    fields::Fields,
    json,
    path::TenantPath,
    problem::ApiError,
    rules,
    tenants::{patch::expected_version, view::etag},
};
use crate::store::Overridden;

/// Overrides of one tenant: each is looked at when one begins or ends.
const OVERRIDES_MAX: usize = 64;

/// All quotas with dates of a tenant.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documents the shape that `replace` reads")]
pub(super) struct OverridesBody {
    /// At most 64.
    overrides: Vec<OverrideBody>,
}

#[derive(JsonSchema)]
#[schemars(rename = "QuotaOverrideBody")]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documents the shape that `dated` reads")]
struct OverrideBody {
    /// Name of a quota: `max_users`.
    metric: String,
    value: u64,
    #[schemars(extend("format" = "date-time"))]
    effective_from: String,
    /// Later than `effective_from`; `null` leaves it in force.
    #[schemars(extend("format" = "date-time"))]
    effective_until: Option<String>,
    /// Why, for people.
    reason: String,
}

/// A tenant's overrides, and what comes of them.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Overrides")]
pub(super) struct OverridesView<'a> {
    #[schemars(with = "uuid::Uuid")]
    tenant_id: TenantId,
    overrides: Vec<OverrideView<'a>>,
    /// Those of the overrides that are in force.
    in_force: &'a BTreeMap<String, u64>,
    /// The tenant's quotas, everything taken together; `null` when its plan is no longer
    /// declared.
    quotas: Option<Quotas>,
    /// Of the tenant.
    version: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "QuotaOverride")]
struct OverrideView<'a> {
    metric: &'static str,
    value: u64,
    effective_from: String,
    effective_until: Option<String>,
    reason: &'a str,
}

impl<'a> From<&'a QuotaOverride> for OverrideView<'a> {
    fn from(dated: &'a QuotaOverride) -> Self {
        Self {
            metric: dated.metric.quota_name(),
            value: dated.value,
            effective_from: dated.effective_from.rfc3339_exact(),
            effective_until: dated.effective_until.map(UnixMs::rfc3339_exact),
            reason: &dated.reason,
        }
    }
}

pub(super) async fn read(
    State(api): State<Api>,
    TenantPath(id): TenantPath,
) -> Result<Response, ApiError> {
    let overridden = api.store.overrides(id).await?.ok_or(ApiError::NotFound)?;
    Ok(answer(&overridden, &api.catalog.borrow()))
}

pub(super) async fn replace(
    caller: Caller,
    State(api): State<Api>,
    TenantPath(id): TenantPath,
    headers: HeaderMap,
    document: Document,
) -> Result<Response, ApiError> {
    let expected = expected_version(&headers)?;
    let mut fields = Fields::new(document.members);
    let overrides = fields.objects("overrides", OVERRIDES_MAX, dated).unwrap_or_default();
    for (at, dated) in &overrides {
        if overrides.iter().any(|(before, other)| before < at && contend(other, dated)) {
            let detail = "another override of this metric begins at the same time";
            fields.reject(format!("overrides[{at}].effective_from"), detail);
        }
    }
    fields.finish()?;
    let overrides = overrides.into_iter().map(|(_, dated)| dated).collect();
    let overridden = api.store.set_overrides(caller.actor(), id, overrides, expected).await?;
    let catalog = Arc::clone(&api.catalog.borrow());
    Ok(answer(&overridden, &catalog))
}

fn contend(one: &QuotaOverride, other: &QuotaOverride) -> bool {
    one.metric == other.metric && one.effective_from == other.effective_from
}

fn dated(fields: &mut Fields) -> Option<QuotaOverride> {
    let metric = fields.required("metric", rules::quota_name);
    let value = fields.required("value", rules::quota_value);
    let from = fields.required("effective_from", rules::instant);
    let effective_until = fields.optional("effective_until", |value| {
        let until = rules::instant(value)?;
        let follows = from.is_none_or(|from| from < until);
        if follows { Ok(until) } else { Err("must be later than effective_from".to_owned()) }
    });
    let reason = fields.required("reason", rules::reason);
    Some(QuotaOverride {
        metric: metric?,
        value: value?,
        effective_from: from?,
        effective_until,
        reason: reason?,
    })
}

fn answer(overridden: &Overridden, catalog: &Catalog) -> Response {
    let Overridden { tenant, overrides } = overridden;
    let body = json(OverridesView {
        tenant_id: tenant.id,
        overrides: overrides.iter().map(OverrideView::from).collect(),
        in_force: &tenant.dated_quotas,
        quotas: catalog.quotas_of(tenant),
        version: tenant.version,
    });
    (etag(tenant.version), body).into_response()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Backend, Control, acme, on_both, path_of};

    on_both![
        a_list_is_answered_with_what_is_in_force_of_it,
        every_bad_field_of_every_override_is_named,
        a_list_for_another_version_changes_nothing,
    ];

    async fn a_list_is_answered_with_what_is_in_force_of_it(on: Backend) {
        let control = Control::start(on).await;
        let tenant = control.create(&acme()).await;
        control.patch(&tenant, &json!({"quota_overrides": {"max_users": 5}})).await;
        let path = format!("{}/overrides", path_of(&tenant));
        let list = json!({"overrides": [
            {"metric": "max_api_calls_per_month", "value": 20000,
             "effective_from": "2023-12-31T00:00:00Z", "effective_until": null,
             "reason": "ticket 17"},
            {"metric": "max_users", "value": 9, "effective_from": "2024-01-01T00:00:00.001Z",
             "effective_until": "2024-02-01T00:00:00Z", "reason": "a campaign"},
        ]});
        let answer = control.json("PUT", &path, &list).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer.json["overrides"], list["overrides"]);
        assert_eq!(answer.json["in_force"], json!({"max_api_calls_per_month": 20000}));
        assert_eq!(answer.json["quotas"]["max_api_calls_per_month"], 20000);
        assert_eq!(answer.json["quotas"]["max_users"], 5, "the one without dates");
        assert_eq!(answer.headers["etag"], "\"3\"");
        assert_eq!(control.get(&path).await.json, answer.json);
        let shown = control.get(&path_of(&tenant)).await.json;
        assert_eq!(shown["quotas"], answer.json["quotas"]);
    }

    async fn every_bad_field_of_every_override_is_named(on: Backend) {
        let control = Control::start(on).await;
        let tenant = control.create(&acme()).await;
        let path = format!("{}/overrides", path_of(&tenant));
        let good = json!({"metric": "max_users", "value": 1, "reason": "x",
                          "effective_from": "2024-01-01T00:00:00Z"});
        let mut backwards = good.clone();
        backwards["effective_from"] = "2024-03-01T00:00:00Z".into();
        backwards["effective_until"] = "2024-03-01T00:00:00Z".into();
        let list = json!({"overrides": [
            good.clone(), {"metric": "users", "value": -1, "reason": " ", "colour": "red"},
            backwards, 7, good,
        ], "x": 1});
        let answer = control.json("PUT", &path, &list).await;
        let mut bad = answer.bad_fields();
        bad.sort_unstable();
        assert_eq!(
            bad,
            [
                "overrides[1].colour",
                "overrides[1].effective_from",
                "overrides[1].metric",
                "overrides[1].reason",
                "overrides[1].value",
                "overrides[2].effective_until",
                "overrides[3]",
                "overrides[4].effective_from",
                "x",
            ]
        );
        let twice = json!({"overrides": [good, good]});
        let answer = control.json("PUT", &path, &twice).await;
        assert_eq!(answer.bad_fields(), ["overrides[1].effective_from"]);
        for nothing in [json!({}), json!({"overrides": null}), json!({"overrides": {}})] {
            assert_eq!(control.json("PUT", &path, &nothing).await.bad_fields(), ["overrides"]);
        }
        assert_eq!(control.get(&path).await.json["overrides"], json!([]));
    }

    async fn a_list_for_another_version_changes_nothing(on: Backend) {
        let control = Control::start(on).await;
        let tenant = control.create(&acme()).await;
        let path = format!("{}/overrides", path_of(&tenant));
        let fields = [("content-type", "application/json"), ("if-match", "\"7\"")];
        let answer = control.with(("PUT", &path), &fields, r#"{"overrides":[]}"#).await;
        assert_eq!((answer.status, &answer.json["code"]), (412, &"version-mismatch".into()));
        let unknown = "/api/v1/admin/tenants/00000000-0000-0000-0000-000000000000/overrides";
        assert_eq!(control.get(unknown).await.status, 404);
    }
}
