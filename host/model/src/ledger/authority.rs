//! The port to the durable account of each window.
//!
//! Called once per tranche, once per second with reports, and at start and stop.
//! Invariant: an answer means that the change is durable; an error means that nobody knows,
//! and the caller must behave as if the tranche was debited and the credit was not made.

use super::{BootId, Fence, Holder, HolderId, InstallPermit, WindowKey};
use crate::{BoxFuture, clock::UnixMs, tenant::TenantId};

/// The authority failed or did not answer; the caller tries again later.
#[derive(Debug, thiserror::Error)]
#[error("the quota authority failed")]
pub struct AuthorityError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Which epochs of an account a shared dispatcher may hand out. A holder spends a token of
/// a shared epoch `e` only if `floor < e ≤ latest`, as confirmed after it registered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Highest shared epoch no longer open. Never falls.
    pub floor: u64,
    /// Highest shared epoch opened. Never falls.
    pub latest: u64,
}

impl Bounds {
    /// Whether tokens of the epoch may be spent.
    #[must_use]
    pub const fn allow(&self, epoch: u64) -> bool {
        self.floor < epoch && epoch <= self.latest
    }

    /// The later of both views: answers may arrive in another order than they were made.
    #[must_use]
    pub fn joined(self, other: Self) -> Self {
        Self { floor: self.floor.max(other.floor), latest: self.latest.max(other.latest) }
    }
}

/// An account as a holder has to know it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// What may be spent.
    pub bounds: Bounds,
    /// Tokens that can still be opened under the limit that was last in force.
    pub available: u64,
}

/// One tranche of one account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EpochRef {
    /// Which account.
    pub key: WindowKey,
    /// Which tranche of it.
    pub epoch: u64,
}

/// Asks for the next tranche of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenRequest {
    /// Which account.
    pub key: WindowKey,
    /// The dispatcher that will hand it out.
    pub fence: Fence,
    /// The latest epoch that the caller knows of; 0 when it knows none. For a shared
    /// dispatcher the latest shared one ([`Bounds::latest`]); for the holder's own the
    /// latest that was opened for this holder.
    pub latest: u64,
    /// The limit in force.
    pub limit: u64,
    /// The quota above the pools that the tenant draws from, as far as the caller knows;
    /// `None` when it knows of none. Then the terms of the pools decide, not `limit`.
    pub above: Option<Above>,
    /// Tokens that the tenant spends per second, as observed; sizes the tranche.
    pub rate_per_s: u64,
}

/// The tenant above all pools that another one draws from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Above {
    /// Who.
    pub tenant: TenantId,
    /// Its quota.
    pub limit: u64,
}

/// Answer to one [`OpenRequest`].
#[derive(Debug)]
pub enum Opening {
    /// The tranche is debited; the permit may be installed once.
    Opened(InstallPermit),
    /// Somebody opened an epoch that the caller did not know of. Nothing was debited.
    Lost {
        /// The latest epoch of the kind that was asked for.
        latest: u64,
    },
    /// The limit is granted, or a pool above has no more; or the caller does not know the
    /// pools as they are now. Nothing was debited.
    Exhausted,
    /// A pool above has no more, but other members hold tokens of it that they may not need;
    /// their tranches start closing. Nothing was debited.
    Parked,
}

/// What a holder spent of one lease so far: of one tranche it may have several, one after
/// the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseReport {
    /// Of which tranche.
    pub of: EpochRef,
    /// Size of the tranche, so that an authority restored from a backup can adopt it.
    pub tranche: u64,
    /// Which lease of this holder: unique in its life, never 0.
    pub lease: u32,
    /// Tokens taken and not given back.
    pub spent: u64,
    /// Tokens given back within the lease.
    pub refunded: u64,
    /// The lease is sealed: the figures are final.
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
    /// Leases whose figures changed.
    pub leases: Vec<LeaseReport>,
    /// Tranches of which this holder will never spend another token. The final figures of
    /// its leases of them are in this report or in an earlier one.
    pub seals: Vec<EpochRef>,
    /// Late refunds that changed.
    pub late: Vec<LateRefunds>,
    /// What lost holders had, as the dispatcher's CLOSE told ([`ReportAnswer::lost`]).
    pub lost: Vec<LostShare>,
    /// Accounts whose standing the answer should bring.
    pub watched: Vec<WindowKey>,
}

