//! The config file: one TOML document, environment overrides, unknown keys refused with
//! their path, all errors together.
//!
//! Read once at start (policies are the hot-reloaded part). Every key has a default, so
//! an empty file is the embedded set-up: SQLite, in-process quota dispatcher, loopback.
//! `deploy/edge.example.toml` documents every key, and a test parses it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use control::TrialEnd;
use model::secret::Secret;
use proxy::{JwtConfig, Limits};
use quota::{RedisFencing, RedisTarget, RedisTls, TargetError};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::strict;

mod notices;
mod plugins;

pub use self::{notices::SmtpSection, plugins::PluginsSection};

/// Prefix of the environment variables that override keys: `LEANVIBE_EDGE__EDGE__LISTEN`.
const ENV_PREFIX: &str = "LEANVIBE_EDGE__";
/// What a store's URL starts with.
const STORE_SCHEMES: [&str; 3] = ["sqlite://", "postgres://", "postgresql://"];
/// Sets the admin token, in place of a stored one.
pub const ENV_ADMIN_TOKEN: &str = "LEANVIBE_EDGE_ADMIN_TOKEN";

/// All settings.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The data plane.
    pub edge: EdgeSection,
    /// The control plane.
    pub control: ControlSection,
    /// Where tenants are kept.
    pub store: StoreSection,
    /// Who dispatches quota leases.
    pub quota: QuotaSection,
    /// The declarations.
    pub policies: PoliciesSection,
    /// Local state.
    pub data: DataSection,
    /// The plugin runtime.
    pub sandbox: SandboxSection,
    /// Plugins that are uploaded.
    pub plugins: PluginsSection,
    /// The log.
    pub log: LogSection,
}

/// `[edge]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EdgeSection {
    /// Addresses of the data plane in clear text: HTTP/1.1 and h2c.
    #[serde(deserialize_with = "one_or_many")]
    pub listen: Vec<SocketAddr>,
    /// Addresses under TLS, their certificates, and whose clients have to show one.
    pub tls: proxy::TlsConfig,
    /// The domain whose direct subdomains are tenants' slugs.
    pub base_domain: String,
    /// Whether the control API answers on `api.<base domain>` of the data plane too, beside
    /// the tenants' own APIs. Every endpoint needs a token.
    pub api_host: bool,
    /// Whether the flags of `policies/flags.json` are evaluated for OpenFeature clients on
    /// tenants' hosts, below `/ofrep/v1/evaluate/flags` (true). Without a flag, and with
    /// false, that path is the tenants' own.
    pub ofrep: bool,
    /// Worker threads; one per usable core when absent.
    pub workers: Option<usize>,
    /// Header of a trusted proxy that carries the client's country (ISO 3166-1 alpha-2).
    #[serde(deserialize_with = "proxy::field_name")]
    pub client_country_header: Option<http::HeaderName>,
    /// Peers (addresses or networks) whose `Forwarded` and `X-Forwarded-*` are believed.
    #[serde(deserialize_with = "proxy::networks")]
    pub trusted_proxies: Vec<proxy::IpNet>,
    /// How long a stop waits for exchanges in flight, in ms: as long as the default
    /// whole-request time of a slow request, within systemd's 90 s.
    pub drain_timeout_ms: u64,
    /// Bounds on messages, times and connections.
    pub limits: Limits,
    /// When upstream endpoints are ejected and requests tried again.
    pub upstreams: proxy::UpstreamsConfig,
    /// Token issuers.
    pub jwt: JwtConfig,
    /// Whom metrics show by name.
    pub metrics: proxy::MetricsConfig,
}

impl Default for EdgeSection {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 8080))],
            tls: proxy::TlsConfig::default(),
            base_domain: "localhost".into(),
            api_host: true,
            ofrep: true,
            workers: None,
            client_country_header: None,
            trusted_proxies: Vec::new(),
            drain_timeout_ms: 30_000,
            limits: Limits::default(),
            upstreams: proxy::UpstreamsConfig::default(),
            jwt: JwtConfig::default(),
            metrics: proxy::MetricsConfig::default(),
        }
    }
}

