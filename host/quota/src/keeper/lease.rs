//! Filling a lease from a dispatcher, and ending it.
//!
//! Invariant: of an own tranche there is at most one record in the life of a holder; of a
//! shared one there may be several, one after the other, and none after this holder has
//! said that it sealed it. A lease of the next tranche is in place before the old one is
//! sealed, so that takers never find a gap. A grant whose account has moved on is dropped:
//! it is credited when its epoch is reconciled.

use model::ledger::{
    DispatcherError, EpochRef, Grant, LeaseAnswer, LeaseReport, LeaseRequest, WindowKey,
    rules::PREOPEN_ABOVE,
};

use super::{
    Answered, Id, Keeper,
    account::{Account, Lease, Parked, Via},
    report::Word,
};
use crate::slot::NEVER;

/// Time for which others' last tokens are waited for before a request is refused, in ms:
/// about what a recall takes.
const SOFT_WAIT_MS: u64 = 50;
/// While a tranche is being opened, a dispatcher that had nothing is asked again after this
/// time, in ms: others may have given something back.
const OPENING_MS: u64 = 50;
/// How long "the rest lies at a dispatcher that is away" is believed, in ms: refusals
/// meanwhile cost nothing, and its return is noticed soon.
const AWAY_MS: u64 = 1_000;
/// How long "others hold the last tokens" is believed, in ms: refusals meanwhile cost no
/// call, and tokens that came back are found soon.
const SOFT_MS: u64 = 200;

/// A dispatcher's answer to a message.
pub(super) struct Leased {
    id: Id,
    key: WindowKey,
    via: Via,
    seq: u64,
    /// On the monotonic clock, ms.
    sent_at: u64,
    answer: Result<LeaseAnswer, DispatcherError>,
}

impl Keeper {
    /// Looks at a slot and does whatever it needs.
    pub(super) fn serve(&mut self, id: Id) {
        self.with(id, Self::serve_account);
    }

    pub(super) fn serve_account(&mut self, account: &mut Account) {
        account.slot().demand_seen();
        self.follow(account);
        account.count(&self.shared, self.shared.clock.monotonic_ms());
        if self.stopping.is_some() {
            return;
        }
        let waiting = account.waiting();
        let tokens = account.at_hand(&self.shared).unwrap_or(0);
        let wanted = waiting > 0 || account.lease.is_some();
        if wanted && tokens <= account.slot().mark().max(u32::from(waiting > 0)) {
            self.refill(account);
        }
        if waiting > 0 {
            account.active_at = self.shared.clock.monotonic_ms();
        }
        if self.has_more(account) && waiting > 0 {
            account.meter.refilled.notify_waiters();
        }
    }

    /// Whether there are more tokens at hand than at the last look. Who waits for the other
    /// metric takes and gives back what it finds here, and asks for more at once: told of
    /// nothing new it would do so again and again.
    fn has_more(&self, account: &mut Account) -> bool {
        let tokens = account.at_hand(&self.shared).unwrap_or(0);
        tokens > std::mem::replace(&mut account.seen, tokens)
    }

    /// Brings the account up to the present window and limit.
    fn follow(&mut self, account: &mut Account) {
        if let Some(window) = account.slot().window(self.shared.clock.now())
            && window != account.key.window
        {
            self.retire(account);
            account.enter(window, self.records.upcoming());
        }
        let (version, limit) = account.slot().limit();
        if version != account.version {
            account.version = version;
            account.exhausted = None;
            let fell = limit < account.limit;
            account.limit = limit;
            if fell {
                self.retire(account);
                self.request_close(account);
            }
        }
        if account.at_hand(&self.shared).is_none() {
            self.retire(account);
        }
        self.park_expired(account);
    }

