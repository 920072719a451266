//! Opening tranches at the authority, and what happens while it does not answer.
//!
//! One call is in flight; accounts that want a tranche meanwhile go together in the next,
//! so a thousand tenants share a commit. Invariant: a permit is installed at most once, into
//! the window and under the limit it was asked for, and while it is fresh; else an own
//! tranche is sealed as unspent, and a shared one left to be closed. So is an own one that the
//! authority recalled before its permit was here. An outage is 503 for
//! those without tokens, at once, and ends by itself.

use std::{sync::Arc, time::Duration};

use model::ledger::{
    DispatcherError, EpochRef, Fence, InstallPermit, OpenRequest, Opening, WindowKey,
};
use tokio::time::Instant;

use super::{
    Answered, CallFailed, Id, Keeper,
    account::{Account, Via},
    bounded,
    bounds::SETTLE_MS,
    report::Word,
};

/// Tranches opened in one commit; more would hold the only writer for too long.
const OPEN_MAX: usize = 256;
/// Oldest permit that is installed, in ms: whoever waits for its tranche opens the next
/// soon after.
const PERMIT_AGE_MS: u64 = 250;
/// Own tranches that may be open at the authority, so that no more than two are wasted when
/// the machine is lost; a third waits until the figures of the first are durable.
const OWN_MAX: u32 = 2;
/// How long another edge's tranche is waited for before this one opens the next, in ms.
const GRACE_MS: u64 = 50;

/// A request under way.
pub(super) struct SentOpen {
    id: Id,
    key: WindowKey,
    via: Via,
    version: u32,
}

/// A dispatcher's answer to a tranche.
pub(super) struct Installed {
    id: Id,
    of: EpochRef,
    via: Via,
    answer: Result<(), DispatcherError>,
}

impl Keeper {
    /// Queues an account for the next call.
    pub(super) fn request_tranche(&mut self, account: &mut Account, via: Via) {
        if self.stopping.is_some() {
            return;
        }
        if account.opening.is_none() {
            account.opening = Some(via);
            self.to_open.insert(account.id());
        }
        if self.outage.down {
            account.slot().set_refused(true);
            account.meter.refilled.notify_waiters();
        }
    }

    /// For whom, and after which epoch, a tranche of the account is opened. While an own one
    /// may have been opened without anybody's knowledge, only such a call tells of it.
    fn opening_of(&self, account: &Account, via: Via) -> (Via, Fence, u64) {
        let shared = self.common.as_ref().filter(|_| via == Via::Shared && !account.doubt);
        match shared.and_then(|common| common.fence(&account.key)) {
            Some(fence) => (Via::Shared, fence, account.bounds.latest),
            None => (Via::Direct, Fence::Holder(self.holder), account.direct_latest),
        }
    }

    /// Sends the queued requests when no call is in flight and no pause is due.
    pub(super) fn start_open(&mut self) {
        let pause = Instant::now() < self.outage.retry_at;
        let idle = self.to_open.is_empty() || self.stopping.is_some();
        if self.open_call.is_some() || idle || pause {
            return;
        }
        let now = self.shared.clock.monotonic_ms();
        let mut requests = Vec::new();
        let mut later = Vec::new();
        while requests.len() < OPEN_MAX
            && let Some(id) = self.to_open.pop_first()
        {
            let Some(account) = self.accounts.get(&id) else { continue };
            let Some(via) = account.opening else { continue };
            if via == Via::Direct && account.own_tranches() >= OWN_MAX {
                later.push(id);
                continue;
            }
            let (version, limit) = account.slot().limit();
            let rate_per_s = account.rate.at(now, account.waiting());
            let (via, fence, latest) = self.opening_of(account, via);
            let key = account.key;
            let above = account.slot().above();
            requests.push(OpenRequest { key, fence, latest, limit, above, rate_per_s });
            self.open_sent.push(SentOpen { id, key, via, version });
        }
        self.to_open.extend(later);
        if requests.is_empty() {
            return;
        }
        self.shared.metrics.calls_open.inc();
        self.open_started = Instant::now();
        let (authority, holder) = (Arc::clone(&self.authority), self.holder);
        let limit = self.call_limit();
        self.open_call =
            Some(Box::pin(async move { bounded(limit, authority.open(holder, requests)).await }));
    }

