//! A control plane for the tests of this crate: a real database of its own, a clock that
//! stands still, the router called in-process.
//!
//! Tests of the store's contract take a [`Backend`] and are listed in [`on_both!`], which
//! runs each on SQLite and on PostgreSQL; one that is left out is dead code, which the
//! compiler tells.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock, Mutex},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Request, header},
};
use model::{
    BoxFuture,
    anchor::Anchor,
    catalog::{Catalog, ReloadStatus},
    clock::{ManualClock, UnixMs},
    gate::{EdgeQuota, MeteredUsage, UsageSource, UsageUnavailable},
    ledger::{HolderId, LeaseReport, Report},
    plan::Plan,
    plugin::{
        Admitted, Candidate, Inspector, PluginRecord, PluginSettings, PluginTerms, Refusal,
        Rehearsed,
    },
    secret::Secret,
    sessions::{Enter, Member, SessionRefusal, Sessions, SessionsUnavailable, Visit},
    snapshot::TenantEntry,
    tenant::TenantId,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tower::ServiceExt;

use crate::{Deps, Readiness, Store, TrialEnd, keys::Keys, notify::NotifyConfig, router};

pub(crate) const TOKEN: &str = "admin-token";
/// 2024-01-01T00:00:00Z, the product guide's day.
pub(crate) const NEW_YEAR: UnixMs = UnixMs(1_704_067_200_000);

pub(crate) struct Control {
    pub(crate) store: Arc<Store>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) usage: Arc<FixedUsage>,
    pub(crate) sessions: Arc<FixedSessions>,
    pub(crate) catalog: watch::Sender<Arc<Catalog>>,
    pub(crate) reload: watch::Sender<Arc<ReloadStatus>>,
    pub(crate) ready: watch::Sender<Readiness>,
    pub(crate) deps: Deps,
    router: Router,
    database: Database,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    /// `null` where the body is not JSON.
    pub(crate) json: Value,
}

/// Consumption as a test sets it.
#[derive(Default)]
pub(crate) struct FixedUsage(
    pub(crate) Mutex<Option<MeteredUsage>>,
    pub(crate) Mutex<Vec<EdgeQuota>>,
);

impl FixedUsage {
    pub(crate) fn set(&self, api_calls_this_month: u64, ai_requests_today: u64) {
        let usage = MeteredUsage { api_calls_this_month, ai_requests_today, as_of: NEW_YEAR };
        *self.0.lock().expect("not poisoned") = Some(usage);
    }
}

impl UsageSource for FixedUsage {
    fn at_edge(&self, _: TenantId) -> Vec<EdgeQuota> {
        self.1.lock().expect("not poisoned").clone()
    }

    fn usage(
        &self,
        _: TenantId,
        _: Anchor,
    ) -> BoxFuture<'_, Result<MeteredUsage, UsageUnavailable>> {
        let set = *self.0.lock().expect("not poisoned");
        Box::pin(async move { set.ok_or(UsageUnavailable) })
    }
}

/// Live sessions as a test sets them; `None` when nobody can say.
/// Then those at this edge.
#[derive(Default)]
pub(crate) struct FixedSessions(
    pub(crate) Mutex<Option<u64>>,
    pub(crate) Mutex<BTreeMap<TenantId, u64>>,
);

impl Sessions for FixedSessions {
    fn enter(&self, _: &TenantEntry, _: Visit) -> Enter {
        Enter::Refused(SessionRefusal::Unavailable { retry_after_s: 1 })
    }

    fn end(&self, _: Member) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    fn count(&self, _: TenantId) -> BoxFuture<'_, Result<u64, SessionsUnavailable>> {
        let set = *self.0.lock().expect("not poisoned");
        Box::pin(std::future::ready(set.ok_or(SessionsUnavailable)))
    }

    fn here(&self) -> BTreeMap<TenantId, u64> {
        self.1.lock().expect("not poisoned").clone()
    }
}

/// The databases that the store runs on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Backend {
    Sqlite,
    Postgres,
}

/// An empty database of one test.
pub(crate) enum Database {
    /// In a folder that goes with it.
    Sqlite(TempDir),
    /// Of a URL, in the cluster of the process.
    Postgres(String),
}

/// Admits whatever begins like WebAssembly, and has nobody `reject` in its config.
#[derive(Debug)]
pub(crate) struct FixedInspector;

impl FixedInspector {
    fn tried(settings: &PluginSettings) -> Result<Rehearsed, Refusal> {
        if settings.config.contains_key("reject") {
            return Err(Refusal::new("plugin-rejects-config", "it says no"));
        }
        Ok(Rehearsed { log: vec!["GET / continue".to_owned()] })
    }
}

