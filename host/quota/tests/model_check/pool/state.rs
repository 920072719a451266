//! Accounts, ledgers and leases of two children and their pool.

use crate::codec::{Codec, Fields};

pub(crate) const EPOCHS: usize = 3;
/// Two children and their pool.
pub(crate) const LEVELS: usize = 3;
pub(crate) const POOL: usize = 2;

/// An epoch's way through the authority; 0: it was not opened.
pub(crate) mod phase {
    pub(crate) const OPEN: u8 = 1;
    pub(crate) const CLOSING: u8 = 2;
    pub(crate) const RECONCILED: u8 = 3;
}

/// Index of a part in a pair. The pool has only a shared one: what it reserves for its
/// children it never hands out.
pub(crate) const OWN: usize = 0;
pub(crate) const SHARED: usize = 1;

#[derive(Clone, Copy, Default)]
pub(crate) struct Epoch {
    pub phase: u8,
    pub tranche: [u8; 2],
    /// By final figures of leases.
    pub spent: [u8; 2],
}

/// One level at the authority.
#[derive(Clone, Copy, Default)]
pub(crate) struct Account {
    pub available: u8,
    /// Own tokens granted, less those credited.
    pub own: u8,
    pub latest: u8,
    pub floor: u8,
    pub epochs: [Epoch; EPOCHS],
}

/// One level at the dispatcher.
#[derive(Clone, Copy, Default)]
pub(crate) struct Ledger {
    pub epoch: u8,
    pub left: [u8; 2],
}

/// What the edge may spend for a child, or for the pool's own traffic.
#[derive(Clone, Copy, Default)]
pub(crate) struct Lease {
    pub shared: bool,
    /// At the child's level; 0: no lease (or the pool's own traffic).
    pub epoch: u8,
    /// At the pool's; 0: an own lease.
    pub pool_epoch: u8,
    pub tokens: u8,
    pub spent: u8,
}

#[derive(Clone, Copy, Default)]
pub(crate) struct State {
    pub accounts: [Account; LEVELS],
    pub ledgers: [Ledger; LEVELS],
    pub leases: [Lease; LEVELS],
    /// Ground truth per level: the pool's is its own traffic.
    pub used: [u8; LEVELS],
}

impl Fields for State {
    fn fields<const W: usize>(&mut self, codec: &mut Codec<W>) {
        for account in &mut self.accounts {
            codec.field(&mut account.available, 3);
            codec.field(&mut account.own, 3);
            codec.field(&mut account.latest, 2);
            codec.field(&mut account.floor, 2);
            for epoch in &mut account.epochs {
                codec.field(&mut epoch.phase, 2);
                codec.each(&mut epoch.tranche, 2);
                codec.each(&mut epoch.spent, 3);
            }
        }
        for ledger in &mut self.ledgers {
            codec.field(&mut ledger.epoch, 2);
            codec.each(&mut ledger.left, 3);
        }
        for lease in &mut self.leases {
            codec.flag(&mut lease.shared);
            codec.field(&mut lease.epoch, 2);
            codec.field(&mut lease.pool_epoch, 2);
            codec.field(&mut lease.tokens, 3);
            codec.field(&mut lease.spent, 3);
        }
        codec.each(&mut self.used, 3);
    }
}

impl Lease {
    pub(crate) fn part(&self) -> usize {
        usize::from(self.shared)
    }

    /// The epoch that it debits at a level, given whose lease it is; 0: none.
    pub(crate) fn epoch_at(&self, whose: usize, level: usize) -> u8 {
        match level {
            POOL => self.pool_epoch,
            level if level == whose => self.epoch,
            _ => 0,
        }
    }

    pub(crate) fn is_free(&self) -> bool {
        self.epoch == 0 && self.pool_epoch == 0
    }
}

impl State {
    /// Whether the level's current epoch may be handed out.
    pub(crate) fn current(&self, level: usize) -> Option<u8> {
        let epoch = self.ledgers[level].epoch;
        (epoch > self.accounts[level].floor).then_some(epoch)
    }
}
