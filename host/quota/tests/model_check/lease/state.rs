//! What the authority, the dispatchers and the holders know.
//!
//! Epochs are numbered from 1; index 0 of an array is epoch 1. Messages stay on the wire
//! for good: one that is never delivered was lost, one that is delivered again is a
//! duplicate.

use crate::codec::{Codec, Fields};

pub(crate) const EPOCHS: usize = 3;
pub(crate) const HOLDERS: usize = 2;
pub(crate) const SERVERS: usize = 2;
pub(crate) const MESSAGES: usize = 3;
/// No figure yet.
pub(crate) const UNKNOWN: u8 = 7;

/// An epoch's way through the authority.
pub(crate) mod phase {
    pub(crate) const NONE: u8 = 0;
    pub(crate) const OPEN: u8 = 1;
    pub(crate) const CLOSING: u8 = 2;
    pub(crate) const RECONCILED: u8 = 3;
}

/// A holder, as the authority knows it.
pub(crate) mod row {
    pub(crate) const ABSENT: u8 = 0;
    pub(crate) const REGISTERED: u8 = 1;
    pub(crate) const ENDED: u8 = 2;
    pub(crate) const LOST: u8 = 3;
}

/// A holder's process.
pub(crate) mod life {
    pub(crate) const UNBORN: u8 = 0;
    pub(crate) const ALIVE: u8 = 1;
    /// Killed; its lease file is intact.
    pub(crate) const KILLED: u8 = 2;
    /// Its machine went down: its lease file is gone or stale.
    pub(crate) const GONE: u8 = 3;
}

#[derive(Clone, Copy, Default)]
pub(crate) struct Epoch {
    pub phase: u8,
    pub tranche: u8,
    /// The server that hands it out; with `direct`, the holder that has it to itself.
    pub place: u8,
    pub direct: bool,
    /// The permit is on its way.
    pub permit: bool,
    /// Only without [`super::rules::Rules::listed_after_closing`]: holders as listed early,
    /// one bit each, and a bit that says so.
    pub listed: u8,
    /// Final figures of each holder, or [`UNKNOWN`].
    pub sealed: [u8; HOLDERS],
    /// Only without the rules that ask for final figures: the latest others.
    pub told: [u8; HOLDERS],
}

/// One account at one server.
#[derive(Clone, Copy, Default)]
pub(crate) struct Ledger {
    /// 0: no ledger.
    pub current: u8,
    pub left: u8,
    pub next: u8,
    pub next_left: u8,
    /// Epochs up to here were closed.
    pub closed: u8,
    /// Epochs it knows, one bit each.
    pub known: u8,
    /// Per epoch and holder: tokens granted and not returned.
    pub out: [[u8; HOLDERS]; EPOCHS],
    pub last: [Last; HOLDERS],
}

/// The last message of a holder and what it brought.
#[derive(Clone, Copy, Default)]
pub(crate) struct Last {
    pub seq: u8,
    pub epoch: u8,
    pub granted: u8,
}

#[derive(Clone, Copy, Default)]
pub(crate) struct Message {
    pub sent: bool,
    pub want: bool,
    pub returned: u8,
    pub returned_epoch: u8,
    pub floor: u8,
    pub latest: u8,
}

#[derive(Clone, Copy, Default)]
pub(crate) struct Holder {
    pub row: u8,
    pub life: u8,
    /// Bounds as confirmed; (0, 0) allows nothing.
    pub floor: u8,
    pub latest: u8,
    /// Tokens at hand, per epoch.
    pub cell: [u8; EPOCHS],
    /// Tokens taken and not given back within the lease.
    pub spent: [u8; EPOCHS],
    pub sealed: [bool; EPOCHS],
    /// Refunds after a seal that the authority does not know of.
    pub late: u8,
    /// Of the last message; 0: none.
    pub seq: u8,
    /// The reply to it was not taken in.
    pub waiting: bool,
    /// A reply on its way: epoch (0: none) and tokens.
    pub reply_epoch: u8,
    pub reply: u8,
    pub messages: [Message; MESSAGES],
}

#[derive(Clone, Copy, Default)]
pub(crate) struct State {
    /// `limit − granted + credited`.
    pub available: u8,
    pub latest: u8,
    pub floor: u8,
    pub epochs: [Epoch; EPOCHS],
    pub servers: [Ledger; SERVERS],
    pub holders: [Holder; HOLDERS],
    pub refunds_left: u8,
    /// Ground truth: tokens taken, less refunds.
    pub charged: u8,
}

