//! One lease: what a holder may spend of one tranche without asking.
//!
//! Taking and refunding run on every request; everything else only in the keeper.
//! Invariant: `spent = received − returned − tokens` at every moment, killed or not: on a
//! grant `received` is written before the tokens, so a crash can only overstate it. A
//! sealed record keeps its tokens and loses its generation, which no taker then matches.

use super::sync::atomic::{AtomicU64, Ordering};

/// The generation of a record that nobody may spend from.
pub(crate) const SEALED: u32 = 0;

/// A record as it lies in the file, 128 bytes: identity in the first cache line, figures
/// in the second.
#[repr(C, align(64))]
pub(crate) struct Record {
    /// 0: free. Else a mark in the high half, a checksum of the identity in the low half.
    pub(super) state: AtomicU64,
    pub(super) identity: [AtomicU64; IDENTITY_WORDS],
    /// `generation:32 | tokens:32`.
    pub(super) cell: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) returned: AtomicU64,
    pub(super) refunded: AtomicU64,
    pub(super) spare: [AtomicU64; 3],
}

/// Tenant (two words), metric, window start and end, epoch, tranche, lease.
pub(super) const IDENTITY_WORDS: usize = 8;

const fn pack(generation: u32, tokens: u32) -> u64 {
    (generation as u64) << 32 | tokens as u64
}

const fn generation_of(cell: u64) -> u32 {
    (cell >> 32) as u32
}

const fn tokens_of(cell: u64) -> u32 {
    cell as u32
}

/// What a take found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// One token taken, so many left.
    Left(u32),
    /// No tokens.
    Dry,
    /// The record belongs to another lease now.
    Gone,
}

impl Record {
    /// Takes one token: one compare-exchange when nobody interferes.
    pub(crate) fn take(&self, generation: u32) -> Taken {
        let mut cell = self.cell.load(Ordering::Relaxed);
        loop {
            if generation_of(cell) != generation {
                return Taken::Gone;
            }
            let Some(left) = tokens_of(cell).checked_sub(1) else { return Taken::Dry };
            match self.cell.compare_exchange_weak(
                cell,
                pack(generation, left),
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Taken::Left(left),
                Err(now) => cell = now,
            }
        }
    }

    /// Puts one token back into the same lease; false when that lease is gone.
    pub(crate) fn refund(&self, generation: u32) -> bool {
        let back = self.add(generation, 1);
        if back {
            self.refunded.fetch_add(1, Ordering::Relaxed);
        }
        back
    }

    /// Takes one token back that was never admitted (the other metric had none): no refund.
    pub(crate) fn untake(&self, generation: u32) -> bool {
        self.add(generation, 1)
    }

    fn add(&self, generation: u32, tokens: u32) -> bool {
        let mut cell = self.cell.load(Ordering::Relaxed);
        loop {
            if generation == SEALED || generation_of(cell) != generation {
                return false;
            }
            let Some(sum) = tokens_of(cell).checked_add(tokens) else { return false };
            match self.cell.compare_exchange_weak(
                cell,
                pack(generation, sum),
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => cell = now,
            }
        }
    }

    /// Adds granted tokens; false when the lease was sealed meanwhile: then they are
    /// returned, and the lease is as it was. Only the keeper calls it.
    pub(crate) fn grant(&self, generation: u32, tokens: u32) -> bool {
        self.received.fetch_add(u64::from(tokens), Ordering::Release);
        let added = self.add(generation, tokens);
        if !added {
            self.returned.fetch_add(u64::from(tokens), Ordering::Release);
        }
        added
    }

    /// Takes the tokens out of the lease, but so many, so that nobody spends them: to give them
    /// back. Refunds still find it. Only the keeper calls it, before it says so to anybody.
    pub(crate) fn withdraw(&self, generation: u32, but: u32) -> u32 {
        let mut cell = self.cell.load(Ordering::Relaxed);
        loop {
            let surplus = tokens_of(cell).saturating_sub(but);
            if generation_of(cell) != generation || surplus == 0 {
                return 0;
            }
            match self.cell.compare_exchange_weak(
                cell,
                pack(generation, tokens_of(cell) - surplus),
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    self.returned.fetch_add(u64::from(surplus), Ordering::Release);
                    return surplus;
                }
                Err(now) => cell = now,
            }
        }
    }

    /// Starts a lease in a record whose figures are zero. Only the keeper calls it, after
    /// the identity is in place.
    pub(super) fn start(&self, generation: u32, tokens: u32) {
        self.received.store(u64::from(tokens), Ordering::Release);
        self.cell.store(pack(generation, tokens), Ordering::Release);
    }

    /// Ends a lease: from here on no token of it is spent or refunded. Any thread may
    /// call it, again and again.
    pub(crate) fn seal(&self, generation: u32) {
        let mut cell = self.cell.load(Ordering::Relaxed);
        while generation_of(cell) == generation {
            match self.cell.compare_exchange_weak(
                cell,
                pack(SEALED, tokens_of(cell)),
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => cell = now,
            }
        }
    }

    /// Tokens at hand under a generation; `None` when that lease is gone.
    pub(crate) fn tokens(&self, generation: u32) -> Option<u32> {
        let cell = self.cell.load(Ordering::Acquire);
        (generation_of(cell) == generation).then_some(tokens_of(cell))
    }

    /// Tokens taken and not given back. Exact once sealed, else as of some moment of the
    /// call.
    pub(crate) fn spent(&self) -> u64 {
        let tokens = u64::from(tokens_of(self.cell.load(Ordering::Acquire)));
        let received = self.received.load(Ordering::Acquire);
        let returned = self.returned.load(Ordering::Acquire);
        received.saturating_sub(returned).saturating_sub(tokens)
    }

    /// Tokens given back so far.
    pub(crate) fn refunded(&self) -> u64 {
        self.refunded.load(Ordering::Relaxed)
    }
}
