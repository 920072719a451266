//! The port between whoever asks whether a rate lets one more through, and the limiter.
//!
//! [`Bucket::take`] is called on every request of a tenant with a rate, and by policies for
//! the limits that the operator named; it must not block, lock or allocate where the answer
//! is known. Invariant: a caller never chooses a rate, only what is counted under it.

use std::{fmt, sync::Arc};

use crate::{BoxFuture, rate::Rate, snapshot::TenantEntry};

/// What a limiter says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether what was asked for was taken. If not, nothing was.
    pub allowed: bool,
    /// The rate in force.
    pub rate: Rate,
    /// A lower estimate of what could be taken now, at once.
    pub remaining: u32,
    /// After a refusal, in ms: when as much may be there, if nobody else takes it.
    pub wait_ms: u64,
    /// In ms: when the whole burst may be there again, if nobody takes anything.
    pub full_ms: u64,
}

/// The answer of the hot path.
pub enum Taken {
    /// It is known here.
    Now(Verdict),
    /// Somebody else has to be asked; bounded by the limiter's own time limit.
    Later(BoxFuture<'static, Verdict>),
}

/// One thing that is counted under a rate.
pub trait Bucket: Send + Sync {
    /// Takes `cost` of it, or nothing. More than the burst is never there.
    fn take(self: Arc<Self>, cost: u32) -> Taken;
}

/// One key under a limit that an operator named.
#[derive(Clone, Copy, Debug)]
pub struct NamedKey<'a> {
    /// The policy that counts.
    pub policy: &'a str,
    /// Name of the limit.
    pub limit: &'a str,
    /// What is counted: chosen by the policy, of any content.
    pub key: &'a str,
    /// The rate of each key.
    pub rate: Rate,
}

/// Finds buckets. Whatever is counted for one tenant is apart from every other's.
pub trait Limiter: Send + Sync + fmt::Debug {
    /// The bucket of a tenant under the rate of its entry; `None` without one. Called once
    /// per tenant and snapshot; a changed rate is in force for the next `take`.
    fn of_tenant(&self, tenant: &TenantEntry) -> Option<Arc<dyn Bucket>>;
    /// The bucket of a key. Short lock of one of many shards.
    fn of_key(&self, tenant: &TenantEntry, key: NamedKey<'_>) -> Arc<dyn Bucket>;
}

/// No tenant has a rate of its own, and every key is let through: for tools and tests that
/// limit nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unlimited;

struct Open(Rate);

impl Bucket for Open {
    fn take(self: Arc<Self>, _: u32) -> Taken {
        let rate = self.0;
        let remaining = rate.burst();
        Taken::Now(Verdict { allowed: true, rate, remaining, wait_ms: 0, full_ms: 0 })
    }
}

impl Limiter for Unlimited {
    fn of_tenant(&self, _: &TenantEntry) -> Option<Arc<dyn Bucket>> {
        None
    }

    fn of_key(&self, _: &TenantEntry, key: NamedKey<'_>) -> Arc<dyn Bucket> {
        Arc::new(Open(key.rate))
    }
}
