//! The registry of sessions that all edges share: who counts a tenant's.
//!
//! Two implementations: [`super::in_process`] and [`super::in_redis`]; both pass the same
//! contract tests. Called for a session that is new to an edge, and every
//! [`HEARTBEAT_MS`](model::sessions::HEARTBEAT_MS) with the heartbeats of a tenant.
//! Invariant: a registry admits a member only below the limit, and counts it for
//! [`TTL_MS`](model::sessions::TTL_MS) after its last heartbeat, unless it is ended.

use model::{
    BoxFuture,
    sessions::{Member, SessionId},
    tenant::TenantId,
};

/// Under what a session is admitted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// The quota in force.
    pub(crate) limit: u64,
    /// Whether the oldest make room.
    pub(crate) evict_oldest: bool,
}

/// Whether a session is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is, from now on, for the TTL.
    Admitted,
    /// It is, and was before: for the TTL from now.
    Present,
    /// The quota is used up; or the session was evicted a moment ago.
    Full,
    /// The registry lost its memory: it admits nobody new for so long.
    Held {
        /// Milliseconds.
        ms: u64,
    },
}

/// The registry did not answer. Nobody knows what it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreachable;

/// Counts the sessions of tenants. Never blocks a thread.
pub(crate) trait Registry: Send + Sync {
    /// Counts a session; one that is counted is renewed.
    fn admit(&self, member: Member, terms: Terms) -> BoxFuture<'_, Result<Admission, Unreachable>>;

    /// Heartbeats of sessions of one tenant: which of them still count. One that was
    /// forgotten is counted again only below the limit, one that was ended never.
    fn renew(
        &self,
        tenant: TenantId,
        limit: u64,
        ids: Vec<SessionId>,
    ) -> BoxFuture<'_, Result<Vec<bool>, Unreachable>>;

    /// Ends a session: its slot is free, and heartbeats of other edges find it ended.
    fn end(&self, member: Member) -> BoxFuture<'_, Result<(), Unreachable>>;

    /// How many sessions a tenant has.
    fn count(&self, tenant: TenantId) -> BoxFuture<'_, Result<u64, Unreachable>>;

    /// Forgets what has expired, a part at a time; called twice a second.
    fn sweep(&self) {}
}
