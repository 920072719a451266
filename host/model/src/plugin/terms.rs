//! What a plan allows its tenants' plugins: sizes, numbers, capabilities and budgets.
//!
//! Declared in `policies/plans.toml` under `[plan.plugins]`. Invariant: a tenant may stay
//! below, never above.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bytes of the largest component that any scope may upload: 32 MiB, since one made from
/// Python has 18.5 MB.
pub const COMPONENT_BYTES_MAX: u64 = 32 << 20;

/// `[plan.plugins]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PluginTerms {
    /// Bytes of a component. Default 32 MiB: one made from Python has 18.5 MB.
    pub component_bytes_max: u64,
    /// Plugins of one tenant. Default 20: each runs on every request of it.
    pub plugins_max: u64,
    /// Versions that are kept of one plugin. Default 50; each keeps its component.
    pub versions_max: u64,
    /// Capabilities that may be asked for; absent: all that there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<String>>,
    /// What one call may use, where that is not the default of the key.
    pub limits: Budget,
}

impl Default for PluginTerms {
    fn default() -> Self {
        Self {
            component_bytes_max: COMPONENT_BYTES_MAX,
            plugins_max: 20,
            versions_max: 50,
            capabilities: None,
            limits: Budget::default(),
        }
    }
}

impl PluginTerms {
    /// Whether nothing is said that is not the default.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

macro_rules! budget {
    ($($(#[doc = $doc:literal])+ $key:ident,)*) => {
        /// What one call may use; an absent key is not said.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(default, deny_unknown_fields)]
        pub struct Budget {
            $($(#[doc = $doc])+
            #[serde(skip_serializing_if = "Option::is_none")]
            pub $key: Option<u64>,)*
        }

        impl Budget {
            /// Names of the keys.
            pub const KEYS: &'static [&'static str] = &[$(stringify!($key),)*];

            /// The value of a key, to be set; `None` when there is no such key.
            pub fn key_mut(&mut self, name: &str) -> Option<&mut Option<u64>> {
                match name {
                    $(stringify!($key) => Some(&mut self.$key),)*
                    _ => None,
                }
            }

            /// Each key that is said.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($key), self.$key),)*]
                    .into_iter()
                    .filter_map(|(key, value)| Some((key, value?)))
            }
        }
    };
}

budget! {
    /// Milliseconds of computing.
    deadline_ms,
    /// Milliseconds by the wall clock, waits included.
    wall_ms,
    /// Bytes of each linear memory.
    memory_bytes,
    /// Calls of host functions.
    host_calls,
    /// Bytes of a body that it sees or writes.
    body_bytes,
    /// Bytes of the body of a response that it makes.
    response_body_bytes,
    /// Header fields of a message after its edits.
    fields,
    /// Bytes of names and values that it writes.
    edit_bytes,
    /// Log lines.
    log_lines,
    /// Bytes of log text.
    log_bytes,
    /// Calls to other origins.
    outbound_calls,
    /// Bytes of bodies to and from other origins.
    outbound_bytes,
    /// Milliseconds of one call to another origin.
    outbound_ms,
    /// Bytes of its key-value data, for one tenant; not of one call but kept.
    keyvalue_bytes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_a_budget_is_set_and_read_by_its_name() {
        for key in Budget::KEYS {
            let mut budget = Budget::default();
            *budget.key_mut(key).expect("a key") = Some(7);
            assert_eq!(budget.iter().collect::<Vec<_>>(), [(*key, 7)]);
        }
        assert!(Budget::default().key_mut("fuel").is_none());
    }
}
