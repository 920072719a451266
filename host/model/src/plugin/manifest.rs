//! What a version says of itself: uploaded with the component, immutable like it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Budget;
use crate::policy::OnFailure;

/// The manifest of a version. What it leaves out is off, or the plan's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Manifest {
    /// One line for people.
    pub description: String,
    /// Interfaces beyond the message that it asks for: `keyvalue`, `telemetry`.
    pub capabilities: Vec<String>,
    /// Origins that it calls: `https://api.example.com`.
    pub origins: Vec<String>,
    /// Names of the metrics that it makes.
    pub metrics: Vec<String>,
    /// JSON Schema of its config, for people and tools; `configure` is what decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_schema: Option<Value>,
    /// What a failure means unless the plugin is set otherwise.
    pub on_failure: OnFailure,
    /// How its instances are used.
    pub instances: InstancesWish,
    /// What it may use, where that is less than its plan allows.
    pub limits: Budget,
}

/// How instances of a version are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum InstancesWish {
    /// A new one per request.
    #[default]
    Fresh,
    /// One serves several requests of one tenant.
    Reuse,
}
