//! The port to the durable account of each window.
//!
//! Called once per tranche, once per second with reports, and at start and stop.
//! Invariant: an answer means that the change is durable; an error means that nobody knows,
//! and the caller must behave as if the tranche was debited and the credit was not made.

use super::{BootId, Fence, Holder, HolderId, InstallPermit, WindowKey};
use crate::BoxFuture;

/// The authority failed or did not answer; the caller tries again later.
#[derive(Debug, thiserror::Error)]
#[error("the quota authority failed")]
pub struct AuthorityError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Asks for the next tranche of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenRequest {
    /// Which account.
    pub key: WindowKey,
    /// The dispatcher that will hand it out.
    pub fence: Fence,
    /// The latest epoch that the caller knows of; 0 when it knows none.
    pub latest: u64,
    /// The limit in force.
    pub limit: u64,
    /// Tokens that the tenant spends per second, as observed; sizes the tranche.
    pub rate_per_s: u64,
}

/// Answer to one [`OpenRequest`].
#[derive(Debug)]
pub enum Opening {
    /// The tranche is debited; the permit may be installed once.
    Opened(InstallPermit),
    /// Somebody opened an epoch that the caller did not know of. Nothing was debited.
    Lost {
        /// The latest epoch.
        latest: u64,
    },
    /// The limit is granted. Nothing was debited.
    Exhausted,
}

/// What a holder spent of one tranche so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochReport {
    /// Which account.
    pub key: WindowKey,
    /// Which tranche.
    pub epoch: u64,
    /// Its size, so that an authority restored from a backup can adopt it.
    pub tranche: u64,
    /// Tokens taken and not given back.
    pub spent: u64,
    /// Tokens given back within the tranche.
    pub refunded: u64,
    /// The holder will never spend another token of it: the figures are final.
    pub sealed: bool,
}

/// Tokens given back after their tranche was sealed, as a running total per window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LateRefunds {
    /// Which account.
    pub key: WindowKey,
    /// Total of this holder in this window; never falls.
    pub total: u64,
}

/// A holder's figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whose.
    pub holder: HolderId,
    /// Rises with every report of a holder: an older one never replaces a newer one.
    pub number: u64,
    /// Tranches whose figures changed.
    pub epochs: Vec<EpochReport>,
    /// Late refunds that changed.
    pub late: Vec<LateRefunds>,
}

/// The authority wants the tranches of an account up to `floor` sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recall {
    /// Which account.
    pub key: WindowKey,
    /// Highest epoch that may not be spent any more.
    pub floor: u64,
}

/// Answer to a [`Report`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReportAnswer {
    /// Tranches to seal.
    pub recalls: Vec<Recall>,
    /// Tokens that went back into their windows by this report.
    pub credited: u64,
}

/// Final figures of a dead holder, read from its lease file by its successor. A tranche of
/// the predecessor's own dispatcher that is not listed was never handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    /// The dead holder.
    pub predecessor: HolderId,
    /// The uptime in which it lived; the same as its successor's.
    pub boot: BootId,
    /// What it held, all sealed.
    pub epochs: Vec<EpochReport>,
}

/// What an inheritance brought back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inherited {
    /// Tranches reconciled.
    pub epochs: u64,
    /// Tokens credited.
    pub credited: u64,
}

/// Tranches of holders that left no will: they stay charged in full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stranded {
    /// Tranches closed in windows that have not ended.
    pub epochs: u64,
    /// Tokens of them that nobody reported as spent: the waste, at most.
    pub tokens: u64,
}

/// An account as it is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowAccount {
    /// The limit last in force.
    pub limit: u64,
    /// Σ tranches opened.
    pub granted: u64,
    /// Tokens proven unspent or refunded late.
    pub credited: u64,
    /// Highest epoch opened.
    pub latest: u64,
    /// Highest epoch no longer open.
    pub floor: u64,
    /// Tokens charged by the latest reports; tranches without a living holder count in
    /// full.
    pub charged: u64,
}

/// The durable account. Every method may wait for a disk or a network; none blocks the
/// thread.
pub trait Authority: Send + Sync {
    /// Inserts the holder, before it does anything else.
    fn register(&self, holder: Holder) -> BoxFuture<'_, Result<(), AuthorityError>>;

    /// Debits a tranche per request, all in one commit; answers in the same order. The
    /// size is [`super::rules::tranche_size`].
    fn open(
        &self,
        requests: Vec<OpenRequest>,
    ) -> BoxFuture<'_, Result<Vec<Opening>, AuthorityError>>;

    /// Stores figures, reconciles what is sealed by everybody who could hold it, credits.
    fn report(&self, report: Report) -> BoxFuture<'_, Result<ReportAnswer, AuthorityError>>;

    /// The accounts as stored; `None` for a window in which nothing was opened.
    fn confirm(
        &self,
        keys: Vec<WindowKey>,
    ) -> BoxFuture<'_, Result<Vec<Option<WindowAccount>>, AuthorityError>>;

    /// Takes a dead holder's final figures and ends it. The caller holds the exclusive
    /// lock of the lease file they came from. Repeating it changes nothing.
    fn inherit(&self, will: Will) -> BoxFuture<'_, Result<Inherited, AuthorityError>>;

    /// Ends every other holder of the same edge; their open tranches stay charged.
    fn strand_others(&self, heir: HolderId) -> BoxFuture<'_, Result<Stranded, AuthorityError>>;

    /// The holder sealed and reported everything and stops.
    fn end(&self, holder: HolderId) -> BoxFuture<'_, Result<(), AuthorityError>>;
}
