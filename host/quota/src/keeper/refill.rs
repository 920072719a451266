//! Filling a lease from the dispatcher, and ending it.
//!
//! Invariant: of one tranche there is at most one record in the life of a holder, so its
//! figures are the tranche's. A lease of the next tranche is in place before the old one
//! is sealed, so that takers never find a gap.

use model::ledger::{LeaseAnswer, LeaseRequest, WindowKey, rules::PREOPEN_ABOVE};

use super::{
    Id, Keeper,
    account::{Account, Lease},
    report::Final,
};

/// Tokens granted of a tranche.
#[derive(Clone, Copy)]
struct Grant {
    tokens: u32,
    epoch: u64,
    tranche: u64,
}

impl Keeper {
    /// Looks at a slot and does whatever it needs.
    pub(super) async fn serve(&mut self, id: Id) {
        self.with(id, Self::serve_account).await;
    }

    pub(super) async fn serve_account(&mut self, account: &mut Account) {
        account.slot().demand_seen();
        self.follow(account).await;
        account.count(&self.shared, self.shared.clock.monotonic_ms());
        if self.stopping.is_some() {
            return;
        }
        let waiting = account.waiting();
        let tokens = account.at_hand(&self.shared).unwrap_or(0);
        let wanted = waiting > 0 || account.lease.is_some();
        if wanted && tokens <= account.slot().mark().max(u32::from(waiting > 0)) {
            self.refill(account).await;
        }
        if waiting > 0 {
            account.active_at = self.shared.clock.monotonic_ms();
            account.meter.refilled.notify_waiters();
        }
    }

    /// Brings the account up to the present window and limit.
    async fn follow(&mut self, account: &mut Account) {
        if let Some(window) = account.slot().window(self.shared.clock.now())
            && window != account.key.window
        {
            self.retire(account).await;
            account.enter(window, self.records.upcoming());
        }
        let (version, limit) = account.slot().limit();
        if version != account.version {
            account.version = version;
            account.exhausted = None;
            let fell = limit < account.limit;
            account.limit = limit;
            if fell {
                self.retire(account).await;
            }
        }
        if account.at_hand(&self.shared).is_none() {
            self.retire(account).await;
        }
    }

    async fn refill(&mut self, account: &mut Account) {
        if self.records.free() == 0 {
            tracing::warn!("all lease records are in use: raise lease_records");
            return;
        }
        let want = account.want(self.shared.clock.monotonic_ms());
        let request = LeaseRequest { key: account.key, holder: self.holder, want };
        match self.dispatcher.lease(request).await {
            Ok(LeaseAnswer::Granted { tokens, epoch, tranche, free, beyond, low }) => {
                let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
                self.credit(account, Grant { tokens, epoch, tranche }).await;
                account.slot().set_beyond(free.saturating_add(beyond));
                if low && !self.believes_exhausted(account) {
                    self.request_tranche(account);
                }
            }
            Ok(LeaseAnswer::Next) => self.dry(account),
            Err(error) => {
                tracing::warn!(%error, "the dispatcher gave no lease");
                account.slot().set_refused(true);
            }
        }
    }

    /// The dispatcher has nothing: ask the authority, unless it is too early or known to
    /// be in vain.
    fn dry(&mut self, account: &mut Account) {
        let tokens = account.at_hand(&self.shared).unwrap_or(0);
        account.slot().set_mark(0);
        let small = account.lease.as_ref().is_some_and(|lease| lease.tranche <= PREOPEN_ABOVE);
        if tokens > 0 && small {
            return;
        }
        if !self.believes_exhausted(account) {
            self.request_tranche(account);
            return;
        }
        account.slot().set_beyond(0);
        if let Some(until) = account.exhausted
            && tokens == 0
            && account.pending == 0
        {
            account.slot().declare_empty(account.version, until);
        }
    }

    fn believes_exhausted(&self, account: &Account) -> bool {
        let now = self.shared.clock.now();
        account.exhausted.is_some_and(|until| {
            now < until && until.ms_since(now) <= self.shared.config.empty_cache_ms
        })
    }

    async fn credit(&mut self, account: &mut Account, grant: Grant) {
        let placed = match &account.lease {
            Some(lease) if lease.epoch == grant.epoch => {
                let record = self.shared.map.record(lease.record);
                record.is_some_and(|record| record.grant(lease.generation, grant.tokens))
            }
            _ => self.begin(account, grant),
        };
        // A limit that fell meanwhile sealed the lease that it saw, perhaps not this one.
        let (version, limit) = account.slot().limit();
        if !placed || (version != account.version && limit < account.limit) {
            self.retire(account).await;
            return;
        }
        let at_hand = account.at_hand(&self.shared).unwrap_or(0);
        account.slot().set_mark(at_hand / 2);
        account.slot().set_refused(false);
        account.slot().clear_empty();
    }

    /// Starts a record for the tokens of another tranche and seals the one before.
    fn begin(&mut self, account: &mut Account, grant: Grant) -> bool {
        let Some(index) = self.records.take() else { return false };
        let Some(record) = self.shared.map.record(index) else { return false };
        let generation = self.records.next_generation();
        let Grant { tokens, epoch, tranche } = grant;
        record.begin(&account.key, epoch, tranche, (generation, tokens));
        let lease =
            Lease { record: index, generation, epoch, tranche, counted: (0, 0), reported: (0, 0) };
        account.slot().publish(generation, index);
        account.count(&self.shared, self.shared.clock.monotonic_ms());
        if let Some(old) = account.lease.replace(lease) {
            self.finish(account, &old);
        }
        true
    }

    /// Ends every tranche that the account holds.
    pub(super) async fn retire(&mut self, account: &mut Account) {
        let mut leased = None;
        if account.lease.is_some() {
            account.slot().withdraw();
            account.count(&self.shared, self.shared.clock.monotonic_ms());
        }
        if let Some(lease) = account.lease.take() {
            leased = Some(lease.epoch);
            self.finish(account, &lease);
        }
        match self.dispatcher.close(account.key).await {
            Ok(tranches) => {
                for (epoch, tranche) in tranches {
                    if leased != Some(epoch) {
                        self.give_up(account, epoch, tranche);
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "the dispatcher did not close an account"),
        }
    }

    /// Seals a record and queues its final figures.
    fn finish(&mut self, account: &mut Account, lease: &Lease) {
        let Some(record) = self.shared.map.record(lease.record) else { return };
        record.seal(lease.generation);
        account.pending += 1;
        self.finals.push(Final {
            id: account.id(),
            key: account.key,
            epoch: lease.epoch,
            tranche: lease.tranche,
            spent: record.spent(),
            refunded: record.refunded(),
            record: Some(lease.record),
        });
    }

    /// Reports a tranche of this window of which no token was handed out.
    pub(super) fn give_up(&mut self, account: &mut Account, epoch: u64, tranche: u64) {
        account.pending += 1;
        self.report_unspent(account.id(), account.key, epoch, tranche);
    }

    /// Reports a tranche, perhaps of an earlier window, of which no token was handed out.
    pub(super) fn report_unspent(&mut self, id: Id, key: WindowKey, epoch: u64, tranche: u64) {
        self.finals.push(Final { id, key, epoch, tranche, spent: 0, refunded: 0, record: None });
    }
}
