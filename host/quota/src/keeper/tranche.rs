//! Opening tranches at the authority, and what happens while it does not answer.
//!
//! One call is in flight; accounts that want a tranche meanwhile go together in the next,
//! so a thousand tenants share a commit. Invariant: a permit is installed into the window
//! and under the limit it was asked for, or its tranche is given back as unspent; an
//! outage is 503 for those without tokens, at once, and ends by itself.

use std::{sync::Arc, time::Duration};

use model::ledger::{InstallPermit, OpenRequest, Opening, WindowKey};
use tokio::time::Instant;

use super::{CallFailed, Id, Keeper, account::Account, bounded};

/// Tranches opened in one commit; more would hold the only writer for too long.
const OPEN_MAX: usize = 256;

/// A request under way.
pub(super) struct SentOpen {
    id: Id,
    key: WindowKey,
    version: u32,
    latest: u64,
}

impl Keeper {
    /// Queues an account for the next call.
    pub(super) fn request_tranche(&mut self, account: &mut Account) {
        if self.stopping.is_some() {
            return;
        }
        if !account.opening {
            account.opening = true;
            self.to_open.insert(account.id());
        }
        if self.outage.down {
            account.slot().set_refused(true);
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
        while requests.len() < OPEN_MAX
            && let Some(id) = self.to_open.pop_first()
        {
            let Some(account) = self.accounts.get_mut(&id).filter(|account| account.opening) else {
                continue;
            };
            let (version, limit) = account.slot().limit();
            let rate_per_s = account.rate.at(now, account.waiting());
            let (key, latest) = (account.key, account.latest);
            let fence = self.dispatcher.fence();
            requests.push(OpenRequest { key, fence, latest, limit, rate_per_s });
            self.open_sent.push(SentOpen { id, key, version, latest });
        }
        if requests.is_empty() {
            return;
        }
        self.shared.metrics.calls_open.inc();
        self.open_started = Instant::now();
        let authority = Arc::clone(&self.authority);
        let limit = self.call_limit();
        self.open_call =
            Some(Box::pin(async move { bounded(limit, authority.open(requests)).await }));
    }

    pub(super) async fn on_opened(&mut self, answer: Result<Vec<Opening>, CallFailed>) {
        let sent = std::mem::take(&mut self.open_sent);
        match answer {
            Ok(openings) => {
                self.recovered();
                for (sent, opening) in sent.into_iter().zip(openings) {
                    self.on_opening(sent, opening).await;
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

    /// The request may have been carried out or not.
    fn doubt(&mut self, sent: &SentOpen) {
        let Some(account) = self.accounts.get_mut(&sent.id) else { return };
        if account.key != sent.key {
            return;
        }
        account.doubt = true;
        self.to_open.insert(sent.id);
    }

    async fn on_opening(&mut self, sent: SentOpen, opening: Opening) {
        if self.accounts.get(&sent.id).is_none_or(|account| account.key != sent.key) {
            // The window ended meanwhile.
            if let Opening::Opened(permit) = opening {
                self.shared.metrics.abandoned.inc();
                self.report_unspent(sent.id, permit.key(), permit.epoch(), permit.tranche());
            }
            return;
        }
        self.with(sent.id, async |keeper, account| {
            keeper.take_opening(account, &sent, opening).await;
            keeper.serve_account(account).await;
        })
        .await;
    }

    async fn take_opening(&mut self, account: &mut Account, sent: &SentOpen, opening: Opening) {
        account.opening = false;
        match opening {
            Opening::Opened(permit) => self.take_permit(account, sent, permit).await,
            Opening::Lost { latest } => {
                if account.doubt && latest > sent.latest {
                    // Ours, if it was opened for our fence; the authority knows.
                    self.shared.metrics.abandoned.inc();
                    self.give_up(account, sent.latest + 1, 0);
                }
                account.doubt = false;
                account.latest = latest;
                self.request_tranche(account);
            }
            Opening::Exhausted => {
                account.doubt = false;
                let until = self.shared.clock.now().plus_ms(self.shared.config.empty_cache_ms);
                let same_limit = account.slot().limit().0 == sent.version;
                account.exhausted = same_limit.then(|| until.min(account.key.window.end));
            }
        }
    }

    async fn take_permit(&mut self, account: &mut Account, sent: &SentOpen, permit: InstallPermit) {
        account.doubt = false;
        account.latest = permit.epoch();
        account.exhausted = None;
        self.shared.metrics.opened.inc();
        let same_limit = account.slot().limit().0 == sent.version;
        let (epoch, tranche) = (permit.epoch(), permit.tranche());
        let wanted = same_limit && self.stopping.is_none();
        let installed = wanted && self.install(permit).await;
        if !installed {
            self.shared.metrics.abandoned.inc();
            self.give_up(account, epoch, tranche);
        }
    }

    async fn install(&mut self, permit: InstallPermit) -> bool {
        let installed = self.dispatcher.install(permit).await;
        if let Err(error) = &installed {
            tracing::warn!(%error, "the dispatcher did not take a tranche");
        }
        installed.is_ok()
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
        let waiting = self.to_open.iter().chain(self.open_sent.iter().map(|sent| &sent.id));
        for account in waiting.filter_map(|id| self.accounts.get(id)) {
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
