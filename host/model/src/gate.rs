//! The port between the proxy and the quotas: take a token, forward, settle.
//!
//! [`Meter::take`] is called on every request and must not block, lock or allocate when
//! tokens are at hand. Order is take → forward → settle: [`Permit`] gives its tokens back
//! when dropped, [`Charge`] keeps them, so a crash or a cancellation in between charges a
//! request that never left, never the reverse.

use std::{fmt, sync::Arc};

use smallvec::SmallVec;

use crate::{
    BoxFuture,
    anchor::Anchor,
    clock::UnixMs,
    quota::{Metric, MetricSet},
    snapshot::TenantEntry,
    tenant::TenantId,
    window::Window,
};

/// One token of one lease. Opaque outside the crate that issued it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// What it is a token of.
    pub metric: Metric,
    /// Which lease record it came from.
    pub lease: u32,
    /// Generation of that record when it was taken.
    pub generation: u32,
}

/// The tokens that one request took; at most one per consumable metric.
pub type Tokens = SmallVec<[Token; 2]>;

/// One quota as it stands for a request: `q`, `w`, `r`, `t` of the `RateLimit` fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaStatus {
    /// Which.
    pub metric: Metric,
    /// Size in this window.
    pub limit: u64,
    /// This window.
    pub window: Window,
    /// A lower estimate of what is left in the window.
    pub remaining: u64,
    /// Whether the plan's figure stands for "unlimited": then no field is sent.
    pub unlimited: bool,
    /// Whether it is a share of a pool and not the plan's.
    pub pooled: bool,
}

impl QuotaStatus {
    /// Its name in the `RateLimit` fields.
    #[must_use]
    pub const fn rate_limit_name(&self) -> &'static str {
        if self.pooled { self.metric.pool_rate_limit_name() } else { self.metric.rate_limit_name() }
    }
}

/// Why no token was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// The window's quota is used up: 429 to the window's end.
    Exhausted(QuotaStatus),
    /// Tokens are parked elsewhere for a moment: 429, `Retry-After: 1`.
    Soft(QuotaStatus),
    /// Nobody can say: 503, `Retry-After` in seconds.
    Unavailable {
        /// 1–5.
        retry_after_s: u64,
    },
}

/// The answer of the hot path.
pub enum Take {
    /// Tokens are taken.
    Granted(Permit),
    /// There are none, and the answer is definite.
    Denied(Denial),
    /// The lease is being filled; bounded by the gate's own wait limit.
    Wait(BoxFuture<'static, Result<Permit, Denial>>),
}

/// A tenant's quotas at this edge.
pub trait Meter: Send + Sync {
    /// Takes one token of each metric in the set, all or nothing. Metrics that are not
    /// consumable are ignored.
    fn take(self: Arc<Self>, metrics: MetricSet, now: UnixMs) -> Take;
    /// Gives tokens back; a token of a sealed lease is counted as a late refund.
    fn refund(&self, tokens: &[Token]);
    /// How a quota stands; `None` for a metric without a window.
    fn status(&self, metric: Metric, now: UnixMs) -> Option<QuotaStatus>;
}

/// Finds a tenant's meter.
pub trait Gate: Send + Sync {
    /// The meter of a tenant under the limits of its entry. Called once per tenant and
    /// snapshot; a changed limit is in force for the next `take`.
    fn meter(&self, tenant: &TenantEntry) -> Arc<dyn Meter>;
}

/// Proof of admission. Forwarding needs one; dropping it gives the tokens back.
pub struct Permit {
    meter: Option<Arc<dyn Meter>>,
    tokens: Tokens,
}

impl Permit {
    /// Made by the gate only, after it took the tokens.
    #[must_use]
    pub fn new(meter: Arc<dyn Meter>, tokens: Tokens) -> Self {
        Self { meter: Some(meter), tokens }
    }

    /// Turns the permit into a charge: from here on the request counts unless refunded.
    #[must_use]
    pub fn spend(mut self) -> Charge {
        Charge { meter: self.meter.take(), tokens: std::mem::take(&mut self.tokens) }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(meter) = self.meter.take() {
            meter.refund(&self.tokens);
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Permit").field(&self.tokens).finish()
    }
}

/// A forwarded request's tokens. Dropping it keeps the charge.
pub struct Charge {
    meter: Option<Arc<dyn Meter>>,
    tokens: Tokens,
}

impl Charge {
    /// Gives the tokens back: the plan does not charge this outcome.
    pub fn refund(mut self) {
        if let Some(meter) = self.meter.take() {
            meter.refund(&self.tokens);
        }
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Charge").field(&self.tokens).finish()
    }
}

/// What was charged in the windows that hold now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MeteredUsage {
    /// Charged API calls of the month, from the tenant's anchor day on.
    pub api_calls_this_month: u64,
    /// Charged AI requests of this day.
    pub ai_requests_today: u64,
    /// When the figures were read.
    pub as_of: UnixMs,
}

/// Where the usage API reads consumption from. May ask the authority.
pub trait UsageSource: Send + Sync {
    /// Exact figures of a tenant's present windows; `anchor` says when its months begin.
    fn usage(
        &self,
        tenant: TenantId,
        anchor: Anchor,
    ) -> BoxFuture<'_, Result<MeteredUsage, UsageUnavailable>>;
}

/// The authority did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the quota authority did not answer")]
pub struct UsageUnavailable;
