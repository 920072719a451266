//! `plugin.toml`: what a plugin is called, what it exports and what it asks for.
//!
//! Written by the author, read by the author's commands, and sent along with an upload (as
//! TOML or as the same document in JSON). Invariant: a [`Manifest`] that exists is free of
//! contradictions; every problem is reported at once, by key. Names of capabilities and of
//! limits are not listed here: the sandbox, which has them, checks those.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{
    name::{MetricName, Origin, PluginName},
    schema::ConfigSchema,
};
use crate::policy::{Hooks, OnFailure};

/// Bytes of a manifest: written by hand.
pub const MANIFEST_BYTES_MAX: usize = 64 * 1024;
/// Characters of a description: one line of a table.
const DESCRIPTION_CHARS_MAX: usize = 200;
/// Entries of any list: a person reads them all.
const ENTRIES_MAX: usize = 64;

/// A plugin as its author describes it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Manifest {
    /// Unique within its owner.
    pub name: PluginName,
    /// One line for people.
    pub description: String,
    /// The hooks that the component exports.
    pub hooks: BTreeSet<Hook>,
    /// Capabilities that it needs, by the names of their interfaces in the contract.
    pub capabilities: BTreeSet<String>,
    /// Origins that it calls; asks for the capability `outbound`.
    pub origins: BTreeSet<Origin>,
    /// Metrics that it writes; asks for the capability `telemetry`.
    pub metrics: BTreeSet<MetricName>,
    /// What a failure means, unless whoever binds it says otherwise.
    pub on_failure: OnFailure,
    /// Limits that it asks for, by the sandbox's names: `deadline_ms`, `memory_bytes`, ….
    pub limits: BTreeMap<String, u64>,
    /// The form of its config.
    pub config: ConfigSchema,
    /// How it is built; of no meaning to an edge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build: Option<Build>,
}

/// A hook, by the name of its interface in the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hook {
    /// `on-request`.
    RequestHook,
    /// `on-request-body`.
    RequestBodyHook,
    /// `on-response`.
    ResponseHook,
}

/// `[build]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// The toolchain that makes the component.
    pub language: Language,
    /// A program with its arguments that makes `dist/NAME.wasm` in the toolchain's place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
}

/// A language that has a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// wit-bindgen.
    Rust,
    /// componentize-qjs.
    Js,
    /// componentize-py.
    Python,
    /// wit-bindgen and zig.
    C,
}

/// One thing wrong with a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ManifestProblem {
    /// Dotted path of the key; `.` for the document itself.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Manifest {
    /// Reads `plugin.toml`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn from_toml(text: &str) -> Result<Self, Vec<ManifestProblem>> {
        if text.len() > MANIFEST_BYTES_MAX {
            return Err(whole(format!("has more than {MANIFEST_BYTES_MAX} bytes")));
        }
        let table: toml::Table = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let line = text.get(..start).unwrap_or_default().matches('\n').count() + 1;
            whole(format!("line {line}: {}", error.message().replace('\n', " ")))
        })?;
        let value = serde_json::to_value(table).map_err(|error| whole(error.to_string()))?;
        Self::from_value(value)
    }

    /// Reads the same document as JSON.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn from_value(value: Value) -> Result<Self, Vec<ManifestProblem>> {
        let Value::Object(members) = value else {
            return Err(whole("is not a table".into()));
        };
        let mut reader = Reader { members, problems: Vec::new() };
        let read = reader.manifest();
        reader.refuse_the_rest();
        match read {
            Some(manifest) if reader.problems.is_empty() => Ok(manifest),
            _ => Err(reader.problems),
        }
    }

    /// The hooks in the form of the port.
    #[must_use]
    pub fn port_hooks(&self) -> Hooks {
        Hooks {
            request: self.hooks.contains(&Hook::RequestHook),
            request_body: self.hooks.contains(&Hook::RequestBodyHook),
            response: self.hooks.contains(&Hook::ResponseHook),
        }
    }
}

fn whole(reason: String) -> Vec<ManifestProblem> {
    vec![ManifestProblem { key: ".".into(), reason }]
}

/// Takes the document apart, key by key, and keeps what was wrong.
struct Reader {
    members: Map<String, Value>,
    problems: Vec<ManifestProblem>,
}

