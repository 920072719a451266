//! The whole product in one process: edge, control plane, an origin for each region, a
//! private copy of `policies/`, a clock that the test may move.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use edge::{config::Config, run};
use http_body_util::Full;
use model::{
    clock::{ManualClock, UnixMs},
    secret::Secret,
};
use serde_json::{Value, json};

use super::{Client, Origin, Reply, eventually};

/// The admin token of every world.
pub const ADMIN_TOKEN: &str = "test-admin-token-0123456789abcdef";
/// Where the clock of a world starts: 2026-03-15T12:00:00Z, away from every edge of a
/// calendar window.
pub const START: UnixMs = UnixMs(1_773_576_000_000);

/// How long a request may wait for its first tokens: a test never fails because a busy
/// disk was slow to commit.
pub const ADMIT_WAIT_MS: u64 = 20_000;

/// What a test may choose.
#[derive(Default)]
pub struct WorldOptions {
    /// Lines laid over the config, as TOML.
    pub config: String,
    /// Changes the private copy of `policies/` before the start.
    pub prepare: Option<Prepare>,
}

/// A change of a `policies/` folder.
pub type Prepare = Box<dyn FnOnce(&Path) + Send>;

/// Everything, running. Ends when dropped (after `stop` in order).
pub struct World {
    pub dir: tempfile::TempDir,
    pub clock: Arc<ManualClock>,
    pub origins: BTreeMap<String, Origin>,
    pub running: Option<run::Running>,
    config: Config,
}

/// A tenant, by its slug.
#[derive(Clone, Debug)]
pub struct TenantActor {
    pub slug: String,
    pub id: String,
    pub host: String,
    edge: Client,
}

/// The checkout's `policies/`.
pub fn policies_source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies")
}

impl World {
    pub async fn start() -> Self {
        Self::with(WorldOptions::default()).await
    }

    pub async fn with(options: WorldOptions) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let policies = dir.path().join("policies");
        copy_policies(&policies_source(), &policies);
        let mut origins = BTreeMap::new();
        for region in regions_of(&policies) {
            origins.insert(region.clone(), Origin::start(&region).await);
        }
        point_regions_at(&policies, &origins);
        if let Some(prepare) = options.prepare {
            prepare(&policies);
        }
        let config = config(dir.path(), &options.config);
        let mut world =
            Self { dir, clock: Arc::new(ManualClock::at(START)), origins, running: None, config };
        world.resume().await;
        world
    }

    /// Starts the program again on the same data.
    pub async fn resume(&mut self) {
        let token = Some(Secret::new(ADMIN_TOKEN));
        let running = run::start(self.config.clone(), Arc::clone(&self.clock) as _, token).await;
        self.running = Some(running.unwrap_or_else(|error| panic!("no start: {error:#}")));
    }

    /// Tries to start; gives the error's text.
    pub async fn start_error(options: WorldOptions) -> String {
        let dir = tempfile::tempdir().expect("a folder");
        let policies = dir.path().join("policies");
        copy_policies(&policies_source(), &policies);
        if let Some(prepare) = options.prepare {
            prepare(&policies);
        }
        let config = config(dir.path(), &options.config);
        let clock = Arc::new(ManualClock::at(START));
        match run::start(config, clock, Some(Secret::new(ADMIN_TOKEN))).await {
            Ok(_) => panic!("it started"),
            Err(error) => format!("{error:#}"),
        }
    }

    /// A clean stop.
    pub async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop().await.expect("a clean stop");
        }
    }

    fn running(&self) -> &run::Running {
        self.running.as_ref().expect("the program runs")
    }

    /// The world's time, in seconds since the epoch.
    pub fn clock_s(&self) -> u64 {
        model::clock::Clock::now(&*self.clock).0 / 1000
    }

    pub fn edge_addr(&self) -> SocketAddr {
        self.running().edge[0]
    }

    pub fn edge(&self) -> Client {
        Client { addr: self.edge_addr() }
    }

    pub fn control(&self) -> Client {
        Client { addr: self.running().control }
    }

    pub fn origin(&self, region: &str) -> &Origin {
        &self.origins[region]
    }

    /// Requests that arrived anywhere.
    pub fn arrivals(&self) -> usize {
        self.origins.values().map(Origin::arrivals).sum()
    }

    /// Path of a file of the private `policies/`.
    pub fn policy_file(&self, file: &str) -> PathBuf {
        self.dir.path().join("policies").join(file)
    }

    /// Edits a file of `policies/` the way an editor does: write aside, rename.
    pub fn edit(&self, file: &str, change: impl FnOnce(String) -> String) {
        let path = self.policy_file(file);
        let before = std::fs::read_to_string(&path).unwrap_or_default();
        let after = change(before.clone());
        assert_ne!(before, after, "the edit of {file} changes nothing");
        let aside = path.with_extension("edit");
        std::fs::write(&aside, after).expect("a file");
        std::fs::rename(&aside, &path).expect("a rename");
    }

    /// An API call with the admin token.
    pub async fn admin(&self, method: &str, path: &str, body: Option<Value>) -> Reply {
        let request = Client::request(method, path, "control.test")
            .header("authorization", format!("Bearer {ADMIN_TOKEN}"))
            .header("content-type", "application/json");
        let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        self.control().send(request.body(Full::new(body)).expect("a request")).await
    }

    /// Creates a tenant and waits until the edge serves it.
    pub async fn tenant(&self, slug: &str, plan: &str, group: &str) -> TenantActor {
        let body = json!({
            "organization_name": slug, "slug": slug, "plan": plan, "data_residency": group,
            "admin_email": format!("admin@{slug}.example"),
        });
        self.create(body).await
    }

    /// The same from a whole body.
    pub async fn create(&self, body: Value) -> TenantActor {
        let created =
            self.admin("POST", "/api/v1/admin/tenants", Some(body)).await.expect(201).json();
        let actor = TenantActor::of(&created, self.edge());
        let version = self.running().snapshots.clone();
        eventually("the edge knows the tenant", || async {
            version.borrow().tenant_by_slug(&actor.slug).map(|_| ())
        })
        .await;
        actor
    }

    /// Issues an API key.
    pub async fn key(&self, tenant: &TenantActor) -> String {
        let path = format!("/api/v1/admin/tenants/{}/keys", tenant.id);
        let issued = self.admin("POST", &path, Some(json!({}))).await.expect(201).json();
        let key = issued["key"].as_str().unwrap_or_else(|| panic!("no key in {issued}")).to_owned();
        let snapshots = self.running().snapshots.clone();
        let id = model::key::parse(&key).expect("a key").id.to_owned();
        eventually("the edge knows the key", || async { snapshots.borrow().key(&id).map(|_| ()) })
            .await;
        key
    }

    /// The usage figures of a tenant.
    pub async fn usage(&self, tenant: &TenantActor) -> Value {
        self.admin("GET", &format!("/api/v1/tenants/{}/usage", tenant.id), None)
            .await
            .expect(200)
            .json()
    }
}

