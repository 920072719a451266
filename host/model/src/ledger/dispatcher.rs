//! The port to whatever divides an open tranche among edges.
//!
//! Invariant: a permit is installed at most once, by type: [`InstallPermit`] is neither
//! `Clone` nor `Copy` and [`Dispatcher::install`] consumes it. On any doubt the tranche is
//! abandoned, never sent again; the authority credits it once it is reported unspent.

use super::{Fence, HolderId, WindowKey};
use crate::BoxFuture;

/// The right to hand out one tranche, once. Made by the authority after its commit.
#[derive(Debug)]
pub struct InstallPermit {
    key: WindowKey,
    fence: Fence,
    epoch: u64,
    tranche: u64,
    beyond: u64,
}

impl InstallPermit {
    /// For implementations of [`super::Authority`] only, after the tranche is durable.
    #[must_use]
    pub fn issue(key: WindowKey, fence: Fence, epoch: u64, tranche: u64, beyond: u64) -> Self {
        Self { key, fence, epoch, tranche, beyond }
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
}

/// An edge asks for tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseRequest {
    /// Of which account.
    pub key: WindowKey,
    /// For whom.
    pub holder: HolderId,
    /// How many would be useful; at least 1.
    pub want: u64,
}

/// What the dispatcher says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseAnswer {
    /// Tokens, at least one.
    Granted {
        /// How many.
        tokens: u64,
        /// Of which tranche.
        epoch: u64,
        /// Size of that tranche.
        tranche: u64,
        /// Tokens that the dispatcher still has, next tranche included.
        free: u64,
        /// Tokens that the authority can still open, as far as the dispatcher knows.
        beyond: u64,
        /// Whether the next tranche should be opened now, in the background.
        low: bool,
    },
    /// Nothing left here: a tranche has to be opened.
    Next,
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
    /// It did not answer in time.
    #[error("the dispatcher did not answer")]
    Unavailable,
}

/// Divides open tranches. Never blocks a thread.
pub trait Dispatcher: Send + Sync {
    /// Whom tranches have to be opened for.
    fn fence(&self) -> Fence;

    /// Takes in a tranche: as the current one, or as the next when the current one has
    /// tokens left.
    ///
    /// # Errors
    /// On any error the tranche is abandoned and nothing of it was or will be granted.
    fn install(&self, permit: InstallPermit) -> BoxFuture<'_, Result<(), DispatcherError>>;

    /// Grants tokens of the current tranche, or of the next when the current is used up.
    ///
    /// # Errors
    /// [`DispatcherError::Unavailable`].
    fn lease(&self, request: LeaseRequest) -> BoxFuture<'_, Result<LeaseAnswer, DispatcherError>>;

    /// Forbids further grants of every installed tranche of an account and answers their
    /// `(epoch, size)`, oldest first.
    ///
    /// # Errors
    /// [`DispatcherError::Unavailable`].
    fn close(&self, key: WindowKey) -> BoxFuture<'_, Result<Vec<(u64, u64)>, DispatcherError>>;
}