    pub(super) fn on_opened(&mut self, answer: Result<Vec<Opening>, CallFailed>) {
        let sent = std::mem::take(&mut self.open_sent);
        match answer {
            Ok(openings) => {
                self.recovered();
                for (sent, opening) in sent.into_iter().zip(openings) {
                    self.on_opening(&sent, opening);
                }
            }
            Err(error) => {
                for sent in sent {
                    self.doubt(&sent);
                }
                self.failed("open", &error);
            }
        }
    }

    /// The request may have been carried out or not. A shared tranche of it is never
    /// installed; an own one is sealed when the next call tells of it.
    fn doubt(&mut self, sent: &SentOpen) {
        let Some(account) = self.accounts.get_mut(&sent.id) else { return };
        if account.key != sent.key {
            return;
        }
        account.doubt |= sent.via == Via::Direct;
        self.to_open.insert(sent.id);
    }

    fn on_opening(&mut self, sent: &SentOpen, opening: Opening) {
        if self.accounts.get(&sent.id).is_none_or(|account| account.key != sent.key) {
            // The window ended meanwhile.
            if let Opening::Opened(permit) = opening {
                self.abandon(&permit);
            }
            return;
        }
        self.with(sent.id, |keeper, account| {
            account.opening = None;
            account.retry_at = 0;
            match opening {
                Opening::Opened(permit) => keeper.take_permit(account, sent, permit),
                Opening::Lost { latest } => keeper.take_loss(account, sent.via, latest),
                Opening::Exhausted => keeper.take_exhausted(account, sent),
                Opening::Parked => {
                    keeper.take_exhausted(account, sent);
                    account.settles_until = keeper.shared.clock.monotonic_ms() + SETTLE_MS;
                }
                Opening::Elsewhere { window } => keeper.take_elsewhere(account, window),
            }
            keeper.serve_account(account);
        });
    }

    /// Somebody else opened, or a call without an answer did.
    fn take_loss(&mut self, account: &mut Account, via: Via, latest: u64) {
        match via {
            Via::Shared => {
                let now = self.shared.clock.monotonic_ms();
                account.grace_until = now + GRACE_MS;
                self.request_confirm(account);
            }
            Via::Direct => {
                if account.doubt && latest > account.direct_latest {
                    self.shared.metrics.abandoned.inc();
                    self.words.push(Word::Seal(EpochRef { key: account.key, epoch: latest }));
                }
                account.doubt = false;
                account.direct_latest = latest;
                let via = self.via(account);
                self.request_tranche(account, via);
            }
        }
    }

    fn take_exhausted(&mut self, account: &mut Account, sent: &SentOpen) {
        account.doubt &= sent.via == Via::Shared;
        let until = self.shared.clock.now().plus_ms(self.shared.config.empty_cache_ms);
        let same_limit = account.slot().limit().0 == sent.version;
        account.exhausted = same_limit.then(|| until.min(account.key.window.end));
    }

    fn take_permit(&mut self, account: &mut Account, sent: &SentOpen, permit: InstallPermit) {
        account.exhausted = None;
        self.shared.metrics.opened.inc();
        match sent.via {
            Via::Shared => account.bounds.latest = account.bounds.latest.max(permit.epoch()),
            Via::Direct => {
                account.doubt = false;
                account.direct_latest = permit.epoch();
                if self.common.is_some() {
                    self.shared.metrics.direct.inc();
                }
            }
        }
        let same_limit = account.slot().limit().0 == sent.version;
        let limit = u128::from(PERMIT_AGE_MS);
        let fresh = sent.via == Via::Direct || self.open_started.elapsed().as_millis() <= limit;
        let sealed = sent.via == Via::Direct && account.sealed_early(permit.epoch());
        let going = self.stopping.is_some() || account.closing;
        if same_limit && fresh && !sealed && !going {
            self.install(account, sent.via, permit);
        } else {
            self.abandon(&permit);
        }
    }