impl TenantActor {
    /// The tenant that the API says it created.
    pub fn of(created: &Value, edge: Client) -> Self {
        let text =
            |key: &str| created[key].as_str().unwrap_or_else(|| panic!("no {key}")).to_owned();
        let slug = text("slug");
        Self { host: format!("{slug}.localhost"), id: text("id"), slug, edge }
    }

    /// The same tenant at another edge.
    pub fn at(&self, edge: Client) -> Self {
        Self { edge, ..self.clone() }
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], "").await
    }

    /// Sends over HTTP/1.1 with the tenant's host.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Reply {
        self.edge.send(self.build(method, path, headers, body)).await
    }

    /// The same where the edge may cut the answer by design.
    pub async fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> anyhow::Result<Reply> {
        self.edge.try_send(self.build(method, path, headers, body)).await
    }

    /// Sends over h2c with the tenant's host.
    pub async fn send_h2(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Reply {
        self.edge.send_h2(self.build(method, path, headers, body)).await
    }

    fn build(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> http::Request<Full<Bytes>> {
        let mut request = Client::request(method, path, &self.host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Full::new(Bytes::from(body.to_owned()))).expect("a request")
    }
}

/// A private `policies/` in `dir` whose regions all point at one origin.
pub fn prepare_policies(dir: &Path, origin: &Origin) {
    let policies = dir.join("policies");
    copy_policies(&policies_source(), &policies);
    let all = regions_of(&policies).into_iter().map(|region| (region, origin.clone())).collect();
    point_regions_at(&policies, &all);
}

fn config(dir: &Path, over: &str) -> Config {
    let base = format!(
        "[edge]\nlisten = \"127.0.0.1:0\"\nworkers = 2\n[control]\nlisten = \"127.0.0.1:0\"\n\
         [policies]\ndir = \"{0}/policies\"\n[data]\ndir = \"{0}/data\"\n[log]\nlevel = \"error\"\n\
         [quota]\nadmit_wait_ms_max = {ADMIT_WAIT_MS}\n[plugins]\ncompiler = \"{1}\"\n",
        dir.display(),
        super::process::binary_path().display()
    );
    let file = dir.join("edge.toml");
    let merged = merge_toml(&base, over);
    std::fs::write(&file, merged).expect("a file");
    let config = Config::load(Some(&file), std::iter::empty());
    let config = config.unwrap_or_else(|errors| panic!("config: {errors}"));
    edge::telemetry::install(&config.log).expect("a log");
    config
}

/// Sections of `over` are laid over those of `base`, key by key.
fn merge_toml(base: &str, over: &str) -> String {
    let mut merged = edge::strict::toml_value(base).expect("TOML");
    let over = edge::strict::toml_value(over).expect("TOML");
    for (section, keys) in over.as_object().expect("a table") {
        let section = merged.as_object_mut().expect("a table").entry(section).or_insert(json!({}));
        for (key, value) in keys.as_object().expect("a section") {
            section[key] = value.clone();
        }
    }
    let table: edge::strict::Toml = serde_json::from_value(merged).expect("a table");
    table.to_string()
}

/// Copies the declarations; components keep pointing at the checkout's.
fn copy_policies(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("policies/") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_policies(&entry.path(), &target);
        } else {
            let text = std::fs::read_to_string(entry.path()).expect("text");
            let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/dist");
            let text = text.replace("../../plugins/dist", &dist.display().to_string());
            std::fs::write(target, text).expect("a file");
        }
    }
}

fn regions_of(policies: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(policies.join("regions.toml")).expect("regions.toml");
    let value = edge::strict::toml_value(&text).expect("TOML");
    let regions = value["region"].as_array().expect("regions");
    regions.iter().map(|region| region["name"].as_str().expect("a name").to_owned()).collect()
}

fn point_regions_at(policies: &Path, origins: &BTreeMap<String, Origin>) {
    let path = policies.join("regions.toml");
    let mut value =
        edge::strict::toml_value(&std::fs::read_to_string(&path).expect("text")).expect("TOML");
    for region in value["region"].as_array_mut().expect("regions") {
        let addr = origins[region["name"].as_str().expect("a name")].addr.to_string();
        region["upstreams"] = json!([addr]);
        if let Some(backends) = region.get_mut("backends").and_then(Value::as_object_mut) {
            for pool in backends.values_mut() {
                *pool = json!([addr]);
            }
        }
    }
    let table: edge::strict::Toml = serde_json::from_value(value).expect("a table");
    std::fs::write(path, table.to_string()).expect("a file");
}