impl Reader {
    fn manifest(&mut self) -> Option<Manifest> {
        // Each is read before any is missed, so that all problems are found.
        let name = self.required("name");
        let description: Option<String> = self.required("description");
        let hooks = self.set("hooks");
        let capabilities = self.set("capabilities");
        let origins = self.set("origins");
        let metrics = self.set("metrics");
        let on_failure = self.optional("on_failure");
        let limits = self.limits();
        let config = self.config();
        let build = self.optional("build");
        let manifest = Manifest {
            name: name?,
            description: description?,
            hooks,
            capabilities,
            origins,
            metrics,
            on_failure: on_failure.unwrap_or_default(),
            limits,
            config,
            build,
        };
        self.check(&manifest);
        Some(manifest)
    }

    /// What no key shows by itself.
    fn check(&mut self, manifest: &Manifest) {
        let chars = manifest.description.chars().count();
        if chars == 0 || chars > DESCRIPTION_CHARS_MAX || manifest.description.contains('\n') {
            let reason = format!("is not one line of 1 to {DESCRIPTION_CHARS_MAX} characters");
            self.add("description", reason);
        }
        if manifest.hooks.is_empty() && !self.has_problem_of("hooks") {
            let reason = "names no hook; there are request-hook, request-body-hook, response-hook";
            self.add("hooks", reason);
        }
        let asks = |capability: &str| manifest.capabilities.contains(capability);
        if !manifest.origins.is_empty() && !asks("outbound") {
            self.add("origins", "need the capability \"outbound\"; add it to capabilities");
        }
        if !manifest.metrics.is_empty() && !asks("telemetry") {
            self.add("metrics", "need the capability \"telemetry\"; add it to capabilities");
        }
    }

    fn required<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        if !self.members.contains_key(key) {
            self.add(key, "is missing");
            return None;
        }
        self.optional(key)
    }

    fn optional<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        let value = self.members.remove(key)?;
        self.parse(key, value)
    }

    fn parse<T: DeserializeOwned>(&mut self, key: &str, value: Value) -> Option<T> {
        match serde_json::from_value(value) {
            Ok(read) => Some(read),
            Err(error) => {
                self.add(key, error.to_string());
                None
            }
        }
    }

    /// A list whose entries are told apart; each wrong one is named by its place.
    fn set<T: DeserializeOwned + Ord>(&mut self, key: &str) -> BTreeSet<T> {
        let entries: Vec<Value> = self.optional(key).unwrap_or_default();
        if entries.len() > ENTRIES_MAX {
            self.add(key, format!("has more than {ENTRIES_MAX} entries"));
            return BTreeSet::new();
        }
        let mut set = BTreeSet::new();
        for (i, entry) in entries.into_iter().enumerate() {
            let place = format!("{key}[{i}]");
            let text = entry.to_string();
            let Some(read) = self.parse(&place, entry) else { continue };
            if !set.insert(read) {
                self.add(&place, format!("{text} stands there already"));
            }
        }
        set
    }

    fn limits(&mut self) -> BTreeMap<String, u64> {
        let entries: Map<String, Value> = self.optional("limits").unwrap_or_default();
        let mut limits = BTreeMap::new();
        for (name, value) in entries {
            match value.as_u64() {
                Some(limit) if limit > 0 => drop(limits.insert(name, limit)),
                _ => self.add(&format!("limits.{name}"), "is no whole number from 1"),
            }
        }
        limits
    }

    fn config(&mut self) -> ConfigSchema {
        let Some(value) = self.members.remove("config") else { return ConfigSchema::default() };
        ConfigSchema::parse(value).unwrap_or_else(|problems| {
            for problem in problems {
                let key = match problem.path.as_str() {
                    "" => "config".to_owned(),
                    path => format!("config.{path}"),
                };
                self.add(&key, problem.reason);
            }
            ConfigSchema::default()
        })
    }

    fn refuse_the_rest(&mut self) {
        for key in std::mem::take(&mut self.members).into_iter().map(|(key, _)| key) {
            let known = "name, description, hooks, capabilities, origins, metrics, on_failure, \
                         limits, config, build";
            self.add(&key, format!("is no key of a manifest; there are {known}"));
        }
    }

    fn has_problem_of(&self, key: &str) -> bool {
        self.problems.iter().any(|problem| problem.key.starts_with(key))
    }

    fn add(&mut self, key: &str, reason: impl Into<String>) {
        self.problems.push(ManifestProblem { key: key.to_owned(), reason: reason.into() });
    }
}

#[cfg(test)]
mod tests;