    /// Gives up a tranche that is not installed and never will be.
    fn abandon(&mut self, permit: &InstallPermit) {
        self.shared.metrics.abandoned.inc();
        if matches!(permit.fence(), Fence::Holder(_)) {
            let of = EpochRef { key: permit.key(), epoch: permit.epoch() };
            self.words.push(Word::Seal(of));
        }
    }

    fn install(&mut self, account: &mut Account, via: Via, permit: InstallPermit) {
        if via == Via::Shared {
            self.shared.metrics.dispatcher_installs.inc();
            account.slot().tally.call();
        }
        account.installing = true;
        let dispatcher = self.dispatcher(via);
        let (id, of) = (account.id(), EpochRef { key: permit.key(), epoch: permit.epoch() });
        self.answers.push(Box::pin(async move {
            let answer = dispatcher.install(permit).await;
            Answered::Installed(Installed { id, of, via, answer })
        }));
    }

    pub(super) fn on_installed(&mut self, installed: Installed) {
        let Installed { id, of, via, answer } = installed;
        if let Err(error) = &answer {
            tracing::debug!(%error, "a dispatcher did not take a tranche");
            self.shared.metrics.abandoned.inc();
            if via == Via::Direct {
                self.words.push(Word::Seal(of));
            } else {
                self.shared.metrics.dispatcher_failures.inc();
            }
        }
        self.with(id, |keeper, account| {
            if account.key == of.key {
                account.installing = false;
                account.retry_at = 0;
                if via == Via::Direct && account.sealed_early(of.epoch) {
                    keeper.forget_own(account);
                }
                keeper.serve_account(account);
            } else if via == Via::Direct && answer.is_ok() {
                for of in keeper.own.forget(&of.key) {
                    keeper.words.push(Word::Seal(of));
                }
            }
        });
    }

    /// Counts a failed call and sets the pause before the next.
    pub(super) fn failed(&mut self, call: &'static str, error: &CallFailed) {
        let (first, longest) = self.shared.config.retry_ms;
        let pause = first.saturating_mul(1 << self.outage.failures.min(16)).min(longest);
        if self.outage.failures == 0 {
            tracing::warn!(call, %error, "the quota authority failed; leases go on");
        }
        self.outage.failures = self.outage.failures.saturating_add(1);
        self.outage.retry_at = Instant::now() + Duration::from_millis(pause);
        self.shared.metrics.calls_failed.inc();
        self.set_down();
    }

    /// Refuses at once, instead of after the longest wait, whoever needs the authority.
    fn set_down(&mut self) {
        self.outage.down = true;
        self.shared.metrics.up.set(0);
        let opening = self.to_open.iter().chain(self.open_sent.iter().map(|sent| &sent.id));
        let waiting = opening.chain(self.unconfirmed());
        let waits = |account: &&Account| account.opening.is_some() || account.is_busy();
        for account in waiting.filter_map(|id| self.accounts.get(id)).filter(waits) {
            account.slot().set_refused(true);
            account.meter.refilled.notify_waiters();
        }
    }

    /// The authority answered.
    pub(super) fn recovered(&mut self) {
        self.outage.failures = 0;
        if !std::mem::take(&mut self.outage.down) {
            return;
        }
        self.shared.metrics.up.set(1);
        tracing::info!("the quota authority answers again");
        for account in self.accounts.values() {
            account.slot().set_refused(false);
            account.meter.refilled.notify_waiters();
        }
    }

    /// A call that hangs is an outage before it is given up.
    pub(super) fn notice_stuck_call(&mut self) {
        let longest = Duration::from_millis(self.shared.config.admit_wait_ms_max);
        if self.open_call.is_some() && !self.outage.down && self.open_started.elapsed() > longest {
            tracing::warn!("the quota authority is slow; leases go on");
            self.set_down();
        }
    }
}
