//! The background task that keeps leases filled: the only writer of lease records.
//!
//! It is told to look at a slot when half of a lease is gone, when a request waits, when a
//! limit fell or a token came back late. It leases from a dispatcher (one message in flight
//! per account), confirms, opens and closes tranches at the authority (one call of each kind
//! in flight, everything that is wanted meanwhile in the next), and reports. It never waits
//! for any of them: answers come back through its loop. Invariant: tokens are spent only of
//! an epoch within bounds confirmed by this holder, or of its own; a record is not reused
//! before the authority has its final figures.

mod account;
mod bounds;
mod idle;
mod lease;
mod lost;
mod report;
mod tranche;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    sync::Arc,
    time::Duration,
};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use model::{
    BoxFuture,
    ledger::{Authority, AuthorityError, Dispatcher, Fence, HolderId, Opening, ReportAnswer},
    tenant::TenantId,
};
use tokio::{
    sync::{mpsc::UnboundedReceiver, oneshot},
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use self::{
    account::{Account, Via},
    bounds::{CloseCall, ConfirmCall},
    lease::Leased,
    lost::{Lost, LostAnswer},
    report::{SentReport, Word},
    tranche::{Installed, SentOpen},
};
use crate::{
    dispatcher::InProcess,
    meter::{Message, Shared},
};

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

/// What a dispatcher answered.
enum Answered {
    Leased(Leased),
    Installed(Installed),
    Lost(LostAnswer),
}

/// The task's state.
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    authority: Arc<dyn Authority>,
    /// The dispatcher that edges share; `None` where the process is alone.
    common: Option<Arc<dyn Dispatcher>>,
    own: Arc<InProcess>,
    holder: HolderId,
    accounts: BTreeMap<Id, Account>,
    records: Records,
    /// Number of the last message to a dispatcher.
    messages: u64,
    answers: FuturesUnordered<BoxFuture<'static, Answered>>,
    /// Accounts that want another look when their time has come.
    retries: BTreeSet<Id>,
    /// Accounts that want a tranche and are in no call yet.
    to_open: BTreeSet<Id>,
    open_call: Call<Vec<Opening>>,
    open_sent: Vec<SentOpen>,
    open_started: Instant,
    confirms: ConfirmCall,
    closes: CloseCall,
    /// Final figures and seals that the authority does not have yet, in their order.
    words: Vec<Word>,
    lost: Lost,
    flushes: Vec<(TenantId, oneshot::Sender<bool>)>,
    report_call: Call<ReportAnswer>,
    report_sent: SentReport,
    report_number: u64,
    report_due: Instant,
    /// The next report comes sooner than usual.
    hurried: bool,
    /// Where the next report goes on with accounts to watch.
    watch_from: Option<Id>,
    /// A report failed, and nobody knows what it credited.
    credit_unseen: bool,
    outage: Outage,
    /// The authority has ended this holder.
    ended: bool,
    /// A holder that this one tried to become, and nobody knows whether it is registered.
    unborn: Option<HolderId>,
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
        common: Option<Arc<dyn Dispatcher>>,
        holder: HolderId,
    ) -> Self {
        let records =
            Records { never_used: 0..shared.map.capacity(), freed: Vec::new(), generation: 0 };
        let now = Instant::now();
        shared.metrics.up.set(1);
        let own = Self::own_dispatcher(&shared, holder);
        Self {
            shared,
            authority,
            common,
            own,
            holder,
            accounts: BTreeMap::new(),
            records,
            messages: 0,
            answers: FuturesUnordered::new(),
            retries: BTreeSet::new(),
            to_open: BTreeSet::new(),
            open_call: None,
            open_sent: Vec::new(),
            open_started: now,
            confirms: ConfirmCall::default(),
            closes: CloseCall::default(),
            words: Vec::new(),
            lost: Lost::default(),
            flushes: Vec::new(),
            report_call: None,
            report_sent: SentReport::default(),
            report_number: 0,
            report_due: now,
            hurried: false,
            watch_from: None,
            credit_unseen: false,
            outage: Outage { down: false, failures: 0, retry_at: now },
            ended: false,
            unborn: None,
            stopping: None,
        }
    }

    fn own_dispatcher(shared: &Arc<Shared>, holder: HolderId) -> Arc<InProcess> {
        Arc::new(InProcess::new(Fence::Holder(holder), shared.clock.source()))
    }

    /// Runs until it is told to stop, or aborted.
    pub(crate) async fn run(mut self, mut inbox: UnboundedReceiver<Message>) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut swept = Instant::now();
        loop {
            // In this order, so that a run can be repeated. Nobody starves: the tick is due once
            // in a while, answers come of what was asked for, and only demands bring more.
            tokio::select! {
                biased;
                _ = tick.tick() => {
                    self.notice_stuck_call();
                    self.retry();
                    if swept.elapsed() >= SWEEP {
                        swept = Instant::now();
                        self.sweep();
                    }
                }
                answer = finished(&mut self.open_call) => self.on_opened(answer),
                answer = finished(&mut self.report_call) => self.on_reported(answer),
                answer = finished(&mut self.confirms.call) => self.on_confirmed(answer),
                answer = finished(&mut self.closes.call) => self.on_closed(answer),
                Some(answer) = self.answers.next() => self.on_answer(answer),
                message = inbox.recv() => match message {
                    Some(message) => self.on_message(message),
                    None => return,
                },
            }
            if self.ended && self.stopping.is_none() {
                self.begin_anew().await;
            }
            self.start_confirm();
            self.start_close();
            self.start_open();
            self.start_report();
            if self.try_finish().await {
                return;
            }
        }
    }

    fn on_message(&mut self, message: Message) {
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
                self.serve(id);
            }
            Message::Recalled(recalled) => self.on_recalled(&recalled),
            Message::DispatcherFound => self.on_dispatcher_found(),
            Message::Flush(tenant, done) => self.flushes.push((tenant, done)),
            Message::Stop(done) => {
                self.stopping = Some(done);
                self.to_open.clear();
                for id in self.ids() {
                    self.with(id, |keeper, account| {
                        keeper.give_back(account);
                        keeper.retire(account);
                        account.slot().set_refused(true);
                        account.meter.refilled.notify_waiters();
                    });
                }
            }
        }
    }

    fn on_answer(&mut self, answer: Answered) {
        match answer {
            Answered::Leased(leased) => self.on_leased(leased),
            Answered::Installed(installed) => self.on_installed(installed),
            Answered::Lost(lost) => self.on_lost_answer(lost),
        }
    }

    fn ids(&self) -> Vec<Id> {
        self.accounts.keys().copied().collect()
    }

    /// Works on an account with the rest of the keeper at hand.
    fn with(&mut self, id: Id, work: impl FnOnce(&mut Self, &mut Account)) {
        if let Some(mut account) = self.accounts.remove(&id) {
            work(self, &mut account);
            self.accounts.insert(id, account);
        }
    }

    /// The dispatcher to ask about an account now.
    fn via(&self, account: &Account) -> Via {
        let common = self.common.as_ref().and_then(|common| common.fence(&account.key));
        if common.is_some() { Via::Shared } else { Via::Direct }
    }

    fn dispatcher(&self, via: Via) -> Arc<dyn Dispatcher> {
        match (&self.common, via) {
            (Some(common), Via::Shared) => Arc::clone(common),
            (None, Via::Shared) | (_, Via::Direct) => Arc::clone(&self.own) as _,
        }
    }

    fn call_limit(&self) -> Duration {
        Duration::from_millis(self.shared.config.authority_timeout_ms)
    }

    /// When stopping: after the last figures are durable, ends the holder.
    async fn try_finish(&mut self) -> bool {
        let quiet = self.open_call.is_none()
            && self.report_call.is_none()
            && self.words.is_empty()
            && self.answers.is_empty();
        if self.stopping.is_none() || !(quiet || self.ended) {
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
