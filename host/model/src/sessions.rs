//! User sessions: what a request's session is, and the port that keeps a tenant's at or
//! below its quota.
//!
//! The proxy enters a request into its session on every route whose class declares one; an
//! edge that knows the session answers from memory, one that does not asks the registry
//! that all edges share. Invariant: an edge serves a session only while it can prove that
//! the registry still counts it (self-fencing), so edges that die or are cut off can only
//! waste slots, never add to them.

use std::{collections::BTreeMap, fmt, sync::Arc};

use http::{
    HeaderName,
    header::{AUTHORIZATION, COOKIE},
};
use sha2::{Digest, Sha256};

use crate::{BoxFuture, headers, ledger::AuthorityError, snapshot::TenantEntry, tenant::TenantId};

/// Milliseconds for which the registry counts a session after its last heartbeat (15,000):
/// the longest that a killed edge's sessions hold their slots.
pub const TTL_MS: u64 = 15_000;
/// Milliseconds between heartbeats (a third of the TTL): one may be lost.
pub const HEARTBEAT_MS: u64 = TTL_MS / 3;
/// Milliseconds before the registry's expiry at which an edge closes a session that it
/// could not renew (a third of the TTL): the registry's clock may be stepped by as much.
pub const MARGIN_MS: u64 = TTL_MS / 3;
/// Milliseconds for which a new guard of a family admits renewals only: every session that
/// an edge may still serve is back, or closed, by then.
pub const GUARD_HOLD_MS: u64 = TTL_MS + MARGIN_MS;
/// Milliseconds after its last request for which a session stays alive (300,000): a person
/// who reads a page is still there.
pub const IDLE_MS_DEFAULT: u64 = 300_000;

/// Where a request's session is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionSource {
    /// A cookie of that name.
    Cookie(Box<str>),
    /// A header field.
    Header(HeaderName),
    /// A claim of the verified bearer token.
    Claim(SessionClaim),
    /// The client's connection itself.
    Connection,
}

/// The claims that can name a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionClaim {
    /// The issuer's own session id (OpenID Connect).
    Sid,
    /// The user: all devices of one are one session.
    Sub,
}

/// Why a text names no source. The text says what to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// No such kind.
    #[error("must be cookie:NAME, header:NAME, claim:sid, claim:sub or connection")]
    Unknown,
    /// No cookie name.
    #[error("a cookie's name has 1 to 64 letters, digits or - . _")]
    Cookie,
    /// No field name, or one that the edge itself owns.
    #[error("header: needs the name of a request field that clients may send")]
    Header,
}

/// Bytes of a cookie's name at most (64): longer ones are nobody's.
const COOKIE_NAME_BYTES_MAX: usize = 64;

impl SessionSource {
    /// Reads `cookie:NAME`, `header:NAME`, `claim:sid`, `claim:sub` or `connection`.
    ///
    /// # Errors
    /// What to write instead.
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        match text.split_once(':') {
            None if text == "connection" => Ok(Self::Connection),
            Some(("cookie", name)) => {
                let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
                let is_name = (1..=COOKIE_NAME_BYTES_MAX).contains(&name.len());
                if is_name && name.bytes().all(fits) {
                    Ok(Self::Cookie(name.into()))
                } else {
                    Err(SourceError::Cookie)
                }
            }
            Some(("header", name)) => HeaderName::try_from(name)
                .ok()
                .filter(is_free)
                .map(Self::Header)
                .ok_or(SourceError::Header),
            Some(("claim", "sid")) => Ok(Self::Claim(SessionClaim::Sid)),
            Some(("claim", "sub")) => Ok(Self::Claim(SessionClaim::Sub)),
            None | Some(_) => Err(SourceError::Unknown),
        }
    }

    /// The session that a value of this source names. One way: the value is a secret and
    /// never leaves the process.
    #[must_use]
    pub fn session(&self, value: &[u8]) -> SessionId {
        let (kind, name) = match self {
            Self::Cookie(name) => ("cookie", &**name),
            Self::Header(name) => ("header", name.as_str()),
            Self::Claim(SessionClaim::Sid) => ("claim", "sid"),
            Self::Claim(SessionClaim::Sub) => ("claim", "sub"),
            Self::Connection => ("connection", ""),
        };
        let mut hash = Sha256::new();
        for part in [kind.as_bytes(), name.as_bytes()] {
            hash.update(part);
            hash.update([0]);
        }
        hash.update(value);
        let digest: [u8; 32] = hash.finalize().into();
        let (half, _) = digest.split_at(16);
        SessionId(half.try_into().unwrap_or_default())
    }
}

/// Whether clients may send a field and only they do; credentials are no session.
fn is_free(name: &HeaderName) -> bool {
    let text = name.as_str();
    !headers::is_host_owned(text)
        && !headers::is_stripped_from_client(text)
        && *name != AUTHORIZATION
        && *name != COOKIE
}

/// A session, as everything behind the proxy knows it: half of a SHA-256 of its source and
/// value, which no two sessions share by chance.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId([u8; 16]);

impl SessionId {
    /// The 16 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("session-")?;
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a route class says about the sessions of its requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRule {
    /// Where the session is read from. A request without a value is nobody's session and
    /// is not counted.
    pub source: SessionSource,
    /// How long after its last request, or the end of its last stream, a session stays
    /// alive, in ms.
    pub idle_ms: u64,
    /// Whether a new session above the quota ends the oldest instead of being refused.
    pub evict_oldest: bool,
    /// A logout: the request is not counted, and an answer below 400 ends its session.
    pub ends: bool,
}

/// A session of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Member {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub id: SessionId,
}

