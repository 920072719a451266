//! The quota ledger: its two ports and the pure rules that every implementation shares.
//!
//! [`Authority`] is the durable account of each window, [`Dispatcher`] divides an open
//! tranche among the edges, [`rules`] says how large tranches and grants are. Called once
//! per tranche or refill, never per request.
//! Invariant: charged ≤ granted to edges ≤ Σ tranches ≤ limit, for every window; a tranche
//! is durable before a dispatcher may hand out one token of it.

mod authority;
mod dispatcher;
mod holder;
pub mod rules;

pub use authority::{
    Above, Authority, AuthorityError, Bounds, EpochRef, Inherited, LateRefunds, LeaseReport,
    LostShare, OpenRequest, Opening, Registered, Report, ReportAnswer, Standing, Stranded, Will,
    WindowAccount,
};
pub use dispatcher::{
    Dispatcher, DispatcherError, Grant, InstallPermit, LeaseAnswer, LeaseRequest, Shares,
};
pub use holder::{BootId, Fence, Holder, HolderId, RedisFence, RedisId, UnknownFence};

use crate::{quota::Metric, tenant::TenantId, window::Window};

/// Which account: one metric of one tenant in one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WindowKey {
    /// Whose.
    pub tenant: TenantId,
    /// Of what.
    pub metric: Metric,
    /// When.
    pub window: Window,
}
