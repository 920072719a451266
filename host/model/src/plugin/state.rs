//! Where a version of a plugin stands, and how it gets from one place to another.
//!
//! ```text
//! draft ──▶ shadow ──▶ canary ──▶ active ──▶ retired (another version is active now)
//!   └────────┴───────────┴──────────▲ │          │
//!                        rolled-back ◀┘ ◀── canary └──▶ active, canary, shadow again
//! ```
//!
//! Invariant: at most one version of a plugin is active, one is a canary and one a shadow;
//! the guard that rolls back by itself never brings a version forward that was not active
//! before.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a version stands.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum VersionState {
    /// Admitted; decides nothing.
    Draft,
    /// Decides beside the active one; nobody acts on it.
    Shadow,
    /// Decides for a part of the clients.
    Canary,
    /// Decides.
    Active,
    /// Was active until another version took its place.
    Retired,
    /// Was taken back: by a person, or by the guard.
    RolledBack,
}

/// Who moves a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mover {
    /// Somebody with the right to.
    Person,
    /// The host, because the version failed.
    Guard,
}

impl VersionState {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Draft, Self::Shadow, Self::Canary, Self::Active, Self::Retired, Self::RolledBack];

    /// The stable name used in JSON and SQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Shadow => "shadow",
            Self::Canary => "canary",
            Self::Active => "active",
            Self::Retired => "retired",
            Self::RolledBack => "rolled-back",
        }
    }

    /// The state of a name made by [`VersionState::as_str`].
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Where a version may be moved from here.
    #[must_use]
    pub const fn may_become(self, by: Mover) -> &'static [Self] {
        use VersionState::{Active, Canary, Draft, Retired, RolledBack, Shadow};
        match (by, self) {
            (Mover::Person, Draft) => &[Shadow, Canary, Active],
            (Mover::Person, Shadow) => &[Draft, Canary, Active],
            (Mover::Person, Canary) => &[Draft, Shadow, Active, RolledBack],
            (_, Active) => &[Retired, RolledBack],
            (Mover::Person, Retired | RolledBack) => &[Shadow, Canary, Active],
            (Mover::Guard, Canary) => &[RolledBack],
            // What was active before is so again, in place of what failed.
            (Mover::Guard, Retired) => &[Active],
            (Mover::Guard, Draft | Shadow | RolledBack) => &[],
        }
    }
}

impl fmt::Display for VersionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_survives_its_name_and_never_becomes_itself() {
        for state in VersionState::ALL {
            assert_eq!(VersionState::from_name(state.as_str()), Some(state));
            for by in [Mover::Person, Mover::Guard] {
                assert!(!state.may_become(by).contains(&state), "{state}");
            }
        }
    }

    #[test]
    fn the_guard_only_does_what_a_person_may_and_activates_only_what_was_active() {
        for state in VersionState::ALL {
            for to in state.may_become(Mover::Guard) {
                assert!(state.may_become(Mover::Person).contains(to), "{state} to {to}");
                assert!(*to != VersionState::Active || state == VersionState::Retired);
            }
        }
    }
}
