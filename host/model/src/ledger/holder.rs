//! Who may hold tokens, and for whom a tranche was opened.
//!
//! Invariant: every start of a process is a new holder, so a restarted edge can never
//! replay the grants of its predecessor. A fence names one life of one dispatcher with one
//! history of its data: after a restart from an old dump, or a failover, it is another.

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
    /// A Redis server, shared by edges.
    Redis(RedisFence),
}

/// One life of a Redis process with one history of its data. Both parts are needed: a
/// process can lose and regain the role of master with other data in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RedisFence {
    /// `run_id` of `INFO server`: changes when the process restarts.
    pub run_id: RedisId,
    /// `master_replid` of `INFO replication`: changes when a server becomes master.
    pub replid: RedisId,
}

/// An identifier as Redis makes them: 40 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RedisId([u8; 40]);

impl RedisId {
    /// The text as Redis writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // The digits were checked when the text was read.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl FromStr for RedisId {
    type Err = UnknownFence;
    fn from_str(text: &str) -> Result<Self, UnknownFence> {
        let bytes: [u8; 40] = text.as_bytes().try_into().map_err(|_| UnknownFence)?;
        let hex = bytes.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if hex { Ok(Self(bytes)) } else { Err(UnknownFence) }
    }
}

impl fmt::Debug for RedisId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Holder(holder) => write!(f, "holder:{holder}"),
            Self::Redis(RedisFence { run_id, replid }) => {
                write!(f, "redis:{}:{}", run_id.as_str(), replid.as_str())
            }
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
        let (kind, name) = text.split_once(':').ok_or(UnknownFence)?;
        match kind {
            "holder" => {
                Uuid::parse_str(name).map(|id| Self::Holder(HolderId(id))).map_err(|_| UnknownFence)
            }
            "redis" => {
                let (run_id, replid) = name.split_once(':').ok_or(UnknownFence)?;
                Ok(Self::Redis(RedisFence { run_id: run_id.parse()?, replid: replid.parse()? }))
            }
            _ => Err(UnknownFence),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_survives_its_text() {
        let fence = Fence::Holder(HolderId::random());
        assert_eq!(fence.to_string().parse(), Ok(fence));
        let redis = format!("redis:{}:{}", "0a".repeat(20), "f9".repeat(20));
        let parsed: Fence = redis.parse().expect("a fence");
        assert_eq!(parsed.to_string(), redis);
        assert_eq!("redis:1".parse::<Fence>(), Err(UnknownFence));
    }
}
