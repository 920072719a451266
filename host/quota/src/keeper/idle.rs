//! What happens without a request: retries, renewals, and tokens going back.
//!
//! Invariant: tokens leave the cell before anybody is told that they come back, and a lease
//! that was given back is sealed, so that a late refund of it goes to the window.

use model::quota::Metric;

use super::{
    Id, Keeper,
    account::{Account, Via},
};
use crate::redis::Recalled;

/// Time after which an unused lease is given up when records run out, in ms.
const SCARCE_IDLE_MS: u64 = 1_000;
/// A lease that was spent from within this time is in use, in ms: on a recall only its surplus
/// goes back, else its holder would ask for all of it again at once.
const RECALL_IDLE_MS: u64 = 50;
/// What a lease in use keeps on a recall lasts so long, in ms: until an answer is here.
const KEEP_MS: u64 = 50;
/// Pause before a renewal that brought nothing is tried again, in ms.
const RENEW_AGAIN_MS: u64 = 1_000;

impl Keeper {
    /// Looks again at the accounts whose time has come.
    pub(super) fn retry(&mut self) {
        let now = self.shared.clock.monotonic_ms();
        let due = |id: &Id| self.accounts.get(id).is_none_or(|account| account.retry_at <= now);
        let ids: Vec<Id> = self.retries.iter().copied().filter(due).collect();
        for id in ids {
            self.retries.remove(&id);
            self.serve(id);
        }
    }

    /// Rates, counters, idle leases and those that want a renewal.
    pub(super) fn sweep(&mut self) {
        let now = self.shared.clock.monotonic_ms();
        let in_use = self.shared.map.capacity() as usize - self.records.free();
        self.shared.metrics.leases.set(i64::try_from(in_use).unwrap_or(i64::MAX));
        let scarce = self.records.free() < self.shared.map.capacity() as usize / 8;
        let patience = if scarce { SCARCE_IDLE_MS } else { self.shared.config.idle_return_ms };
        for id in self.ids() {
            self.with(id, |keeper, account| {
                account.count(&keeper.shared, now);
                account.rate.tick(now);
                if now.saturating_sub(account.active_at) >= patience {
                    keeper.rest(account);
                } else {
                    keeper.renew(account, now);
                }
            });
            if self.accounts.get(&id).is_some_and(Account::is_done)
                && let Some(account) = self.accounts.remove(&id)
            {
                // Whoever comes next asks again.
                account.slot().set_refused(false);
                self.forget_own(&account);
            }
        }
    }

    /// Gives up what an idle account holds.
    fn rest(&mut self, account: &mut Account) {
        if account.is_busy() {
            return;
        }
        self.give_back(account);
        self.retire(account);
    }

    /// Sends the tokens of a shared lease back, and seals it.
    pub(super) fn give_back(&mut self, account: &mut Account) {
        let shared = account.lease.as_ref().is_some_and(|lease| lease.via == Via::Shared);
        if shared {
            self.park(account, 0);
        }
        let Some(parked) = account.parked.filter(|_| account.leasing.is_none()) else { return };
        if account.bounds.allow(parked.epoch) && self.via(account) == Via::Shared {
            self.shared.metrics.returned.inc_by(parked.tokens);
            if shared {
                self.end_lease(account);
            }
            self.send_lease(account, Via::Shared, 0);
        }
    }

    /// Prolongs a shared lease that is in use, when half of its time is gone.
    fn renew(&mut self, account: &mut Account, now: u64) {
        let due = account.lease.as_mut().is_some_and(|lease| {
            let due = lease.via == Via::Shared && lease.renew_at <= now;
            if due {
                lease.renew_at = now + RENEW_AGAIN_MS;
            }
            due
        });
        if due && !account.is_busy() && account.confirmed && self.via(account) == Via::Shared {
            let want = account.want(now);
            self.send_lease(account, Via::Shared, want);
        }
    }

    /// Another edge has none left of an account.
    pub(super) fn on_recalled(&mut self, recalled: &Recalled) {
        let index = Metric::CONSUMABLE.iter().position(|metric| *metric == recalled.metric);
        let Some(index) = index else { return };
        let now = self.shared.clock.monotonic_ms();
        self.with((recalled.tenant, index), |keeper, account| {
            account.count(&keeper.shared, now);
            let idle = now.saturating_sub(account.active_at) >= RECALL_IDLE_MS;
            let same = account.key.window.start.0 == recalled.start;
            if !same || account.is_busy() || account.waiting() > 0 {
                return;
            }
            if idle {
                keeper.give_back(account);
            } else {
                keeper.give_back_surplus(account, now);
            }
        });
        // Tokens of epochs that are closing come back by reports alone.
        self.hurry_report();
    }

    /// Sends back what a lease in use does not need until the answer is here. The message asks
    /// for one token, so that the dispatcher counts this edge among those that hold some.
    fn give_back_surplus(&mut self, account: &mut Account, now: u64) {
        let usable = account
            .lease
            .as_ref()
            .is_some_and(|lease| lease.via == Via::Shared && account.bounds.allow(lease.epoch));
        if !usable || self.via(account) != Via::Shared || !account.confirmed {
            return;
        }
        let keep = (account.rate.at(now, 0).saturating_mul(KEEP_MS)).div_ceil(1_000);
        // One more goes and comes back at once.
        let but = u32::try_from(keep.saturating_sub(1)).unwrap_or(u32::MAX);
        if account.at_hand(&self.shared).unwrap_or(0) <= but.saturating_add(1) {
            return;
        }
        self.park(account, but);
        account.slot().set_mark(but / 2);
        self.shared.metrics.returned.inc_by(account.parked.map_or(0, |parked| parked.tokens));
        self.send_lease(account, Via::Shared, 1);
    }

    /// A server of the shared dispatcher answers again: whoever was refused may ask it.
    pub(super) fn on_dispatcher_found(&mut self) {
        for id in self.ids() {
            self.with(id, |keeper, account| {
                if !keeper.outage.down {
                    account.slot().set_refused(false);
                }
                // What was exhausted without it may not be with it.
                account.exhausted = None;
                account.slot().clear_empty();
                if account.waiting() > 0 {
                    keeper.serve_account(account);
                }
            });
        }
    }
}