impl Inspector for FixedInspector {
    fn admit(&self, candidate: Candidate) -> BoxFuture<'static, Result<Admitted, Refusal>> {
        Box::pin(async move {
            if !candidate.component.starts_with(b"\0asm") {
                return Err(Refusal::new("plugin-not-wasm", "the file is not WebAssembly"));
            }
            let probe = Self::tried(&candidate.settings)?;
            Ok(Admitted { hooks: vec!["request-hook"], memory_bytes: 65_536, probe })
        })
    }

    fn rehearse(
        &self,
        record: PluginRecord,
        _: PluginTerms,
    ) -> BoxFuture<'static, Result<Rehearsed, Refusal>> {
        Box::pin(async move { Self::tried(&record.settings) })
    }
}

/// Makes two tests of each of these functions of a [`Backend`].
macro_rules! on_both {
    ($($test:ident),* $(,)?) => {$(
        mod $test {
            use $crate::testing::Backend;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                super::$test(Backend::Sqlite).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                super::$test(Backend::Postgres).await;
            }
        }
    )*};
}
pub(crate) use on_both;

impl Backend {
    pub(crate) fn database(self) -> Database {
        match self {
            Self::Sqlite => Database::Sqlite(tempfile::tempdir().expect("a folder")),
            Self::Postgres => Database::Postgres(services::postgres().database()),
        }
    }
}

impl Database {
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Sqlite(folder) => {
                format!("sqlite://{}", folder.path().join("control/edge.db").display())
            }
            Self::Postgres(url) => url.clone(),
        }
    }

    pub(crate) async fn open(&self) -> Arc<Store> {
        let clock = Arc::new(ManualClock::at(NEW_YEAR));
        self.open_at(clock).await
    }

    pub(crate) async fn open_at(&self, clock: Arc<ManualClock>) -> Arc<Store> {
        Store::open_with_keys(&self.url(), clock, keys()).await.expect("a store")
    }

    /// Everything that the database holds.
    pub(crate) fn stored_bytes(&self) -> Vec<u8> {
        match self {
            Self::Sqlite(folder) => {
                let files = std::fs::read_dir(folder.path().join("control")).expect("a folder");
                files
                    .flat_map(|file| std::fs::read(file.expect("a file").path()).expect("bytes"))
                    .collect()
            }
            Self::Postgres(url) => {
                let all = "SELECT query_to_xml(format('SELECT * FROM edge.%I', tablename),
                                               true, false, '')
                           FROM pg_tables WHERE schemaname = 'edge'";
                services::postgres().superuser(url, all).into_bytes()
            }
        }
    }
}

/// The keys of every test.
pub(crate) fn keys() -> Keys {
    static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder"));
    Keys::of_folder(FOLDER.path()).expect("keys")
}

/// A report of leases; what is sealed of them, the holder is through with.
pub(crate) fn report_of(holder: HolderId, number: u64, leases: Vec<LeaseReport>) -> Report {
    let sealed = leases.iter().filter(|lease| lease.sealed);
    let seals = sealed.map(|lease| lease.of).collect();
    let (late, lost, watched) = (Vec::new(), Vec::new(), Vec::new());
    Report { holder, number, leases, seals, late, lost, watched }
}

pub(crate) fn id_of(tenant: &Value) -> TenantId {
    tenant["id"].as_str().expect("an id").parse().expect("a UUID")
}

/// The guide's request for `acme-corp`.
pub(crate) fn acme() -> Value {
    json!({
        "organization_name": "Acme Corporation",
        "display_name": "Acme Corp",
        "slug": "acme-corp",
        "admin_email": "admin@acme-corp.com",
        "plan": "enterprise",
        "data_residency": "us",
        "parent_tenant_id": null,
    })
}

/// A valid request for another slug.
pub(crate) fn tenant(slug: &str) -> Value {
    let mut tenant = acme();
    tenant["slug"] = slug.into();
    tenant
}

impl Control {
    pub(crate) async fn start(on: Backend) -> Self {
        Self::start_with(on, |_| {}).await
    }