/// A request as it enters its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visit {
    /// The session.
    pub id: SessionId,
    /// As in [`SessionRule`].
    pub idle_ms: u64,
    /// As in [`SessionRule`].
    pub evict_oldest: bool,
}

/// The answer of [`Sessions::enter`].
pub enum Enter {
    /// The session is known here and alive.
    In(Seat),
    /// The answer is definite.
    Refused(SessionRefusal),
    /// The session is new to this edge: the registry is asked. Bounded.
    Wait(BoxFuture<'static, Result<Seat, SessionRefusal>>),
}

/// Why a request is in no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionRefusal {
    /// So many sessions are alive, which is the quota or, after it was lowered, more.
    Full {
        /// The quota.
        limit: u64,
    },
    /// Nobody can say: 503, `Retry-After` in seconds.
    Unavailable {
        /// 1–20.
        retry_after_s: u64,
    },
}

/// A session that is served, as its requests hold it.
pub trait Held: Send + Sync {
    /// Whether the session may no longer be served: it ended, or could not be renewed in
    /// time. Never blocks.
    fn is_lost(&self) -> bool;
    /// The upstream took a request of it, so it is a session: anybody can make a value up. One
    /// that is not confirmed ends with its last open request. Never blocks.
    fn confirm(&self);
    /// A request, with its stream, is over.
    fn leave(&self);
}

/// A request's place in its session, for as long as the request or its stream lasts: the
/// session cannot go idle meanwhile.
pub struct Seat(Arc<dyn Held>);

impl Seat {
    /// For implementations of [`Sessions`] only, after the session counted one more.
    #[must_use]
    pub fn new(held: Arc<dyn Held>) -> Self {
        Self(held)
    }

    /// Whether the request has to end now.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.0.is_lost()
    }

    /// The upstream answered below 400.
    pub fn confirm(&self) {
        self.0.confirm();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").finish_non_exhaustive()
    }
}

/// The sessions of an edge.
pub trait Sessions: Send + Sync {
    /// Enters a request into its session under the quota of the entry. Neither blocks nor
    /// calls anybody when the session is known here.
    fn enter(&self, tenant: &TenantEntry, visit: Visit) -> Enter;

    /// Ends a session wherever it is known. Done also when the answer is not awaited;
    /// awaiting it means that the slot is free, unless the registry did not answer.
    fn end(&self, member: Member) -> BoxFuture<'static, ()>;

    /// How many sessions of a tenant are alive, on all edges.
    fn count(&self, tenant: TenantId) -> BoxFuture<'_, Result<u64, SessionsUnavailable>>;

    /// The tenants with sessions at this edge, and how many each has here. Looks through all
    /// of them, so it is for the sampler, every few seconds.
    fn here(&self) -> BTreeMap<TenantId, u64>;
}

/// The registry of sessions did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the registry of sessions did not answer")]
pub struct SessionsUnavailable;

/// Answer to [`GuardStore::record_guard`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardRecord {
    /// The guard is recorded under this number; 1 is the first that the family ever had.
    Recorded {
        /// Rises by one with every guard of a family.
        number: u64,
    },
    /// Somebody recorded one that the caller did not know of; nothing was done.
    Lost {
        /// The latest.
        number: u64,
    },
}

/// Where guards of shared registries are recorded, durably: the memory of a registry that
/// may lose all of its own.
pub trait GuardStore: Send + Sync {
    /// Records that the sessions of a family are kept under `fence` from now on, if the
    /// latest guard is the one numbered `after` (0: none).
    fn record_guard(
        &self,
        family: TenantId,
        fence: String,
        after: u64,
    ) -> BoxFuture<'_, Result<GuardRecord, AuthorityError>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_and_what_is_none_says_what_to_write() {
        let cookie = SessionSource::parse("cookie:sid").expect("a source");
        assert_eq!(cookie, SessionSource::Cookie("sid".into()));
        assert_eq!(SessionSource::parse("connection"), Ok(SessionSource::Connection));
        let claim = SessionSource::Claim(SessionClaim::Sid);
        assert_eq!(SessionSource::parse("claim:sid"), Ok(claim));
        for (text, error) in [
            ("cookie:", SourceError::Cookie),
            ("cookie:a b", SourceError::Cookie),
            ("header:a b", SourceError::Header),
            ("header:x-tenant-id", SourceError::Header),
            ("header:authorization", SourceError::Header),
            ("claim:jti", SourceError::Unknown),
            ("connection:", SourceError::Unknown),
            ("", SourceError::Unknown),
        ] {
            assert_eq!(SessionSource::parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn one_value_is_one_session_of_its_source_and_shows_nowhere() {
        let cookie = SessionSource::Cookie("sid".into());
        let other = SessionSource::Cookie("sid2".into());
        assert_eq!(cookie.session(b"hunter2"), cookie.session(b"hunter2"));
        assert_ne!(cookie.session(b"hunter2"), cookie.session(b"hunter3"));
        assert_ne!(cookie.session(b"hunter2"), other.session(b"hunter2"));
        assert!(!format!("{:?}", cookie.session(b"hunter2")).contains("hunter"));
    }
}
