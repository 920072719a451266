//! The control API: one endpoint a file, JSON in and out, problem+json for refusals.
//!
//! [`router`] is served by [`crate::serve`] on the control listener and called in-process
//! by tests. `/api/v1` is canonical; `/v1`, the product guide's other spelling, reaches
//! the same handlers.
//!
//! Invariant: every path under `/api/v1` takes an [`auth::Admin`]; health and metrics are
//! open, because the listener is on loopback by default. An audit entry belongs into the
//! transaction of each mutation: its place is `store::change::Change`.

mod auth;
mod body;
mod fields;
mod health;
mod keys;
mod overrides;
mod path;
mod plan_changes;
mod plans;
mod policies;
mod problem;
mod rules;
mod tenants;
mod usage;

use std::{fmt, ops::Deref, sync::Arc};

use axum::{
    Json, Router,
    extract::DefaultBodyLimit,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use model::{
    catalog::{Catalog, ReloadStatus},
    clock::Clock,
    gate::UsageSource,
};
use serde::Serialize;
use tokio::sync::watch;

use crate::store::{AdminToken, Store};
pub use health::Readiness;
use problem::ApiError;

/// What the API works on.
#[derive(Clone)]
pub struct Deps {
    /// Tenants, keys and secrets.
    pub store: Arc<Store>,
    /// Where consumption is read from.
    pub usage: Arc<dyn UsageSource>,
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
pub(crate) struct Api(Arc<Deps>);

impl Deref for Api {
    type Target = Deps;

    fn deref(&self) -> &Deps {
        &self.0
    }
}

/// All endpoints of the control listener.
pub fn router(deps: Deps) -> Router {
    let endpoints = Router::new()
        .route("/admin/tenants", get(tenants::list::list).post(tenants::create::create))
        .route("/admin/tenants/{id}", get(tenants::read::read).patch(tenants::patch::patch))
        .route("/admin/tenants/{id}/suspend", post(tenants::status::suspend))
        .route("/admin/tenants/{id}/resume", post(tenants::status::resume))
        .route("/admin/tenants/{id}/keys", get(keys::list).post(keys::issue))
        .route("/admin/tenants/{id}/keys/{key}", delete(keys::revoke))
        .route("/admin/tenants/{id}/overrides", get(overrides::read).put(overrides::replace))
        .route(
            "/admin/tenants/{id}/plan-changes",
            get(plan_changes::list).post(plan_changes::schedule),
        )
        .route("/admin/tenants/{id}/plan-changes/{change}", delete(plan_changes::cancel))
        .route("/admin/plans", get(plans::list))
        .route("/admin/plans/{plan}/versions", get(plans::versions))
        .route("/admin/policies", get(policies::read))
        .route("/tenants/{id}/usage", get(usage::read));
    Router::new()
        .nest("/api/v1", endpoints.clone())
        .nest("/v1", endpoints)
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .fallback(async || ApiError::NoSuchPath)
        .method_not_allowed_fallback(async || ApiError::NoSuchMethod)
        .layer(DefaultBodyLimit::max(body::BODY_BYTES_MAX))
        .with_state(Api(Arc::new(deps)))
}

/// A JSON answer that no cache may keep.
fn json(body: impl Serialize) -> Response {
    let no_store = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (no_store, Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use proptest::{
        prelude::*,
        test_runner::{Config, TestRunner},
    };
    use serde_json::{Map, Value};

    use crate::testing::{Backend, Control, acme, path_of, tenant};

    const MEMBERS: [&str; 16] = [
        "organization_name",
        "display_name",
        "slug",
        "admin_email",
        "plan",
        "data_residency",
        "parent_tenant_id",
        "status",
        "suspend_reason",
        "custom_domains",
        "quota_overrides",
        "attributes",
        "secrets",
        "version",
        "reason",
        "expires_at",
    ];

    fn value() -> impl Strategy<Value = Value> {
        let known = [
            "acme",
            "team",
            "eu",
            "us",
            "a@b.example",
            "active",
            "suspended",
            "abuse",
            "x.example",
            "2030-01-01T00:00:00Z",
            "9999-12-31T23:59:59.999999999Z",
            "-0001-01-01T00:00:00Z",
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            prop::sample::select(known.to_vec()).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(2, 8, 4, |inner| {
            let name = prop_oneof![
                prop::sample::select(&["max_users", "signing"][..]).prop_map(str::to_owned),
                any::<String>(),
            ];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(name, inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn document() -> impl Strategy<Value = Map<String, Value>> {
        let member = (prop::sample::select(&MEMBERS[..]).prop_map(str::to_owned), value());
        prop::collection::vec(member, 0..6).prop_map(|members| members.into_iter().collect())
    }

    #[test]
    fn no_document_makes_the_server_fail_on_sqlite() {
        no_document_makes_the_server_fail(Backend::Sqlite);
    }

    #[test]
    fn no_document_makes_the_server_fail_on_postgres() {
        no_document_makes_the_server_fail(Backend::Postgres);
    }

    fn no_document_makes_the_server_fail(on: Backend) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let control = runtime.block_on(Control::start(on));
        let held = runtime.block_on(control.create(&tenant("held")));
        let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
        let outcome = runner.run(&document(), |members| {
            let mut create = acme();
            create.as_object_mut().expect("an object").extend(members.clone());
            let members = Value::Object(members);
            let path = path_of(&held);
            for (method, path, body) in [
                ("POST", "/api/v1/admin/tenants", &create),
                ("PATCH", &path, &members),
                ("POST", &format!("{path}/suspend"), &members),
                ("POST", &format!("{path}/resume"), &members),
                ("POST", &format!("{path}/keys"), &members),
            ] {
                let answer = runtime.block_on(control.json(method, path, body));
                let refused_whole = answer.json["code"] == "needs-postgresql";
                prop_assert!(answer.status < 500 || refused_whole, "{} {}", method, answer.text);
            }
            Ok(())
        });
        outcome.expect("no failure");
    }
}
