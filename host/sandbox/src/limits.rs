//! What one policy may use, and what it may ask for.
//!
//! Set per binding, by plan. Invariant: a grant only opens a capability whose own bounds
//! hold anyway.

use std::str::FromStr;

use serde::Deserialize;

/// Limits of one binding. Everything a call does counts: instantiation, start functions
/// and `configure` included.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Milliseconds of computing per call. Default 50: a policy takes microseconds; an
    /// interpreter's start and a preempted worker need room.
    pub deadline_ms: u32,
    /// Milliseconds per call by the wall clock, waits included. Default 2,000.
    pub wall_ms: u32,
    /// Bytes of each linear memory. Default 16 MiB.
    pub memory_bytes: usize,
    /// Calls of host functions per call. Default 10,000.
    pub host_calls: u32,
    /// Bytes of a body that a policy sees or writes in place of a request's. Default 1 MiB.
    pub body_bytes: usize,
    /// Bytes of the body of a response that a policy makes. Default 128 KiB: it crosses
    /// in one host call.
    pub response_body_bytes: usize,
    /// Header fields of a message after a policy's edits. Default 100, as for clients.
    pub fields: usize,
    /// Bytes of names and values that a policy may write per call. Default 16 KiB, the
    /// size of a client's head.
    pub edit_bytes: usize,
    /// Log lines per call; more are dropped. Default 16.
    pub log_lines: u32,
    /// Bytes of log text per call; more are dropped. Default 8 KiB.
    pub log_bytes: usize,
    /// Calls to other origins per call. Default 4: each makes its request wait.
    pub outbound_calls: u32,
    /// Bytes of bodies to and from other origins per call. Default 192 KiB: an answer crosses
    /// in one host call, with its fields.
    pub outbound_bytes: usize,
    /// Milliseconds that one call to another origin may take. Default 1,000: half of the wall
    /// clock, so that a policy can still decide without the answer.
    pub outbound_ms: u32,
    /// Bytes of key-value data of one tenant, keys and book-keeping included; not of a call.
    /// Default 1 MiB.
    pub keyvalue_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            deadline_ms: 50,
            wall_ms: 2_000,
            memory_bytes: 16 << 20,
            host_calls: 10_000,
            body_bytes: 1 << 20,
            response_body_bytes: 128 << 10,
            fields: 100,
            edit_bytes: 16 << 10,
            log_lines: 16,
            log_bytes: 8 << 10,
            outbound_calls: 4,
            outbound_bytes: 192 << 10,
            outbound_ms: 1_000,
            keyvalue_bytes: 1 << 20,
        }
    }
}

/// Whether an instance serves one call or several of the same tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Instances {
    /// A new instance per hook call: nothing a request leaves behind meets another.
    #[default]
    Fresh,
    /// Instances are kept for later calls of the same tenant on the same worker.
    Reuse {
        /// Hook calls after which an instance is dropped.
        requests_max: u32,
    },
}

/// Something beyond the message itself that a policy may be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// `keyvalue`.
    Keyvalue,
    /// `rate-limit`.
    RateLimit,
    /// `feature-flags`.
    FeatureFlags,
    /// `outbound`.
    Outbound,
    /// `telemetry`.
    Telemetry,
}

impl Capability {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Keyvalue, Self::RateLimit, Self::FeatureFlags, Self::Outbound, Self::Telemetry];

    /// Name of its interface in the contract.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Keyvalue => "keyvalue",
            Self::RateLimit => "rate-limit",
            Self::FeatureFlags => "feature-flags",
            Self::Outbound => "outbound",
            Self::Telemetry => "telemetry",
        }
    }
}

/// A name that is no [`Capability`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no capability; there are keyvalue, rate-limit, feature-flags, outbound, telemetry"
)]
pub struct UnknownCapability(pub String);

impl FromStr for Capability {
    type Err = UnknownCapability;
    fn from_str(name: &str) -> Result<Self, UnknownCapability> {
        Self::ALL
            .into_iter()
            .find(|capability| capability.name() == name)
            .ok_or_else(|| UnknownCapability(name.to_owned()))
    }
}

/// A set of capabilities; empty by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grants(u8);

impl Grants {
    /// No capability.
    pub const NONE: Self = Self(0);

    /// The set with one more.
    #[must_use]
    pub const fn with(self, capability: Capability) -> Self {
        Self(self.0 | 1 << capability as u8)
    }

    /// Whether the capability is in the set.
    #[must_use]
    pub const fn has(self, capability: Capability) -> bool {
        self.0 & (1 << capability as u8) != 0
    }

    /// The set of the named capabilities.
    ///
    /// # Errors
    /// The first name that is none.
    pub fn from_names<'a>(
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, UnknownCapability> {
        names.into_iter().try_fold(Self::NONE, |set, name| Ok(set.with(name.parse()?)))
    }
}

impl FromIterator<Capability> for Grants {
    fn from_iter<I: IntoIterator<Item = Capability>>(capabilities: I) -> Self {
        capabilities.into_iter().fold(Self::NONE, Self::with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_hold_what_was_named_and_nothing_else() {
        let grants = Grants::from_names(["keyvalue", "telemetry"]).expect("known names");
        for capability in Capability::ALL {
            let named = matches!(capability, Capability::Keyvalue | Capability::Telemetry);
            assert_eq!(grants.has(capability), named, "{}", capability.name());
        }
        assert_eq!(Grants::from_names(["clock"]), Err(UnknownCapability("clock".into())));
    }
}