impl Fields for State {
    fn fields<const W: usize>(&mut self, codec: &mut Codec<W>) {
        codec.field(&mut self.available, 3);
        codec.field(&mut self.latest, 2);
        codec.field(&mut self.floor, 2);
        codec.field(&mut self.refunds_left, 1);
        codec.field(&mut self.charged, 3);
        for epoch in &mut self.epochs {
            epoch.fields(codec);
        }
        for server in &mut self.servers {
            server.fields(codec);
        }
        for holder in &mut self.holders {
            holder.fields(codec);
        }
    }
}

impl Epoch {
    fn fields<const W: usize>(&mut self, codec: &mut Codec<W>) {
        codec.field(&mut self.phase, 2);
        codec.field(&mut self.tranche, 2);
        codec.field(&mut self.place, 1);
        codec.flag(&mut self.direct);
        codec.flag(&mut self.permit);
        codec.field(&mut self.listed, 3);
        codec.each(&mut self.sealed, 3);
        codec.each(&mut self.told, 3);
    }
}

impl Ledger {
    fn fields<const W: usize>(&mut self, codec: &mut Codec<W>) {
        codec.field(&mut self.current, 2);
        codec.field(&mut self.left, 3);
        codec.field(&mut self.next, 2);
        codec.field(&mut self.next_left, 2);
        codec.field(&mut self.closed, 2);
        codec.field(&mut self.known, 3);
        for out in &mut self.out {
            codec.each(out, 3);
        }
        for last in &mut self.last {
            codec.field(&mut last.seq, 2);
            codec.field(&mut last.epoch, 2);
            codec.field(&mut last.granted, 3);
        }
    }
}

impl Message {
    fn fields<const W: usize>(&mut self, codec: &mut Codec<W>) {
        codec.flag(&mut self.sent);
        codec.flag(&mut self.want);
        codec.field(&mut self.returned, 3);
        codec.field(&mut self.returned_epoch, 2);
        codec.field(&mut self.floor, 2);
        codec.field(&mut self.latest, 2);
    }
}

impl Holder {
    fn fields<const W: usize>(&mut self, codec: &mut Codec<W>) {
        codec.field(&mut self.row, 2);
        codec.field(&mut self.life, 2);
        codec.field(&mut self.floor, 2);
        codec.field(&mut self.latest, 2);
        codec.each(&mut self.cell, 3);
        codec.each(&mut self.spent, 3);
        for sealed in &mut self.sealed {
            codec.flag(sealed);
        }
        codec.field(&mut self.late, 2);
        codec.field(&mut self.seq, 2);
        codec.flag(&mut self.waiting);
        codec.field(&mut self.reply_epoch, 2);
        codec.field(&mut self.reply, 3);
        for message in &mut self.messages {
            message.fields(codec);
        }
    }
}

impl State {
    /// Whether the dispatchers hand this epoch out, or did.
    pub(crate) fn shared(&self, epoch: u8) -> bool {
        let Epoch { phase, direct, .. } = self.epochs[usize::from(epoch) - 1];
        phase != phase::NONE && !direct
    }

    /// Forgets what can have no effect any more, so that equal futures are one state.
    pub(crate) fn tidied(mut self) -> Self {
        for holder in &mut self.holders {
            match holder.life {
                life::ALIVE => {}
                // Only the figures of the file matter, until they are inherited.
                life::KILLED if holder.row == row::REGISTERED => holder.forget(false),
                life::KILLED | life::GONE => holder.forget(true),
                _ => {}
            }
            if !holder.waiting {
                (holder.reply_epoch, holder.reply) = (0, 0);
            }
        }
        for epoch in self.epochs.iter_mut().filter(|epoch| epoch.phase == phase::RECONCILED) {
            (epoch.sealed, epoch.told, epoch.listed) = ([0; HOLDERS], [0; HOLDERS], 0);
            (epoch.tranche, epoch.place) = (epoch.tranche * u8::from(epoch.permit), epoch.place);
        }
        self
    }
}

impl Holder {
    fn forget(&mut self, figures: bool) {
        let Self { row, life, spent, seq, messages, .. } = *self;
        let spent = if figures { [0; EPOCHS] } else { spent };
        *self = Self { row, life, spent, seq, messages, ..Self::default() };
    }
}