    pub(crate) async fn start_with(on: Backend, adjust: impl FnOnce(&mut Deps)) -> Self {
        let database = on.database();
        let clock = Arc::new(ManualClock::at(NEW_YEAR));
        let store = database.open_at(Arc::clone(&clock)).await;
        let token = store.ensure_admin_token(Some(Secret::new(TOKEN))).await.expect("a token");
        let usage = Arc::new(FixedUsage::default());
        let sessions = Arc::new(FixedSessions(Mutex::new(Some(0)), Mutex::default()));
        let catalog = watch::Sender::new(Arc::new(guide()));
        let reload = watch::Sender::new(Arc::new(ReloadStatus::default()));
        let ready = watch::Sender::new(Readiness::Ready);
        let mut deps = Deps {
            store: Arc::clone(&store),
            usage: Arc::clone(&usage) as _,
            sessions: Arc::clone(&sessions) as _,
            catalog: catalog.subscribe(),
            reload: reload.subscribe(),
            ready: ready.subscribe(),
            metrics: Arc::new(|| "edge_up 1\n".to_owned()),
            admin_token: token.token,
            base_domain: "localhost".into(),
            default_residency: None,
            trial_end: TrialEnd::default(),
            notify: NotifyConfig::default(),
            plugins: Arc::new(FixedInspector),
            clock: Arc::clone(&clock) as _,
        };
        adjust(&mut deps);
        let router = router(deps.clone());
        Self { store, clock, usage, sessions, catalog, reload, ready, deps, router, database }
    }

    /// Everything that the database holds.
    pub(crate) fn stored_bytes(&self) -> Vec<u8> {
        self.database.stored_bytes()
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.expect("a body");
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            json: serde_json::from_slice(&bytes).unwrap_or_default(),
            text: String::from_utf8(bytes.to_vec()).expect("text"),
        }
    }

    /// Sends with the admin token and further fields.
    pub(crate) async fn with(
        &self,
        (method, path): (&str, &str),
        fields: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {TOKEN}"));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::from(body.to_owned())).expect("a request")).await
    }

    /// Sends with another token; `null` is no body.
    pub(crate) async fn as_token(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: &Value,
    ) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {token}"));
        let request = match body {
            Value::Null => request.body(Body::empty()),
            body => request
                .header(header::CONTENT_TYPE, "application/json")
                .body(Body::from(body.to_string())),
        };
        self.send(request.expect("a request")).await
    }

    pub(crate) async fn json(&self, method: &str, path: &str, body: &Value) -> Answer {
        let kind = [("content-type", "application/json")];
        self.with((method, path), &kind, &body.to_string()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.with(("GET", path), &[], "").await
    }

    pub(crate) async fn post(&self, path: &str) -> Answer {
        self.with(("POST", path), &[], "").await
    }

    /// Creates a tenant and answers its JSON.
    pub(crate) async fn create(&self, tenant: &Value) -> Value {
        let answer = self.json("POST", "/api/v1/admin/tenants", tenant).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        answer.json
    }

    pub(crate) async fn patch(&self, tenant: &Value, patch: &Value) -> Answer {
        self.json("PATCH", &path_of(tenant), patch).await
    }
}

impl Answer {
    /// Fields of a 422, in their order.
    pub(crate) fn bad_fields(&self) -> Vec<&str> {
        assert_eq!(self.status, 422, "{}", self.text);
        assert_eq!(self.json["code"], "validation");
        let errors = self.json["errors"].as_array().expect("errors");
        errors.iter().map(|error| error["field"].as_str().expect("a field")).collect()
    }
}

pub(crate) fn path_of(tenant: &Value) -> String {
    format!("/api/v1/admin/tenants/{}", tenant["id"].as_str().expect("an id"))
}

/// The guide's plans and residency groups.
pub(crate) fn guide() -> Catalog {
    let plan = |name: &str, [users, projects, api_calls, storage, ai, sessions]: [u64; 6]| {
        let plan = json!({
            "name": name,
            "quotas": {
                "max_users": users,
                "max_projects": projects,
                "max_api_calls_per_month": api_calls,
                "max_storage_mb": storage,
                "max_ai_requests_per_day": ai,
                "max_concurrent_sessions": sessions,
            },
        });
        let plan: Plan = serde_json::from_value(plan).expect("a plan");
        (name.to_owned(), Arc::new(plan))
    };
    let groups: [(&str, &[&str]); 3] = [
        ("us", &["us-east-1", "us-west-2"]),
        ("eu", &["eu-central-1", "eu-west-1"]),
        ("uk", &["eu-west-2"]),
    ];
    Catalog {
        plans: BTreeMap::from([
            plan("developer", [1, 5, 10_000, 1_024, 100, 2]),
            plan("team", [10, 50, 100_000, 10_240, 1_000, 10]),
            plan("enterprise", [999_999, 999_999, 999_999_999, 1_048_576, 10_000, 100]),
        ]),
        groups: groups
            .into_iter()
            .map(|(name, regions)| {
                (name.to_owned(), regions.iter().map(|region| (*region).to_owned()).collect())
            })
            .collect(),
        plan_versions: BTreeMap::new(),
    }
}