/// `[control]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControlSection {
    /// Address of the control API, `/metrics` and the health endpoints.
    pub listen: SocketAddr,
    /// Residency group of a root tenant whose create names none; absent: it must.
    pub default_residency: Option<String>,
    /// Tenants that may be created, tombstones included: each edge holds all of them in
    /// memory, about 1 KB each. 0: none.
    pub tenants_max: usize,
    /// What becomes of a tenant at the end of its trial.
    pub trial_end: TrialEnd,
    /// Networks that tenants' webhooks may reach beside the public ones, also without TLS.
    #[serde(deserialize_with = "proxy::networks")]
    pub webhook_allow_networks: Vec<proxy::IpNet>,
    /// The mail server for notices.
    pub smtp: SmtpSection,
}

impl Default for ControlSection {
    fn default() -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 9080));
        Self {
            listen,
            default_residency: None,
            tenants_max: control::store::TENANTS_MAX_DEFAULT,
            trial_end: TrialEnd::default(),
            webhook_allow_networks: Vec::new(),
            smtp: SmtpSection::default(),
        }
    }
}

/// `[store]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreSection {
    /// `sqlite://PATH` or `postgres://LOGIN[:PASSWORD]@HOST[:PORT]/DATABASE`; a file in the
    /// data folder when absent.
    pub url: Option<String>,
}

/// `quota.url` of the dispatcher in this process.
const MEMORY: &str = "memory:";

/// `[quota]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuotaSection {
    /// `memory:`, the in-process dispatcher, or the Redis that edges share:
    /// `redis[s][+cluster]://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…][/DATABASE]`.
    pub url: String,
    /// Name of this edge among others; host name and data folder when absent.
    pub edge: Option<String>,
    /// How long a request waits for a lease, in ms, before 503.
    pub admit_wait_ms_max: u64,
    /// How long Redis may take to answer, in ms, before the edge goes on without it.
    pub redis_timeout_ms: u64,
    /// What tells one life of the Redis from another: `server`, or `connection` for one that
    /// hides `run_id` and `master_replid`.
    pub fence: FenceSection,
    /// PEM file of the authorities that a `rediss://` server's certificate comes from; the
    /// system's when absent.
    pub tls_ca: Option<PathBuf>,
    /// PEM files of this edge's own certificate and key, where the server asks for one.
    pub tls_cert: Option<PathBuf>,
    /// Its key.
    pub tls_key: Option<PathBuf>,
    /// Sessions that one process keeps alive (100,000, about 30 MB); beyond it, new ones
    /// get 503.
    pub sessions_max: usize,
}

/// `quota.fence`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FenceSection {
    /// `INFO` shows it.
    Server,
    /// A key that every connection renews; exactness across a failover is probabilistic.
    Connection,
}

impl From<FenceSection> for RedisFencing {
    fn from(section: FenceSection) -> Self {
        match section {
            FenceSection::Server => Self::Server,
            FenceSection::Connection => Self::Connection,
        }
    }
}

impl Default for QuotaSection {
    fn default() -> Self {
        Self {
            url: MEMORY.into(),
            edge: None,
            admit_wait_ms_max: 250,
            redis_timeout_ms: 25,
            fence: FenceSection::Server,
            tls_ca: None,
            tls_cert: None,
            tls_key: None,
            sessions_max: 100_000,
        }
    }
}

impl QuotaSection {
    /// The Redis that dispatches, read with its certificates; `None`: this process does.
    pub(crate) fn redis(&self) -> Result<Option<RedisTarget>, (&'static str, String)> {
        let read = |path: &Option<PathBuf>, key: &'static str| {
            let path = path.as_ref();
            path.map(|path| {
                std::fs::read(path).map_err(|e| (key, format!("{}: {e}", path.display())))
            })
            .transpose()
        };
        let ca_pem = read(&self.tls_ca, "quota.tls_ca")?;
        let certificate = read(&self.tls_cert, "quota.tls_cert")?;
        let client_pem = match (certificate, read(&self.tls_key, "quota.tls_key")?) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => return Err(("quota.tls_key", "tls_cert needs its key".into())),
            (None, Some(_)) => {
                return Err(("quota.tls_cert", "tls_key needs its certificate".into()));
            }
        };
        if self.url == MEMORY {
            return Ok(None);
        }
        let target = RedisTarget::parse(&self.url, RedisTls { ca_pem, client_pem });
        let target = target.and_then(|target| target.fenced(self.fence.into()));
        target.map(Some).map_err(|error| {
            if error == TargetError::Fence {
                return ("quota.fence", error.to_string());
            }
            let or = if error == TargetError::Scheme { ", or be memory:" } else { "" };
            ("quota.url", format!("{error}{or}"))
        })
    }
}

