//! Golden cases: for each policy, requests with the decision that must come out.
//!
//! Files `policies/<policy>/cases/*.toml` (or `.json`), run against the real component in the real
//! sandbox by `leanvibe-edge check` and by the tests. `policies/README.md` has the
//! format. Invariant: a case that cannot be run is a failure, never skipped.

mod case;
mod expect;

use std::{path::Path, sync::Arc};

use anyhow::{Result, anyhow};
use model::{
    clock::{Clock, SystemClock},
    policy::Plugin,
    secret,
};
use sandbox::{BindingSpec, Sandbox, SandboxConfig};
use serde_json::Value;

use crate::{declare::Declarations, declare::PolicyDeclaration, publish, strict};

use self::case::Case;

/// How the files of cases in JSON end; the others are TOML.
const JSON: &str = ".json";

/// One case and how it went.
#[derive(Debug)]
pub struct Outcome {
    /// File, relative to the policies folder.
    pub file: String,
    /// The case's own name.
    pub name: String,
    /// What differed; `None` when it passed.
    pub failure: Option<String>,
}

/// All cases of a folder.
#[derive(Debug)]
pub struct Report {
    /// In the order of their files.
    pub outcomes: Vec<Outcome>,
}

impl Report {
    /// How many failed.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.outcomes.iter().filter(|outcome| outcome.failure.is_some()).count()
    }
}

/// Runs every golden case below `dir`.
///
/// # Errors
/// Declarations that do not hold, or a component that does not load.
pub async fn run(dir: &Path) -> Result<Report> {
    run_with(dir, SandboxConfig::default()).await
}

/// The same in a sandbox of these settings.
///
/// # Errors
/// As [`run`].
pub async fn run_with(dir: &Path, config: SandboxConfig) -> Result<Report> {
    let declared =
        Declarations::load(dir).map_err(|problems| anyhow!(publish::lines(dir, &problems)))?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let rates = quota::Rates::alone(Arc::clone(&clock));
    let sandbox = Sandbox::with_limiter(config, clock, Some(rates))?;
    let mut outcomes = Vec::new();
    for (name, policy) in &declared.policies {
        let version = sandbox
            .load(&std::fs::read(&policy.component)?)
            .map_err(|error| anyhow!("{}: {error}", policy.component.display()))?;
        for file in case_files(&dir.join(name).join("cases"))? {
            let path = format!("{name}/cases/{file}");
            let run = Run {
                declared: &declared,
                sandbox: &sandbox,
                policy: name,
                spec: policy,
                version: &version,
            };
            let (case_name, failure) = match read(&dir.join(&path)) {
                Ok(case) => (case.name.clone(), run.case(case).await.err()),
                Err(error) => (String::new(), Some(error)),
            };
            outcomes.push(Outcome { file: path, name: case_name, failure });
        }
    }
    Ok(Report { outcomes })
}

struct Run<'a> {
    declared: &'a Declarations,
    sandbox: &'a Arc<Sandbox>,
    policy: &'a str,
    spec: &'a PolicyDeclaration,
    version: &'a Arc<sandbox::Version>,
}

impl Run<'_> {
    async fn case(&self, case: Case) -> Result<(), String> {
        let plugin = match self.bind(&case).await {
            Ok(plugin) => plugin,
            Err(error) => return case.expect.check_bind_failure(&error),
        };
        let misplaced = case.expect.misplaced(case.response.is_some());
        if !misplaced.is_empty() {
            return Err(format!("expect: {} cannot be checked here", misplaced.join(", ")));
        }
        let body = case.request.body.clone();
        if body.is_some() && !plugin.hooks().request_body {
            return Err("request.body: the policy has no body hook".into());
        }
        let exchange = case.exchange(self.declared)?;
        if exchange.response.is_some() {
            let (exchange, decision) = plugin.on_response(exchange).await;
            return case.expect.check_response(&exchange, decision);
        }
        let (exchange, decision) = plugin.on_request(exchange).await;
        match (body, plugin.hooks().request_body, &decision) {
            (Some(body), true, Ok(model::policy::Decision::Continue)) => {
                let (exchange, decision) = plugin.on_request_body(exchange, body.into()).await;
                case.expect.check_body(&exchange, decision)
            }
            _ => case.expect.check_request(&exchange, decision),
        }
    }

    async fn bind(&self, case: &Case) -> Result<Arc<dyn Plugin>, String> {
        let mut config = self.spec.config.clone();
        publish::merge::merge(&mut config, &case.config);
        let mut config = Value::Object(config);
        secret::resolve_references(&mut config, &case.tenant.secrets())
            .map_err(|name| format!("the case's tenant has no secret `{name}`"))?;
        let spec = BindingSpec {
            policy: self.policy.into(),
            config,
            grants: self.spec.grants,
            limits: self.spec.limits.clone(),
            instances: self.spec.instances,
            flags: Arc::clone(&self.declared.flags),
            rate_limits: Arc::clone(&self.spec.rate_limits),
            origins: Arc::clone(&self.spec.origins),
        };
        self.sandbox.bind(self.version, spec).await.map_err(|error| error.to_string())
    }
}

fn case_files(folder: &Path) -> Result<Vec<String>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".toml") || name.ends_with(JSON) {
            files.push(name);
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<Case, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let is_json = path.to_string_lossy().ends_with(JSON);
    let value = if is_json { strict::json_value(&text) } else { strict::toml_value(&text) };
    value.map_err(|error| vec![error]).and_then(strict::read).map_err(|errors| {
        let lines = errors.iter().map(|error| format!("{}: {}", error.key, error.reason));
        lines.collect::<Vec<_>>().join("; ")
    })
}