    /// Asks for tokens, or for what has to be known first.
    fn refill(&mut self, account: &mut Account) {
        if account.is_busy() {
            return;
        }
        if self.records.free() == 0 {
            tracing::warn!("all lease records are in use: raise lease_records");
            account.retry_at = self.shared.clock.monotonic_ms() + OPENING_MS;
            self.retries.insert(account.id());
            return;
        }
        let now = self.shared.clock.monotonic_ms();
        if now < account.retry_at {
            self.retries.insert(account.id());
            return;
        }
        let via = self.via(account);
        let shared = account.lease.as_ref().is_some_and(|lease| lease.via == Via::Shared);
        if via == Via::Direct && shared && account.at_hand(&self.shared).unwrap_or(0) > 0 {
            // What is left of the lease is spent before a tranche of this edge is opened.
            account.slot().set_mark(0);
            return;
        }
        if via == Via::Shared && !account.confirmed {
            self.request_confirm(account);
            return;
        }
        let want = account.want(now);
        self.send_lease(account, via, want);
    }

    /// Sends one message: what is wanted, and what is parked.
    pub(super) fn send_lease(&mut self, account: &mut Account, via: Via, want: u64) {
        let returned = if via == Via::Shared { account.parked.take() } else { None };
        self.messages += 1;
        let (seq, sent_at) = (self.messages, self.shared.clock.monotonic_ms());
        let request = LeaseRequest {
            key: account.key,
            holder: self.holder,
            seq,
            want,
            returned: returned.map_or(0, |parked| parked.tokens),
            returned_epoch: returned.map_or(0, |parked| parked.epoch),
            bounds: match via {
                Via::Shared => account.bounds,
                Via::Direct => model::ledger::Bounds { floor: 0, latest: u64::MAX },
            },
        };
        if via == Via::Shared {
            self.shared.metrics.dispatcher_leases.inc();
        }
        account.leasing = Some(seq);
        let dispatcher = self.dispatcher(via);
        let (id, key) = (account.id(), account.key);
        self.answers.push(Box::pin(async move {
            let answer = dispatcher.lease(request).await;
            Answered::Leased(Leased { id, key, via, seq, sent_at, answer })
        }));
    }

    pub(super) fn on_leased(&mut self, leased: Leased) {
        if leased.answer.is_err() {
            self.shared.metrics.dispatcher_failures.inc();
        }
        self.with(leased.id, |keeper, account| {
            if account.key != leased.key || account.leasing != Some(leased.seq) {
                return;
            }
            account.leasing = None;
            keeper.take_answer(account, &leased);
            if keeper.has_more(account) || account.seen == 0 {
                account.meter.refilled.notify_waiters();
            }
        });
    }

    fn take_answer(&mut self, account: &mut Account, leased: &Leased) {
        if self.stopping.is_some() {
            return;
        }
        let via = leased.via;
        match leased.answer {
            Ok(LeaseAnswer::Granted(grant)) => self.take_grant(account, leased, grant),
            Ok(LeaseAnswer::Returned) => {}
            Ok(LeaseAnswer::Next) => self.dry(account, via, false),
            Ok(LeaseAnswer::Soft) => self.dry(account, via, true),
            Ok(LeaseAnswer::Stale { .. }) => self.request_confirm(account),
            Ok(LeaseAnswer::Old) => self.serve_account(account),
            // The breaker of the shared dispatcher is open now: go on without it.
            Err(_) if account.waiting() > 0 => self.serve_account(account),
            Err(_) => {}
        }
    }

    fn take_grant(&mut self, account: &mut Account, leased: &Leased, grant: Grant) {
        let via = leased.via;
        if via == Via::Shared && !account.bounds.allow(grant.epoch) {
            self.request_confirm(account);
            return;
        }
        account.soft = 0;
        let left = account.key.window.end.ms_since(self.shared.clock.latest());
        let end = self.shared.clock.monotonic_ms().saturating_add(left);
        let expires = match via {
            Via::Direct if self.common.is_none() => NEVER,
            // Whoever shares windows leaves them early, by all tokens.
            Via::Direct => end,
            Via::Shared => leased.sent_at.saturating_add(grant.ttl_ms).min(end),
        };
        self.credit(account, via, grant, expires);
        if via == Via::Shared {
            // An own tranche may have come while the shared dispatcher was found again.
            self.forget_own(account);
        }
        account.slot().set_beyond(grant.free.saturating_add(grant.beyond));
        if grant.low && !self.believes_exhausted(account) {
            self.request_tranche(account, via);
        }
        if account.waiting() > 0 {
            self.serve_account(account);
        }
    }

