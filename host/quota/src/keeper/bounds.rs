//! Which shared epochs may be spent: confirmed by the authority, closed when a limit falls.
//!
//! Invariant: bounds only grow together; an answer that comes late can not reopen what is
//! closed. An account whose epochs are to be closed leases nothing before they are.

use std::{collections::BTreeSet, sync::Arc};

use model::ledger::{Standing, WindowKey};
use tokio::time::Instant;

use super::{Call, CallFailed, Id, Keeper, account::Account, bounded};

/// Accounts in one call: it is one statement or two for each.
const KEYS_MAX: usize = 256;

/// Time in which tokens of closed epochs come back, in ms: every edge seals at its next
/// report but one. Requests meanwhile are told to come again soon.
pub(super) const SETTLE_MS: u64 = 3_000;

/// Confirmations: wanted, and under way.
#[derive(Default)]
pub(super) struct ConfirmCall {
    wanted: BTreeSet<Id>,
    sent: Vec<(Id, WindowKey)>,
    pub(super) call: Call<Option<Vec<Option<Standing>>>>,
}

/// Closings: wanted, and under way.
#[derive(Default)]
pub(super) struct CloseCall {
    wanted: BTreeSet<(Id, WindowKey)>,
    sent: Vec<(Id, WindowKey)>,
    pub(super) call: Call<()>,
}

impl Keeper {
    /// Asks for the account's bounds before anything else is asked about it.
    pub(super) fn request_confirm(&mut self, account: &mut Account) {
        account.confirmed = false;
        if self.stopping.is_none() && !account.confirming {
            account.confirming = true;
            self.confirms.wanted.insert(account.id());
        }
        if self.outage.down {
            account.slot().set_refused(true);
            account.meter.refilled.notify_waiters();
        }
    }

    pub(super) fn start_confirm(&mut self) {
        let paused = Instant::now() < self.outage.retry_at;
        if self.confirms.call.is_some() || self.confirms.wanted.is_empty() || paused {
            return;
        }
        let mut keys = Vec::new();
        while keys.len() < KEYS_MAX
            && let Some(id) = self.confirms.wanted.pop_first()
        {
            if let Some(account) = self.accounts.get(&id).filter(|account| account.confirming) {
                self.confirms.sent.push((id, account.key));
                keys.push(account.key);
            }
        }
        if keys.is_empty() {
            return;
        }
        self.shared.metrics.calls_confirm.inc();
        let (authority, holder) = (Arc::clone(&self.authority), self.holder);
        let limit = self.call_limit();
        self.confirms.call =
            Some(Box::pin(async move { bounded(limit, authority.confirm(holder, keys)).await }));
    }

    pub(super) fn on_confirmed(
        &mut self,
        answer: Result<Option<Vec<Option<Standing>>>, CallFailed>,
    ) {
        let sent = std::mem::take(&mut self.confirms.sent);
        match answer {
            Ok(Some(standings)) => {
                self.recovered();
                for ((id, key), standing) in sent.into_iter().zip(standings) {
                    self.with(id, |keeper, account| {
                        if account.key == key && account.confirming {
                            account.confirming = false;
                            keeper.confirm(account, standing);
                            keeper.serve_account(account);
                        }
                    });
                }
            }
            Ok(None) => self.ended = true,
            Err(error) => {
                for (id, key) in sent {
                    let still = self.accounts.get(&id).is_some_and(|account| account.key == key);
                    if still {
                        self.confirms.wanted.insert(id);
                    }
                }
                self.failed("confirm", &error);
            }
        }
    }

    fn confirm(&mut self, account: &mut Account, standing: Option<Standing>) {
        account.confirmed = true;
        self.stand(account, standing);
    }

    /// Takes in what the authority says about an account.
    pub(super) fn stand(&mut self, account: &mut Account, standing: Option<Standing>) {
        let Some(standing) = standing else { return };
        let before = account.bounds.floor;
        account.bounds = account.bounds.joined(standing.bounds);
        if account.bounds.floor > before && before > 0 {
            account.settles_until = self.shared.clock.monotonic_ms() + SETTLE_MS;
        }
        self.leave_closed(account);
        if standing.available > 0 && account.exhausted.is_some() {
            account.exhausted = None;
            account.slot().clear_empty();
        }
    }

    /// Ends a lease of a shared epoch that is no longer open.
    pub(super) fn leave_closed(&mut self, account: &mut Account) {
        let closed = account.lease.as_ref().is_some_and(|lease| {
            lease.via == super::Via::Shared && lease.epoch <= account.bounds.floor
        });
        if closed {
            self.end_lease(account);
        }
    }

    /// Closes the shared epochs of an account whose limit fell.
    pub(super) fn request_close(&mut self, account: &mut Account) {
        if self.common.is_some() && !account.closing {
            account.closing = true;
            self.closes.wanted.insert((account.id(), account.key));
        }
    }

    pub(super) fn start_close(&mut self) {
        let paused = Instant::now() < self.outage.retry_at;
        if self.closes.call.is_some() || self.closes.wanted.is_empty() || paused {
            return;
        }
        while self.closes.sent.len() < KEYS_MAX
            && let Some(wanted) = self.closes.wanted.pop_first()
        {
            self.closes.sent.push(wanted);
        }
        let keys = self.closes.sent.iter().map(|(_, key)| *key).collect();
        self.shared.metrics.calls_close.inc();
        let authority = Arc::clone(&self.authority);
        let limit = self.call_limit();
        self.closes.call =
            Some(Box::pin(async move { bounded(limit, authority.close(keys)).await }));
    }

    pub(super) fn on_closed(&mut self, answer: Result<(), CallFailed>) {
        let sent = std::mem::take(&mut self.closes.sent);
        match answer {
            Ok(()) => {
                self.recovered();
                let now = self.shared.clock.monotonic_ms();
                for (id, key) in sent {
                    self.with(id, |keeper, account| {
                        if account.key == key {
                            account.closing = false;
                            account.settles_until = now + SETTLE_MS;
                            account.confirmed = false;
                            keeper.serve_account(account);
                        }
                    });
                }
            }
            Err(error) => {
                self.closes.wanted.extend(sent);
                self.failed("close", &error);
            }
        }
    }

    /// Accounts that wait for the authority in these calls.
    pub(super) fn unconfirmed(&self) -> impl Iterator<Item = &Id> {
        let confirms =
            self.confirms.wanted.iter().chain(self.confirms.sent.iter().map(|(id, _)| id));
        let closes = self.closes.wanted.iter().chain(&self.closes.sent).map(|(id, _)| id);
        confirms.chain(closes)
    }
}
