//! The port to whatever divides an open tranche among edges.
//!
//! Invariant: a permit is installed at most once, by type: [`InstallPermit`] is neither
//! `Clone` nor `Copy` and [`Dispatcher::install`] consumes it. On any doubt the tranche is
//! abandoned, never sent again; the authority credits it once it is reported unspent.

use super::{Bounds, EpochRef, Fence, HolderId, WindowKey};
use crate::{BoxFuture, clock::UnixMs};

/// The right to hand out one tranche, once. Made by the authority after its commit.
#[derive(Debug)]
pub struct InstallPermit {
    key: WindowKey,
    fence: Fence,
    epoch: u64,
    tranche: u64,
    beyond: u64,
    issued_at: UnixMs,
}

impl InstallPermit {
    /// For implementations of [`super::Authority`] only, after the tranche is durable.
    #[must_use]
    pub fn issue(of: EpochRef, fence: Fence, tranche: u64, beyond: u64, issued_at: UnixMs) -> Self {
        let EpochRef { key, epoch } = of;
        Self { key, fence, epoch, tranche, beyond, issued_at }
    }

    /// The account that was debited.
    #[must_use]
    pub const fn key(&self) -> WindowKey {
        self.key
    }

    /// The dispatcher it is for.
    #[must_use]
    pub const fn fence(&self) -> Fence {
        self.fence
    }

    /// Number of the tranche in its window, from 1.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Tokens in it.
    #[must_use]
    pub const fn tranche(&self) -> u64 {
        self.tranche
    }

    /// Tokens that the authority can still open after it.
    #[must_use]
    pub const fn beyond(&self) -> u64 {
        self.beyond
    }

    /// The authority's time when it debited.
    #[must_use]
    pub const fn issued_at(&self) -> UnixMs {
        self.issued_at
    }
}

/// An edge asks for tokens, gives some back, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseRequest {
    /// Of which account.
    pub key: WindowKey,
    /// For whom.
    pub holder: HolderId,
    /// Rises with every new message of a holder about an account. The same number again
    /// is the same message again: it brings the recorded grant.
    pub seq: u64,
    /// How many would be useful; 0 only gives back.
    pub want: u64,
    /// Tokens that come back; the caller has already made sure that it will not spend them.
    pub returned: u64,
    /// The epoch that they are of. Of another than the current one they are not taken in:
    /// they are credited when that epoch is reconciled.
    pub returned_epoch: u64,
    /// What the caller may spend.
    pub bounds: Bounds,
}

/// Tokens of one tranche, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// How many.
    pub tokens: u64,
    /// Of which tranche.
    pub epoch: u64,
    /// Size of that tranche.
    pub tranche: u64,
    /// Tokens that the dispatcher still has, next tranche included.
    pub free: u64,
    /// Tokens that the authority can still open, as far as the dispatcher knows.
    pub beyond: u64,
    /// Whether the next tranche should be opened now, in the background.
    pub low: bool,
    /// Time after the request was sent in which the tokens may be spent, ms: ends with the
    /// window.
    pub ttl_ms: u64,
}

/// What the dispatcher says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseAnswer {
    /// Tokens.
    Granted(Grant),
    /// Nothing was wanted; what was returned is taken in, as far as it can be.
    Returned,
    /// Nothing left here, or no tranche of this dispatcher life is installed: the next has
    /// to be opened, if the authority has one.
    Next,
    /// The current epoch is not within the caller's bounds: it has to confirm them.
    Stale {
        /// The current epoch.
        epoch: u64,
    },
    /// Nothing left here or at the authority, but others hold tokens that may come back;
    /// they were asked to.
    Soft,
    /// The message is older than one that was taken in already: nothing was done.
    Old,
}

/// The dispatcher cannot answer, or refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DispatcherError {
    /// The permit was issued for another dispatcher life.
    #[error("the tranche was opened for another dispatcher")]
    Fenced,
    /// The epoch is not newer than what is installed, or two tranches are installed.
    #[error("the tranche does not follow the installed ones")]
    OutOfOrder,
    /// It did not answer in time, or is not reachable. Nobody knows what it did.
    #[error("the dispatcher did not answer")]
    Unavailable,
}

/// Who has how many tokens of an epoch.
pub type Shares = Vec<(HolderId, u64)>;

/// Divides open tranches among holders. Never blocks a thread.
pub trait Dispatcher: Send + Sync {
    /// For whom a tranche of this account has to be opened; `None` while that is not known,
    /// because no server answers.
    fn fence(&self, key: &WindowKey) -> Option<Fence>;

    /// Takes in a tranche: as the current one, or as the next when the current one has
    /// tokens left.
    ///
    /// # Errors
    /// On any error the tranche is abandoned: never sent again, credited when its epoch is
    /// reconciled. Only of [`DispatcherError::Unavailable`] tokens may have been granted.
    fn install(&self, permit: InstallPermit) -> BoxFuture<'_, Result<(), DispatcherError>>;

    /// Takes tokens back and grants tokens of the current tranche, or of the next when the
    /// current is used up.
    ///
    /// # Errors
    /// [`DispatcherError::Unavailable`]: the same message may be sent again, with the same
    /// number, or never.
    fn lease(&self, request: LeaseRequest) -> BoxFuture<'_, Result<LeaseAnswer, DispatcherError>>;

    /// Forbids further grants and returns of an epoch and of those before it, and answers
    /// who has how many tokens of that epoch, not returned. `None` when it does not know the
    /// epoch, or it was opened for another dispatcher life.
    ///
    /// # Errors
    /// [`DispatcherError::Unavailable`].
    fn close(
        &self,
        of: EpochRef,
        fence: Fence,
    ) -> BoxFuture<'_, Result<Option<Shares>, DispatcherError>>;
}
