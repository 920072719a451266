//! Holders that were lost, this one among them.
//!
//! What a lost holder was granted of a shared epoch and did not return is told by CLOSE at
//! the dispatcher, and counts as spent. Should the authority have ended this very holder, it
//! stops spending and begins a new life. Invariants: figures are never guessed; without CLOSE
//! the epoch stays charged. Of registrations whose answer was lost at most one may have left
//! a holder behind that nobody is, until it is ended by name.

use std::{collections::BTreeSet, sync::atomic::Ordering};

use model::ledger::{DispatcherError, EpochRef, Fence, Holder, HolderId, LostShare};

use tokio::time::Instant;

use super::{
    Answered, Keeper, Records,
    bounds::{CloseCall, ConfirmCall},
    report::SentReport,
};

/// CLOSE calls under way at once: they are cheap, and nothing waits for them.
const CALLS_MAX: usize = 64;
/// Epochs of which a dispatcher has forgotten everything that are remembered; beyond it some
/// are asked about once more.
const FORGOTTEN_MAX: usize = 4_096;

/// Shares that are asked for, and those that were told.
#[derive(Default)]
pub(super) struct Lost {
    asked: BTreeSet<(EpochRef, HolderId)>,
    /// Of which the dispatcher knows nothing: nor will it ever, since an epoch is installed
    /// once. The authority names them with every report until their window is over.
    forgotten: BTreeSet<EpochRef>,
    pub(super) told: Vec<LostShare>,
}

/// What CLOSE answered about a lost holder.
pub(super) struct LostAnswer {
    of: EpochRef,
    holder: HolderId,
    answer: Result<Option<Vec<(HolderId, u64)>>, DispatcherError>,
}

impl Keeper {
    /// Asks the dispatcher what a lost holder had.
    pub(super) fn ask_lost(&mut self, of: EpochRef, fence: Fence, holder: HolderId) {
        let asked = self.lost.asked.len() >= CALLS_MAX
            || self.lost.asked.contains(&(of, holder))
            || self.lost.forgotten.contains(&of);
        let Some(common) = self.common.clone().filter(|_| !asked) else { return };
        if common.fence(&of.key) != Some(fence) {
            return;
        }
        self.lost.asked.insert((of, holder));
        self.shared.metrics.dispatcher_closes.inc();
        self.answers.push(Box::pin(async move {
            let answer = common.close(of, fence).await;
            Answered::Lost(LostAnswer { of, holder, answer })
        }));
    }

    pub(super) fn on_lost_answer(&mut self, lost: LostAnswer) {
        let LostAnswer { of, holder, answer } = lost;
        self.lost.asked.remove(&(of, holder));
        if let Ok(None) = answer {
            if self.lost.forgotten.len() >= FORGOTTEN_MAX {
                self.lost.forgotten.pop_first();
            }
            self.lost.forgotten.insert(of);
        }
        if let Ok(Some(shares)) = answer {
            let share = shares.iter().find(|(of, _)| *of == holder);
            let tokens = share.map_or(0, |(_, tokens)| *tokens);
            self.lost.told.push(LostShare { of, holder, tokens });
        }
    }

    /// The authority takes this holder for lost, and its tokens for spent: drops them all,
    /// and registers another.
    pub(super) async fn begin_anew(&mut self) {
        for id in self.ids() {
            self.with(id, |keeper, account| {
                keeper.retire(account);
                account.slot().set_refused(true);
            });
        }
        self.words.clear();
        self.report_call = None;
        self.report_sent = SentReport::default();
        self.open_call = None;
        self.open_sent.clear();
        self.to_open.clear();
        self.confirms = ConfirmCall::default();
        self.closes = CloseCall::default();
        self.answers.clear();
        self.lost = Lost::default();
        if Instant::now() < self.outage.retry_at {
            return;
        }
        tracing::warn!(holder = %self.holder, "the quota authority has ended this edge's holder");
        if !self.end_unborn().await {
            return;
        }
        let (id, config) = (HolderId::random(), &self.shared.config);
        let boot = self.shared.boot;
        let holder = Holder { id, edge: config.edge.clone(), boot };
        let sent = self.shared.clock.monotonic_ms();
        match super::bounded(self.call_limit(), self.authority.register(holder)).await {
            Ok(registered) => self.shared.clock.learn(sent, registered.now),
            Err(error) => {
                self.unborn = Some(id);
                self.failed("register", &error);
                return;
            }
        }
        self.shared.map.hand_over(id, boot);
        self.recovered();
        let generation = self.records.generation;
        let never_used = 0..self.shared.map.capacity();
        self.records = Records { never_used, freed: Vec::new(), generation };
        self.holder = id;
        self.report_number = 0;
        self.own = Self::own_dispatcher(&self.shared, id);
        self.ended = false;
        let life = self.shared.life.fetch_add(1, Ordering::AcqRel) + 1;
        let first = self.records.upcoming();
        for id in self.ids() {
            self.with(id, |keeper, account| {
                account.enter_anew();
                account.slot().live(life, first);
                account.slot().set_refused(false);
                if account.waiting() > 0 {
                    keeper.serve_account(account);
                }
            });
        }
    }

    /// Ends the holder of a registration whose answer was lost; whether there is none now.
    ///
    /// Its row may be there, so the name is not used again: a row may have been ended
    /// meanwhile, and a name is registered once. Left alone, it would be waited for by every
    /// epoch that closes, until it is silent for long enough to be lost, and then its share of
    /// those that are open would have to be told. It never confirmed or leased anything, so
    /// ending it is final. Should the registration arrive even later, that is what is left.
    async fn end_unborn(&mut self) -> bool {
        let Some(unborn) = self.unborn else { return true };
        match super::bounded(self.call_limit(), self.authority.end(unborn)).await {
            Ok(()) => {
                self.unborn = None;
                true
            }
            Err(error) => {
                self.failed("end", &error);
                false
            }
        }
    }
}
