//! What an upload would say to a component, said here: load, hooks, limits, config.
//!
//! Invariant: the checks are the sandbox's own and the manifest's; what is refused here is
//! refused by an edge, for the same reason.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use anyhow::{Context, Result};
use model::{
    clock::{Clock, SystemClock},
    manifest::{Manifest, ManifestProblem},
    policy::Hooks,
    secret::{self, Secret},
};
use sandbox::{BindingSpec, Instances, Sandbox, SandboxConfig, Version, flags::Flags};
use serde::Serialize;
use serde_json::{Map, Value};

use super::asks;

/// What was found. Without problems an edge takes it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The file.
    pub file: String,
    /// Its bytes.
    pub bytes: usize,
    /// Whether there is no problem.
    pub valid: bool,
    /// SHA-256, once it loaded.
    pub digest: Option<String>,
    /// The hooks that it exports, by their interfaces.
    pub hooks: Vec<&'static str>,
    /// Bytes of its largest memory when an instance starts.
    pub initial_memory_bytes: Option<u64>,
    /// What holds, but costs.
    pub notes: Vec<String>,
    /// Everything that was found wrong, by key; `component` is the file itself.
    pub problems: Vec<ManifestProblem>,
}

/// For compiling at an author's machine: there is nobody else to be polite to.
#[must_use]
pub fn sandbox_config() -> SandboxConfig {
    SandboxConfig { compile_parallel: true, ..SandboxConfig::default() }
}

/// Checks a component, and with a manifest that the two agree and that the config is
/// accepted.
///
/// # Errors
/// A file that cannot be read, or a machine that the sandbox does not start on.
pub async fn check(
    file: &Path,
    manifest: Option<&Manifest>,
    config: Map<String, Value>,
) -> Result<Report> {
    let bytes = std::fs::read(file).with_context(|| file.display().to_string())?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let settings = sandbox_config();
    let resident = settings.memory_resident_bytes as u64;
    let sandbox = Sandbox::new(settings, clock)?;
    let mut report = Report {
        file: file.display().to_string(),
        bytes: bytes.len(),
        valid: false,
        digest: None,
        hooks: Vec::new(),
        initial_memory_bytes: None,
        notes: Vec::new(),
        problems: Vec::new(),
    };
    match sandbox.load(&bytes) {
        Ok(version) => {
            report.describe(&version, resident);
            if let Some(manifest) = manifest {
                report.hold_against(manifest, &version);
                report.bind(&sandbox, &version, manifest, config).await;
            }
        }
        Err(error) => report.add("component", error.to_string()),
    }
    report.valid = report.problems.is_empty();
    Ok(report)
}

impl Report {
    fn add(&mut self, key: &str, reason: impl Into<String>) {
        self.problems.push(ManifestProblem { key: key.into(), reason: reason.into() });
    }

    fn describe(&mut self, version: &Version, resident: u64) {
        self.digest = Some(version.digest().to_owned());
        self.hooks = names(version.hooks());
        let memory = version.initial_memory_bytes();
        self.initial_memory_bytes = Some(memory);
        if memory > resident {
            self.notes.push(format!(
                "starts with {} KiB of memory; above {} KiB a fresh instance for each request \
                 costs more",
                memory >> 10,
                resident >> 10,
            ));
        }
    }

    fn hold_against(&mut self, manifest: &Manifest, version: &Version) {
        let (said, found) = (names(manifest.port_hooks()), names(version.hooks()));
        for hook in said.iter().filter(|hook| !found.contains(hook)) {
            self.add("hooks", format!("names {hook}, which the component does not export"));
        }
        for hook in found.iter().filter(|hook| !said.contains(hook)) {
            self.add("hooks", format!("does not name {hook}, which the component exports"));
        }
        let asked = manifest.limits.get("memory_bytes");
        if let Some(asked) = asked.filter(|asked| **asked < version.initial_memory_bytes()) {
            let needs = version.initial_memory_bytes();
            self.add(
                "limits.memory_bytes",
                format!("is {asked}, but the component starts with {needs}"),
            );
        }
    }

    async fn bind(
        &mut self,
        sandbox: &Arc<Sandbox>,
        version: &Arc<Version>,
        manifest: &Manifest,
        config: Map<String, Value>,
    ) {
        let config = Value::Object(config);
        for problem in manifest.config.check(&config) {
            self.add(&format!("config.json {}", problem.path), problem.reason);
        }
        let (grants, limits) = match asks::settings(manifest) {
            Ok(settings) => settings,
            Err(problems) => return self.problems.extend(problems),
        };
        if !self.problems.is_empty() {
            return;
        }
        let spec = BindingSpec {
            policy: manifest.name.as_str().into(),
            config: with_stand_ins(config),
            grants,
            limits,
            instances: Instances::Fresh,
            flags: Arc::new(Flags::default()),
            rate_limits: Arc::default(),
            origins: Arc::default(),
        };
        if let Err(error) = sandbox.bind(version, spec).await {
            self.add("component", error.to_string());
        }
    }
}

/// The config with some text in place of each secret, which only a tenant has.
fn with_stand_ins(config: Value) -> Value {
    let mut secrets: BTreeMap<String, Secret> = BTreeMap::new();
    loop {
        let mut resolved = config.clone();
        match secret::resolve_references(&mut resolved, &secrets) {
            Ok(_) => return resolved,
            Err(name) if secrets.contains_key(&name) => return config,
            Err(name) => drop(secrets.insert(name, Secret::new("stands in for a secret"))),
        }
    }
}

/// Hooks by the names of their interfaces.
fn names(hooks: Hooks) -> Vec<&'static str> {
    let all = [
        ("request-hook", hooks.request),
        ("request-body-hook", hooks.request_body),
        ("response-hook", hooks.response),
    ];
    all.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn what_is_no_component_is_a_named_problem_not_an_error() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("a.wasm");
        for (bytes, reason) in
            [(&b"PK\x03\x04"[..], "zip"), (b"", "empty"), (b"\0asm\x0d\0\x01\0", "no hook")]
        {
            std::fs::write(&file, bytes).expect("a file");
            let report = check(&file, None, Map::new()).await.expect("a report");
            assert!(!report.valid);
            assert_eq!(report.problems[0].key, "component");
            assert!(report.problems[0].reason.contains(reason), "{:?}", report.problems);
        }
        assert!(check(&dir.path().join("b.wasm"), None, Map::new()).await.is_err());
    }

    #[test]
    fn every_secret_of_a_config_has_a_stand_in() {
        let config = json!({ "a": { "$secret": "x" }, "b": [{ "$secret": "y" }], "c": 1 });
        let resolved = with_stand_ins(config);
        assert!(resolved["a"].is_string() && resolved["b"][0].is_string());
        assert_eq!(resolved["c"], 1);
    }
}