/// `[policies]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PoliciesSection {
    /// Folder of the declarations.
    pub dir: PathBuf,
    /// Whether a file change reloads them; SIGHUP always does.
    pub watch: bool,
}

impl Default for PoliciesSection {
    fn default() -> Self {
        Self { dir: "policies".into(), watch: true }
    }
}

/// `[data]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataSection {
    /// Folder of the database, the lease file and local secrets.
    pub dir: PathBuf,
    /// Folder of the keys that seal secrets and sign audit heads; `keys` in the data folder
    /// when absent. Edges that share a database need the same keys.
    pub keys_dir: Option<PathBuf>,
}

impl Default for DataSection {
    fn default() -> Self {
        Self { dir: "data".into(), keys_dir: None }
    }
}

/// `[sandbox]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SandboxSection {
    /// Guest instances alive at once; memory is reserved for each.
    pub slots: u32,
    /// Networks that policies' calls may reach beside the public ones, also without TLS.
    #[serde(deserialize_with = "proxy::networks")]
    pub outbound_allow_networks: Vec<proxy::IpNet>,
}

impl Default for SandboxSection {
    fn default() -> Self {
        Self { slots: sandbox::SandboxConfig::default().slots, outbound_allow_networks: Vec::new() }
    }
}

/// `[log]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSection {
    /// `text` for people, `json` for machines.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, or directives like `info,access=warn`.
    pub level: String,
}

