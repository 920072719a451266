//! Plugins that are uploaded: whose they are, what a version says of itself, where it
//! stands, and the port that admits it.
//!
//! The control plane keeps them, the edge runs them; `policies/` declares policies of the
//! operator beside them. Invariant: a version never changes; what changes is where it
//! stands ([`VersionState`]), and the settings of its plugin. To add a state or a way
//! between two, change `plugin/state.rs`; everything else asks it.

mod inspect;
mod manifest;
mod state;
mod terms;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use self::{
    inspect::{Admitted, Candidate, Inspector, Refusal, Rehearsed},
    manifest::{InstancesWish, Manifest},
    state::{Mover, VersionState},
    terms::{Budget, COMPONENT_BYTES_MAX, PluginTerms},
};
use crate::{audit::PLATFORM_CHAIN, policy::OnFailure, tenant::TenantId};

/// Longest name of a plugin, in characters: it is part of metrics and log lines.
pub const NAME_CHARS_MAX: usize = 40;
/// Hex digits of a digest that name a version to people.
const SHORT_DIGITS: usize = 12;

/// For whose requests a plugin runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PluginScope {
    /// Those of every tenant.
    Platform,
    /// Those of the tenants of a plan.
    Plan(Box<str>),
    /// Those of one tenant, which it belongs to.
    Tenant(TenantId),
}

impl PluginScope {
    /// Whose rows it is stored under: the operator's plugins are the platform's.
    #[must_use]
    pub const fn owner(&self) -> TenantId {
        match self {
            Self::Tenant(id) => *id,
            Self::Platform | Self::Plan(_) => PLATFORM_CHAIN,
        }
    }

    /// The plan, or nothing.
    #[must_use]
    pub fn plan(&self) -> &str {
        match self {
            Self::Plan(plan) => plan,
            Self::Platform | Self::Tenant(_) => "",
        }
    }

    /// The scope of an owner and a plan, as stored.
    #[must_use]
    pub fn from_stored(owner: TenantId, plan: &str) -> Self {
        match (owner == PLATFORM_CHAIN, plan) {
            (true, "") => Self::Platform,
            (true, plan) => Self::Plan(plan.into()),
            (false, _) => Self::Tenant(owner),
        }
    }

    /// What the names of its plugins begin with where policies are named: no plugin takes
    /// the name of a policy of `policies/`, nor of another scope's plugin.
    #[must_use]
    pub const fn prefix(&self) -> &'static str {
        match self {
            Self::Platform => "platform/",
            Self::Plan(_) => "plan/",
            Self::Tenant(_) => "tenant/",
        }
    }
}

/// Name of a plugin within its scope: lower-case letters, digits and inner hyphens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct PluginName(Box<str>);

/// A text that is no [`PluginName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to {NAME_CHARS_MAX} of a-z, 0-9 and '-', beginning and ending without '-'")]
pub struct NotAName;

impl PluginName {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PluginName {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let fits = (1..=NAME_CHARS_MAX).contains(&text.len()) && text.bytes().all(known);
        let hyphen = text.starts_with('-') || text.ends_with('-');
        if fits && !hyphen { Ok(Self(text.into())) } else { Err(NotAName) }
    }
}

impl fmt::Display for PluginName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// SHA-256 of a component's file: what it is, wherever it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ComponentDigest(pub [u8; 32]);

impl ComponentDigest {
    /// The digest of a file.
    #[must_use]
    pub fn of(component: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(component).into())
    }

    /// The first 12 hex digits.
    #[must_use]
    pub fn short(&self) -> String {
        let mut digits = self.to_string();
        digits.truncate(SHORT_DIGITS);
        digits
    }
}

impl fmt::Display for ComponentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What may be changed of a plugin while its versions stay as they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PluginSettings {
    /// Position among the scope's plugins; lower runs first, ties in the order of names.
    /// Those of platform and plans stand among the policies of `policies/`; those of a
    /// tenant come before all of them, so that the operator has the last word.
    pub order: i32,
    /// What a failure means; `None` is what the version says.
    pub on_failure: Option<OnFailure>,
    /// What `configure` is called with; may refer to secrets of the tenant.
    pub config: Map<String, Value>,
}

/// Where a plugin stands unless it says otherwise.
pub const ORDER_DEFAULT: i32 = 100;

impl Default for PluginSettings {
    fn default() -> Self {
        Self { order: ORDER_DEFAULT, on_failure: None, config: Map::new() }
    }
}

/// A plugin at a version of it, ready to be bound: what the control plane publishes of
/// each plugin that is on and has an active version.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginRecord {
    /// For whose requests.
    pub scope: PluginScope,
    /// Its name there.
    pub name: PluginName,
    /// Number of the version, from 1.
    pub number: u64,
    /// Its component.
    pub component: ComponentDigest,
    /// Bytes of it.
    pub size: u64,
    /// What the version says of itself.
    pub manifest: Manifest,
    /// How it is set.
    pub settings: PluginSettings,
}

impl PluginRecord {
    /// How policies, logs, metrics and the plugin's own data name it.
    #[must_use]
    pub fn policy_name(&self) -> String {
        format!("{}{}", self.scope.prefix(), self.name)
    }

    /// What a failure of it means.
    #[must_use]
    pub fn on_failure(&self) -> OnFailure {
        self.settings.on_failure.unwrap_or(self.manifest.on_failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_segment_of_a_path_and_of_a_metric() {
        for good in ["a", "geo-2", &"x".repeat(NAME_CHARS_MAX)] {
            assert!(good.parse::<PluginName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a/b", "a_b", "ä", &"x".repeat(NAME_CHARS_MAX + 1)] {
            assert_eq!(bad.parse::<PluginName>(), Err(NotAName), "{bad}");
        }
    }

    #[test]
    fn a_scope_survives_the_way_it_is_stored() {
        let tenant = PluginScope::Tenant(TenantId(uuid::Uuid::from_u128(7)));
        for scope in [PluginScope::Platform, PluginScope::Plan("team".into()), tenant] {
            assert_eq!(PluginScope::from_stored(scope.owner(), scope.plan()), scope);
        }
    }
}
