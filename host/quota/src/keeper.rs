//! The background task that keeps leases filled: the only writer of lease records.
//!
//! It is told to look at a slot when half of a lease is gone, when a request waits, when a
//! limit fell or a token came back late. It leases from the dispatcher, opens tranches at
//! the authority (one call in flight, everything that is wanted meanwhile in the next), and
//! reports. Invariant: a tranche is sealed once, its final figures are reported until the
//! authority has them, and its record is not reused before.

mod account;
mod refill;
mod report;
mod tranche;

use std::{
    collections::{BTreeSet, HashMap},
    future::pending,
    sync::Arc,
    time::Duration,
};

use model::{
    BoxFuture,
    ledger::{Authority, AuthorityError, Dispatcher, HolderId, Opening, ReportAnswer},
    tenant::TenantId,
};
use tokio::{
    sync::{mpsc::UnboundedReceiver, oneshot},
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use self::{
    account::Account,
    report::{Final, SentReport},
    tranche::SentOpen,
};
use crate::meter::{Message, Shared};

/// How often retries and stuck calls are looked at.
const TICK: Duration = Duration::from_millis(25);
/// How often rates, idle leases and counters are looked at.
const SWEEP: Duration = Duration::from_millis(250);

/// One metric of one tenant.
type Id = (TenantId, usize);
/// A call to the authority under way.
type Call<T> = Option<BoxFuture<'static, Result<T, CallFailed>>>;

/// A call that failed or took too long.
#[derive(Debug, thiserror::Error)]
enum CallFailed {
    #[error("{}", .0.0)]
    Authority(#[from] AuthorityError),
    #[error("no answer in time")]
    Timeout,
}

/// The task's state.
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    authority: Arc<dyn Authority>,
    dispatcher: Arc<dyn Dispatcher>,
    holder: HolderId,
    accounts: HashMap<Id, Account>,
    records: Records,
    /// Accounts that want a tranche and are in no call yet.
    to_open: BTreeSet<Id>,
    open_call: Call<Vec<Opening>>,
    open_sent: Vec<SentOpen>,
    open_started: Instant,
    /// Sealed tranches whose final figures the authority does not have yet.
    finals: Vec<Final>,
    flushes: Vec<(TenantId, oneshot::Sender<bool>)>,
    report_call: Call<ReportAnswer>,
    report_sent: SentReport,
    report_number: u64,
    report_due: Instant,
    /// A report failed, and nobody knows what it credited.
    credit_unseen: bool,
    outage: Outage,
    stopping: Option<oneshot::Sender<bool>>,
}

/// Whether the authority answers, and when it is tried again.
struct Outage {
    down: bool,
    failures: u32,
    retry_at: Instant,
}

/// Which records are free, and the generations that were given out.
struct Records {
    never_used: std::ops::Range<u32>,
    freed: Vec<u32>,
    generation: u32,
}

impl Records {
    fn take(&mut self) -> Option<u32> {
        self.freed.pop().or_else(|| self.never_used.next())
    }

    fn free(&self) -> usize {
        self.freed.len() + self.never_used.len()
    }

    /// The generation that the next lease will have: never 0, which means sealed.
    fn upcoming(&self) -> u32 {
        self.generation.wrapping_add(1).max(1)
    }

    fn next_generation(&mut self) -> u32 {
        self.generation = self.upcoming();
        self.generation
    }
}

impl Keeper {
    pub(crate) fn new(
        shared: Arc<Shared>,
        authority: Arc<dyn Authority>,
        dispatcher: Arc<dyn Dispatcher>,
        holder: HolderId,
    ) -> Self {
        let records =
            Records { never_used: 0..shared.map.capacity(), freed: Vec::new(), generation: 0 };
        let now = Instant::now();
        shared.metrics.up.set(1);
        Self {
            shared,
            authority,
            dispatcher,
            holder,
            accounts: HashMap::new(),
            records,
            to_open: BTreeSet::new(),
            open_call: None,
            open_sent: Vec::new(),
            open_started: now,
            finals: Vec::new(),
            flushes: Vec::new(),
            report_call: None,
            report_sent: SentReport::default(),
            report_number: 0,
            report_due: now,
            credit_unseen: false,
            outage: Outage { down: false, failures: 0, retry_at: now },
            stopping: None,
        }
    }

    /// Runs until it is told to stop, or aborted.
    pub(crate) async fn run(mut self, mut inbox: UnboundedReceiver<Message>) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut swept = Instant::now();
        loop {
            tokio::select! {
                message = inbox.recv() => match message {
                    Some(message) => self.on_message(message).await,
                    None => return,
                },
                answer = finished(&mut self.open_call) => self.on_opened(answer).await,
                answer = finished(&mut self.report_call) => self.on_reported(answer).await,
                _ = tick.tick() => {
                    self.notice_stuck_call();
                    if swept.elapsed() >= SWEEP {
                        swept = Instant::now();
                        self.sweep().await;
                    }
                }
            }
            self.start_open();
            self.start_report();
            if self.try_finish().await {
                return;
            }
        }
    }

    async fn on_message(&mut self, message: Message) {
        match message {
            Message::Look(meter, index) => {
                let id = (meter.tenant, index);
                let next = self.records.upcoming();
                if !self.accounts.contains_key(&id) {
                    let Some(account) = Account::new(meter, index, &self.shared, next) else {
                        return;
                    };
                    self.accounts.insert(id, account);
                }
                self.serve(id).await;
            }
            Message::Flush(tenant, done) => self.flushes.push((tenant, done)),
            Message::Stop(done) => {
                self.stopping = Some(done);
                self.to_open.clear();
                for id in self.accounts.keys().copied().collect::<Vec<_>>() {
                    self.with(id, async |keeper, account| {
                        keeper.retire(account).await;
                        account.slot().set_refused(true);
                        account.meter.refilled.notify_waiters();
                    })
                    .await;
                }
            }
        }
    }

    /// Works on an account with the rest of the keeper at hand.
    async fn with(&mut self, id: Id, work: impl AsyncFnOnce(&mut Self, &mut Account)) {
        if let Some(mut account) = self.accounts.remove(&id) {
            work(self, &mut account).await;
            self.accounts.insert(id, account);
        }
    }

    /// Rates, counters, idle leases.
    async fn sweep(&mut self) {
        let now = self.shared.clock.monotonic_ms();
        let in_use = self.shared.map.capacity() as usize - self.records.free();
        self.shared.metrics.leases.set(i64::try_from(in_use).unwrap_or(i64::MAX));
        let scarce = self.records.free() < self.shared.map.capacity() as usize / 8;
        let patience = if scarce { SCARCE_IDLE_MS } else { self.shared.config.idle_return_ms };
        let mut idle = Vec::new();
        for (id, account) in &mut self.accounts {
            account.count(&self.shared, now);
            account.rate.tick(now);
            if now.saturating_sub(account.active_at) >= patience {
                idle.push(*id);
            }
        }
        for id in idle {
            self.with(id, Self::retire).await;
            if self.accounts.get(&id).is_some_and(Account::is_done) {
                self.accounts.remove(&id);
            }
        }
    }

    fn call_limit(&self) -> Duration {
        Duration::from_millis(self.shared.config.authority_timeout_ms)
    }

    /// When stopping: after the last figures are durable, ends the holder.
    async fn try_finish(&mut self) -> bool {
        let quiet =
            self.open_call.is_none() && self.report_call.is_none() && self.finals.is_empty();
        if !quiet || self.stopping.is_none() {
            return false;
        }
        let authority = Arc::clone(&self.authority);
        let ended = bounded(self.call_limit(), authority.end(self.holder)).await;
        if let Err(error) = &ended {
            tracing::warn!(%error, "cannot end the quota holder");
        }
        if let Some(done) = self.stopping.take() {
            let _ = done.send(ended.is_ok());
        }
        true
    }
}

/// Time after which an unused lease is given up when records run out, in ms.
const SCARCE_IDLE_MS: u64 = 1_000;

/// Waits for a call and clears it; for ever when there is none. May be dropped at any time.
async fn finished<T>(call: &mut Call<T>) -> Result<T, CallFailed> {
    let Some(future) = call else { return pending().await };
    let answer = future.await;
    *call = None;
    answer
}

/// A call with an end.
async fn bounded<T>(
    limit: Duration,
    call: BoxFuture<'_, Result<T, AuthorityError>>,
) -> Result<T, CallFailed> {
    Ok(timeout(limit, call).await.map_err(|_| CallFailed::Timeout)??)
}
