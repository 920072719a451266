//! Plugins and versions as JSON.

use model::{
    plugin::{PluginScope, VersionState},
    policy::OnFailure,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::store::{Activation, StoredPlugin, StoredVersion};

/// A plugin.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Plugin")]
pub(super) struct PluginView {
    name: String,
    /// `tenant`, `plan` or `platform`.
    scope: &'static str,
    /// The name that logs and metrics have for it.
    policy: String,
    /// False: it runs for nobody.
    enabled: bool,
    /// Number of the version that decides.
    active_version: Option<u64>,
    /// Lower runs first.
    order: i32,
    /// What a failure means: `closed` or `open`; `null` is what the version says.
    on_failure: Option<OnFailure>,
    created_at: String,
    /// Of settings and switch, as in the ETag.
    version: u64,
    /// The newest first.
    versions: Vec<VersionView>,
}

/// A version.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "PluginVersion")]
pub(super) struct VersionView {
    number: u64,
    state: VersionState,
    /// Of the component, hexadecimal.
    sha256: String,
    size_bytes: u64,
    /// What it exports: `request-hook`.
    hooks: Vec<String>,
    /// Bytes of its largest memory at the start of an instance.
    memory_bytes: u64,
    /// What it says of itself.
    manifest: Value,
    /// How its probe went.
    log: Vec<String>,
    created_at: String,
    created_by: String,
}

/// What became of a plugin.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "PluginStep")]
pub(super) struct StepView {
    seq: u64,
    at: String,
    actor: String,
    /// `activate`, `rollback`, `enable`, `disable`, `remove`.
    action: String,
    /// Number of the version that decided before.
    from: Option<u64>,
    /// Of the one that decides since.
    to: Option<u64>,
}

impl PluginView {
    pub(super) fn of(plugin: &StoredPlugin) -> Self {
        Self {
            name: plugin.name.to_string(),
            scope: match plugin.scope {
                PluginScope::Tenant(_) => "tenant",
                PluginScope::Plan(_) => "plan",
                PluginScope::Platform => "platform",
            },
            policy: format!("{}{}", plugin.scope.prefix(), plugin.name),
            enabled: plugin.enabled,
            active_version: plugin.active().map(|active| active.number),
            order: plugin.settings.order,
            on_failure: plugin.settings.on_failure,
            created_at: plugin.created_at.rfc3339(),
            version: plugin.version,
            versions: plugin.versions.iter().map(VersionView::of).collect(),
        }
    }
}

impl VersionView {
    pub(super) fn of(version: &StoredVersion) -> Self {
        Self {
            number: version.number,
            state: version.state,
            sha256: version.component.to_string(),
            size_bytes: version.size,
            hooks: version.hooks.clone(),
            memory_bytes: version.memory_bytes,
            manifest: serde_json::to_value(&version.manifest).unwrap_or_default(),
            log: version.log.clone(),
            created_at: version.created_at.rfc3339(),
            created_by: version.created_by.clone(),
        }
    }
}

impl StepView {
    pub(super) fn of(step: Activation) -> Self {
        let Activation { seq, at, actor, action, from, to } = step;
        Self { seq, at: at.rfc3339(), actor, action, from, to }
    }
}