impl Default for LogSection {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".into() }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// One address, or a list of them.
fn one_or_many<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<SocketAddr>, D::Error> {
    let items = match Value::deserialize(from)? {
        Value::Array(items) => items,
        one => vec![one],
    };
    items
        .into_iter()
        .map(|item| serde_json::from_value(item).map_err(serde::de::Error::custom))
        .collect()
}

/// Why there is no config: one line each.
#[derive(Debug)]
pub struct ConfigErrors {
    file: String,
    errors: Vec<strict::KeyError>,
    /// Keys that the environment set, in place of the file.
    from_env: Vec<String>,
}

impl std::fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, error) in self.errors.iter().enumerate() {
            let newline = if i == 0 { "" } else { "\n" };
            let by_env = self.from_env.iter().any(|key| error.key.starts_with(key.as_str()));
            let source = if by_env { "environment" } else { &self.file };
            write!(f, "{newline}{source}: {}: {}", error.key, error.reason)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl Config {
    /// Reads `file` (the defaults when absent) and lays the environment over it.
    ///
    /// # Errors
    /// Everything that is wrong, with its key.
    pub fn load(
        file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        let name = file.map_or("environment".into(), |file| file.display().to_string());
        let mut from_env = Vec::new();
        let fail = |errors, from_env| ConfigErrors { file: name.clone(), errors, from_env };
        let text = match file {
            Some(file) => std::fs::read_to_string(file).map_err(|error| {
                let error = strict::KeyError { key: ".".into(), reason: error.to_string() };
                fail(vec![error], Vec::new())
            })?,
            None => String::new(),
        };
        let mut value = strict::toml_value(&text).map_err(|error| fail(vec![error], Vec::new()))?;
        for (name, text) in env {
            if let Some(path) = name.strip_prefix(ENV_PREFIX) {
                let path = path.to_ascii_lowercase();
                set(&mut value, &path, env_value(text));
                from_env.push(path.replace("__", "."));
            }
        }
        let config: Self = match strict::read(value) {
            Ok(config) => config,
            Err(errors) => return Err(fail(errors, from_env)),
        };
        let errors = config.check();
        if errors.is_empty() { Ok(config) } else { Err(fail(errors, from_env)) }
    }

    /// The database.
    #[must_use]
    pub fn store_url(&self) -> String {
        self.store
            .url
            .clone()
            .unwrap_or_else(|| format!("sqlite://{}", self.data.dir.join("edge.db").display()))
    }

    /// The keys that seal secrets and sign audit heads; those that are not there are made.
    ///
    /// # Errors
    /// What is wrong with which file.
    pub fn keys(&self) -> Result<control::keys::Keys, control::keys::KeyFileError> {
        let beside = || self.data.dir.join("keys");
        control::keys::Keys::of_folder(&self.data.keys_dir.clone().unwrap_or_else(beside))
    }

    /// What a type alone cannot say.
    fn check(&self) -> Vec<strict::KeyError> {
        let mut errors = Vec::new();
        let mut check = |holds: bool, key: &str, reason: &str| {
            if !holds {
                errors.push(strict::KeyError { key: key.into(), reason: reason.into() });
            }
        };
        let domain = &self.edge.base_domain;
        let canonical = matches!(
            model::host::parse_authority(domain),
            Ok(model::host::Host::Name(name)) if *name == **domain
        );
        let listens = !self.edge.listen.is_empty() || !self.edge.tls.listen.is_empty();
        check(listens, "edge.listen", "needs at least one address, or edge.tls.listen does");
        let tls = self.edge.tls.check();
        check(tls.is_ok(), "edge.tls", &tls.err().unwrap_or_default());
        check(canonical, "edge.base_domain", "must be a domain in lower case, without port or dot");
        check(self.edge.workers != Some(0), "edge.workers", "must be at least 1");
        let known = |url: &String| STORE_SCHEMES.iter().any(|scheme| url.starts_with(scheme));
        check(
            self.store.url.as_ref().is_none_or(known),
            "store.url",
            "must be sqlite://PATH or postgres://LOGIN[:PASSWORD]@HOST[:PORT]/DATABASE",
        );
        check(
            self.quota.sessions_max > 0,
            "quota.sessions_max",
            "must be at least 1; routes without a `session` need none",
        );
        check(self.sandbox.slots > 0, "sandbox.slots", "must be at least 1");
        for (key, reason) in self.plugins.flaws() {
            check(false, key, &reason);
        }
        let issuers = self.edge.jwt.check().map_err(|error| error.to_string());
        check(issuers.is_ok(), "edge.jwt.issuer", &issuers.err().unwrap_or_default());
        let metrics = self.edge.metrics.flaw();
        check(metrics.is_none(), "edge.metrics", &metrics.unwrap_or_default());
        if let Err((key, reason)) = self.control.notify() {
            check(false, key, &reason);
        }
        match self.quota.redis() {
            Err((key, reason)) => check(false, key, &reason),
            Ok(Some(_)) => check(
                self.store_url().starts_with("postgres"),
                "store.url",
                "edges that share a Redis share a database too: must be postgres://…",
            ),
            Ok(None) => {}
        }
        check(self.quota.redis_timeout_ms > 0, "quota.redis_timeout_ms", "must be at least 1");
        errors
    }
}

/// Numbers, booleans and lists are read as TOML has them; anything else is text.
fn env_value(text: String) -> Value {
    let parsed: Option<toml::Table> = toml::from_str(&format!("v = {text}")).ok();
    match parsed.and_then(|mut table| table.remove("v")).map(serde_json::to_value) {
        Some(Ok(value @ (Value::Bool(_) | Value::Number(_) | Value::Array(_)))) => value,
        _ => Value::String(text),
    }
}

/// Sets `a__b__c` in a tree.
fn set(value: &mut Value, path: &str, leaf: Value) {
    let mut at = value;
    let mut parts = path.split("__").peekable();
    while let Some(part) = parts.next() {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        let Value::Object(members) = at else { return };
        let next = members.entry(part).or_insert(Value::Null);
        if parts.peek().is_none() {
            *next = leaf;
            return;
        }
        at = next;
    }
}

/// The admin token that the environment sets.
///
/// # Errors
/// It is not text.
pub fn admin_token_from_env() -> anyhow::Result<Option<Secret>> {
    match std::env::var(ENV_ADMIN_TOKEN) {
        Ok(token) => Ok(Some(token).filter(|token| !token.is_empty()).map(Secret::new)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => anyhow::bail!("{ENV_ADMIN_TOKEN} is not UTF-8"),
    }
}

/// The variables of the environment that are text; ours are.
pub fn env() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn load(text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("edge.toml");
        std::fs::write(&file, text).expect("a file");
        Config::load(Some(&file), env.iter().map(|(k, v)| ((*k).into(), (*v).into())))
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let config = load(
            "[edge]\nlisten = \"127.0.0.1:1\"\nworkers = 1",
            &[
                ("LEANVIBE_EDGE__EDGE__LISTEN", "127.0.0.1:2"),
                ("LEANVIBE_EDGE__EDGE__WORKERS", "3"),
                ("LEANVIBE_EDGE__STORE__URL", "sqlite://x.db"),
                ("LEANVIBE_EDGE_ADMIN_TOKEN", "not a key of the file"),
            ],
        )
        .expect("a config");
        assert_eq!(config.edge.listen, ["127.0.0.1:2".parse().expect("an address")]);
        assert_eq!(config.edge.workers, Some(3));
        assert_eq!(config.store_url(), "sqlite://x.db");
    }

    #[test]
    fn all_errors_come_together_with_their_keys() {
        let errors = load(
            "[edge]\nlistn = 1\nworkers = \"x\"\n[contrl]",
            &[("LEANVIBE_EDGE__DATA__DRI", "x")],
        )
        .expect_err("errors")
        .to_string();
        for key in ["edge.listn", "edge.workers", "contrl", "data.dri"] {
            assert!(errors.contains(&format!(": {key}: ")), "{key} in {errors}");
        }
    }

    #[test]
    fn the_example_documents_every_key_with_its_default() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/edge.example.toml");
        let example = Config::load(Some(Path::new(file)), std::iter::empty()).expect("it is valid");
        assert_eq!(format!("{example:?}"), format!("{:?}", Config::default()));
        let text = std::fs::read_to_string(file).expect("text");
        // `Debug` names every field; `issuers` is spelt `issuer` in the file.
        let shown = format!("{:?}", Config::default());
        let fields = shown.split([' ', '{', '(']).filter_map(|word| word.strip_suffix(':'));
        for field in fields.filter(|field| *field != "issuers") {
            let documented = text.lines().any(|line| {
                let line = line.trim_start_matches("# ");
                line.starts_with(&format!("{field} =")) || line.contains(&format!("{field}]"))
            });
            assert!(documented, "{field} is not in the example");
        }
    }