    /// The dispatcher has nothing: ask the authority, unless it is too early or known to
    /// be in vain.
    fn dry(&mut self, account: &mut Account, via: Via, soft: bool) {
        let tokens = account.at_hand(&self.shared).unwrap_or(0);
        account.slot().set_mark(0);
        let small = account.lease.as_ref().is_some_and(|lease| lease.tranche <= PREOPEN_ABOVE);
        if tokens > 0 && small {
            return;
        }
        if !self.believes_exhausted(account) {
            let now = self.shared.clock.monotonic_ms();
            if now < account.grace_until {
                account.retry_at = now + 10;
            } else {
                self.request_tranche(account, via);
                account.retry_at = now + OPENING_MS;
            }
            self.retries.insert(account.id());
            return;
        }
        account.slot().set_beyond(0);
        if via == Via::Shared && tokens == 0 {
            self.leave_own(account);
        }
        if tokens > 0 || account.pending > 0 {
            // What the authority does not have yet may come back; its answer is told at once.
            account.retry_at = self.shared.clock.monotonic_ms() + OPENING_MS;
            self.retries.insert(account.id());
            return;
        }
        let now = self.shared.clock.monotonic_ms();
        if soft || now < account.settles_until {
            self.wait_for_others(account);
        } else if via == Via::Shared && account.bounds.floor < account.bounds.latest {
            // An epoch is open of which the dispatcher has nothing and nobody a lease: what
            // is left of it, if it was ever installed, comes back when it is closed.
            self.request_close(account);
        } else if via == Via::Direct && self.common.is_some() && !account.confirmed {
            self.request_confirm(account);
        } else if via == Via::Direct
            && self.common.is_some()
            && account.bounds.floor < account.bounds.latest
        {
            // Not the tenant's fault. Looked at again soon, whatever becomes of it.
            account.slot().declare_away(now + AWAY_MS);
        } else if let Some(until) = account.exhausted {
            account.slot().declare_empty(account.version, until);
        }
    }

    /// Others hold the last tokens: waits once, then refuses for a moment.
    fn wait_for_others(&mut self, account: &mut Account) {
        let now = self.shared.clock.monotonic_ms();
        account.soft += 1;
        if account.soft > 1 {
            account.slot().declare_soft(now + SOFT_MS);
            account.soft = 0;
        } else {
            account.retry_at = now + SOFT_WAIT_MS;
            self.retries.insert(account.id());
        }
        self.hurry_report();
    }

    pub(super) fn believes_exhausted(&self, account: &Account) -> bool {
        let now = self.shared.clock.now();
        account.exhausted.is_some_and(|until| {
            now < until && until.ms_since(now) <= self.shared.config.empty_cache_ms
        })
    }

    fn credit(&mut self, account: &mut Account, via: Via, grant: Grant, expires: u64) {
        let tokens = u32::try_from(grant.tokens).unwrap_or(u32::MAX);
        let now = self.shared.clock.monotonic_ms();
        let placed = match &mut account.lease {
            Some(lease) if lease.epoch == grant.epoch => {
                lease.expires = expires;
                lease.renew_at = now + expires.saturating_sub(now) / 2;
                account.meter.slots.get(account.index).is_some_and(|slot| {
                    slot.prolong(expires);
                    let record = self.shared.map.record(lease.record);
                    record.is_some_and(|record| record.grant(lease.generation, tokens))
                })
            }
            _ => self.begin(account, via, grant, expires),
        };
        // A limit that fell meanwhile sealed the lease that it saw, perhaps not this one.
        let (version, limit) = account.slot().limit();
        if !placed || (version != account.version && limit < account.limit) {
            self.retire(account);
            return;
        }
        let at_hand = account.at_hand(&self.shared).unwrap_or(0);
        account.slot().set_mark(at_hand / 2);
        account.slot().set_refused(false);
        account.slot().clear_empty();
    }

