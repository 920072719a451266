//! Who may hold tokens, and for whom a tranche was opened.
//!
//! Invariant: every start of a process is a new holder, so a restarted edge can never
//! replay the grants of its predecessor.

use std::{fmt, str::FromStr};

use uuid::Uuid;

/// One run of one edge process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HolderId(pub Uuid);

impl HolderId {
    /// The holder of a process that starts now.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl fmt::Display for HolderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One uptime of a machine; mapped pages are trusted only within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BootId(pub Uuid);

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A holder as it registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Identity of this run.
    pub id: HolderId,
    /// Name of the edge that runs.
    pub edge: String,
    /// The machine's uptime.
    pub boot: BootId,
}

/// The life and data history of the dispatcher that a tranche was opened for. Only that
/// dispatcher may hand out its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fence {
    /// The dispatcher inside one holder's process: nobody else can have its tokens.
    Holder(HolderId),
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Holder(holder) => write!(f, "holder:{holder}"),
        }
    }
}

/// A stored fence that this version cannot read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no fence of this version")]
pub struct UnknownFence;

impl FromStr for Fence {
    type Err = UnknownFence;
    fn from_str(text: &str) -> Result<Self, UnknownFence> {
        text.strip_prefix("holder:")
            .and_then(|id| Uuid::parse_str(id).ok())
            .map(|id| Self::Holder(HolderId(id)))
            .ok_or(UnknownFence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_survives_its_text() {
        let fence = Fence::Holder(HolderId::random());
        assert_eq!(fence.to_string().parse(), Ok(fence));
        assert_eq!("redis:1".parse::<Fence>(), Err(UnknownFence));
    }
}