/// Tokens that a lost holder was granted of a shared epoch and did not return. They count
/// as spent, which is safe even when the holder lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostShare {
    /// Of which tranche.
    pub of: EpochRef,
    /// Whose.
    pub holder: HolderId,
    /// How many.
    pub tokens: u64,
}

/// Answer to a [`Report`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReportAnswer {
    /// Shared tranches that this holder has to seal, whether it holds tokens of them or
    /// not: their epochs are closing.
    pub recalls: Vec<EpochRef>,
    /// Own tranches of this holder that are closing.
    pub own_recalls: Vec<EpochRef>,
    /// The accounts that were asked for, in the order of [`Report::watched`]; `None` for a
    /// window in which nothing was opened.
    pub standings: Vec<Option<Standing>>,
    /// Closing tranches that lack the figures of a lost holder. Whoever reaches their
    /// dispatcher may CLOSE them and report what it says.
    pub lost: Vec<(EpochRef, Fence, HolderId)>,
    /// Tokens that went back into their windows by this report.
    pub credited: u64,
    /// The authority's time.
    pub now: UnixMs,
    /// The holder was ended (declared lost): it stops spending and registers anew.
    pub ended: bool,
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
    pub leases: Vec<LeaseReport>,
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
    /// Highest epoch opened, of any kind.
    pub latest: u64,
    /// Tokens charged by the latest reports; tranches without a living holder count in
    /// full.
    pub charged: u64,
}

/// A holder that the authority knows, and its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The authority's time.
    pub now: UnixMs,
}

/// The durable account. Every method may wait for a disk or a network; none blocks the
/// thread.
pub trait Authority: Send + Sync {
    /// Inserts the holder, before it does anything else.
    fn register(&self, holder: Holder) -> BoxFuture<'_, Result<Registered, AuthorityError>>;

    /// Debits a tranche per request, all in one commit; answers in the same order. The
    /// size is [`super::rules::tranche_size`]. A shared epoch that opens closes every
    /// shared epoch but the one before it, and that one too when its fence is another;
    /// [`Opening::Exhausted`] closes all shared epochs but the latest, so that what is
    /// parked in them comes back. An error when the holder that asks was ended: so what opens
    /// for a living one is confirmed for it by the answer, but a loss is not.
    fn open(
        &self,
        holder: HolderId,
        requests: Vec<OpenRequest>,
    ) -> BoxFuture<'_, Result<Vec<Opening>, AuthorityError>>;

    /// Stores figures, reconciles what is sealed by everybody who could hold it, credits. A
    /// holder reports every few seconds even when nothing changed: one that is silent for a
    /// minute is lost.
    fn report(&self, report: Report) -> BoxFuture<'_, Result<ReportAnswer, AuthorityError>>;

    /// Accounts in the order of the keys, as they stand on the primary now; the inner `None`
    /// for a window in which nothing was opened, the outer one when the holder was ended:
    /// it may confirm nothing any more.
    fn confirm(
        &self,
        holder: HolderId,
        keys: Vec<WindowKey>,
    ) -> BoxFuture<'_, Result<Option<Vec<Option<Standing>>>, AuthorityError>>;

    /// Closes every open shared epoch of the accounts: a limit fell, or a tree changed.
    fn close(&self, keys: Vec<WindowKey>) -> BoxFuture<'_, Result<(), AuthorityError>>;

    /// The accounts as stored; `None` for a window in which nothing was opened.
    fn accounts(
        &self,
        keys: Vec<WindowKey>,
    ) -> BoxFuture<'_, Result<Vec<Option<WindowAccount>>, AuthorityError>>;

    /// Takes a dead holder's final figures and ends it. The caller holds the exclusive
    /// lock of the lease file they came from. Repeating it changes nothing.
    fn inherit(&self, will: Will) -> BoxFuture<'_, Result<Inherited, AuthorityError>>;

    /// Ends every other holder of the same edge as lost: its open tranches stay charged,
    /// shared ones until CLOSE tells its share.
    fn strand_others(&self, heir: HolderId) -> BoxFuture<'_, Result<Stranded, AuthorityError>>;

    /// The holder sealed and reported everything and stops.
    fn end(&self, holder: HolderId) -> BoxFuture<'_, Result<(), AuthorityError>>;
}