    /// Starts a record for the tokens of another tranche and seals the one before.
    fn begin(&mut self, account: &mut Account, via: Via, grant: Grant, expires: u64) -> bool {
        let Some(index) = self.records.take() else { return false };
        let Some(record) = self.shared.map.record(index) else { return false };
        let generation = self.records.next_generation();
        let Grant { epoch, tranche, .. } = grant;
        let tokens = u32::try_from(grant.tokens).unwrap_or(u32::MAX);
        record.begin(&EpochRef { key: account.key, epoch }, tranche, generation, tokens);
        let now = self.shared.clock.monotonic_ms();
        let lease = Lease {
            via,
            record: index,
            generation,
            epoch,
            tranche,
            renew_at: now + expires.saturating_sub(now) / 2,
            expires,
            counted: (0, 0),
            reported: (0, 0),
        };
        account.slot().publish(generation, index, expires);
        account.count(&self.shared, now);
        if let Some(old) = account.lease.replace(lease) {
            self.finish(account, &old);
        }
        true
    }

    /// Takes the tokens out of a shared lease that expired; they go back with the next message.
    /// An own one expires with its window, a little before the next is entered.
    fn park_expired(&mut self, account: &mut Account) {
        let now = self.shared.clock.monotonic_ms();
        match account.lease.as_ref().filter(|lease| lease.expires <= now).map(|lease| lease.via) {
            Some(Via::Shared) => self.park(account, 0),
            Some(Via::Direct) => {
                self.retries.insert(account.id());
            }
            None => {}
        }
    }

    /// Takes the tokens out of the present lease, but so many.
    pub(super) fn park(&mut self, account: &mut Account, but: u32) {
        let Some(lease) = &account.lease else { return };
        let Some(record) = self.shared.map.record(lease.record) else { return };
        let tokens = u64::from(record.withdraw(lease.generation, but));
        let before = account.parked.filter(|parked| parked.epoch == lease.epoch);
        let tokens = tokens + before.map_or(0, |parked| parked.tokens);
        if tokens > 0 {
            account.parked = Some(Parked { epoch: lease.epoch, tokens });
        }
    }

    /// Ends everything that the account holds: its lease, and its own tranches.
    pub(super) fn retire(&mut self, account: &mut Account) {
        self.end_lease(account);
        account.parked = None;
        self.forget_own(account);
    }

    /// Seals the lease, whatever it has left.
    pub(super) fn end_lease(&mut self, account: &mut Account) {
        if account.lease.is_some() {
            account.slot().withdraw();
            account.count(&self.shared, self.shared.clock.monotonic_ms());
        }
        if let Some(lease) = account.lease.take() {
            self.finish(account, &lease);
        }
    }

    /// Gives up own tranches of which nothing is at hand: the shared dispatcher is asked now,
    /// so that nobody would look at them as long as it has nothing to grant.
    fn leave_own(&mut self, account: &mut Account) {
        if account.lease.as_ref().is_some_and(|lease| lease.via == Via::Direct) {
            self.end_lease(account);
        }
        self.forget_own(account);
    }

    /// Seals the account's own tranches: what was not granted of them comes back.
    pub(super) fn forget_own(&mut self, account: &Account) {
        for of in self.own.forget(&account.key) {
            self.words.push(Word::Seal(of));
        }
    }

    /// Seals a record and queues its final figures. An own tranche ends with its record.
    fn finish(&mut self, account: &mut Account, lease: &Lease) {
        let Some(record) = self.shared.map.record(lease.record) else { return };
        record.seal(lease.generation);
        account.pending += 1;
        let of = EpochRef { key: account.key, epoch: lease.epoch };
        let figures = LeaseReport {
            of,
            tranche: lease.tranche,
            lease: lease.generation,
            spent: record.spent(),
            refunded: record.refunded(),
            sealed: true,
        };
        self.words.push(Word::Final { id: account.id(), figures, record: lease.record });
        if lease.via == Via::Direct {
            self.words.push(Word::Seal(of));
        }
    }
}