    #[test]
    fn an_issuer_that_cannot_be_used_is_refused_before_anything_starts() {
        let issuer = "[[edge.jwt.issuer]]\nname = \"idp\"\nissuer = \"i\"\naudience = \"a\"\n";
        let keys = "jwks_url = \"http://idp.example/keys\"\nalgorithms = [\"ES256\"]\n";
        let errors = load(&format!("[edge.metrics]\ntenant_top_k = 1001\n{issuer}{keys}"), &[])
            .expect_err("errors")
            .to_string();
        for part in ["edge.jwt.issuer: ", "\"idp\"", "must be https", "edge.metrics: "] {
            assert!(errors.contains(part), "{part} in {errors}");
        }
        let good = keys.replace("http:", "https:");
        assert!(load(&format!("{issuer}{good}"), &[]).is_ok());
    }

    #[test]
    fn a_fence_by_connections_is_read_and_is_not_for_a_cluster() {
        let shared = "[store]\nurl = \"postgres://h/d\"\n[quota]\nfence = \"connection\"\n";
        let config = load(&format!("{shared}url = \"redis://h\"\n"), &[]).expect("a config");
        assert!(config.quota.redis().is_ok_and(|target| target.is_some()));
        let errors = load(&format!("{shared}url = \"redis+cluster://h\"\n"), &[]);
        let errors = errors.expect_err("an error").to_string();
        assert!(errors.contains("quota.fence") && errors.contains("Cluster"), "{errors}");
        let errors = load("[quota]\nfence = \"hope\"\n", &[]).expect_err("an error").to_string();
        assert!(errors.contains("fence"), "{errors}");
    }

    #[test]
    fn redis_is_refused_by_name_until_it_comes_and_so_are_unknown_stores() {
        let errors = load("[quota]\nurl = \"memcached://h\"\n[store]\nurl = \"mysql://h/d\"", &[])
            .expect_err("errors")
            .to_string();
        assert!(errors.contains("quota.url") && errors.contains("store.url"), "{errors}");
    }

    #[test]
    fn tenants_are_kept_in_sqlite_or_postgresql() {
        for url in ["sqlite://x.db", "postgres://edge@h/d", "postgresql://edge:pw@h:5432/d"] {
            let config = load(&format!("[store]\nurl = \"{url}\""), &[]).expect("a config");
            assert_eq!(config.store_url(), url);
        }
    }

    #[test]
    fn the_password_of_a_store_is_in_no_refusal() {
        let refused = load("[store]\nurl = \"postgre://edge:hunter2@h/d\"", &[]);
        assert!(!refused.expect_err("errors").to_string().contains("hunter2"));
    }
}
