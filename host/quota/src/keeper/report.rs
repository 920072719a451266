//! Telling the authority what was spent.
//!
//! One report is in flight: final figures and seals at once, running figures every second
//! and for tenants whose usage somebody reads. With a shared dispatcher there is one every
//! second in any case: it is this holder's sign of life, and its answer brings what has to
//! be sealed, and the authority's time. Invariant: final figures are sent until the
//! authority has them; only then is their record freed. A seal never comes before the final
//! figures of its tranche.

use std::{ops::Bound, sync::Arc, time::Duration};

use model::{
    ledger::{
        EpochRef, LateRefunds, LeaseReport, LostShare, Report, ReportAnswer, Standing, WindowKey,
    },
    quota::Metric,
    tenant::TenantId,
};
use tokio::{sync::oneshot, time::Instant};

use super::{
    CallFailed, Id, Keeper,
    account::{Account, Via},
    bounded,
};

/// Figures, and accounts watched, in one report; more would hold the only writer for too
/// long.
const REPORT_MAX: usize = 512;

/// Shortest time between two reports that somebody waits for, in ms: by them tokens of closing
/// epochs come back, and it is heard that they did.
const HURRY_MS: u64 = 200;

/// What the authority has to be told in this order.
#[derive(Clone, Copy)]
pub(super) enum Word {
    /// The final figures of a lease.
    Final {
        id: Id,
        figures: LeaseReport,
        /// To be freed when the figures are durable.
        record: u32,
    },
    /// No token of a tranche will be spent any more.
    Seal(EpochRef),
}

/// What a report under way contains, for its answer.
#[derive(Default)]
pub(super) struct SentReport {
    /// On the monotonic clock, ms.
    at: u64,
    words: usize,
    running: Vec<(Id, LeaseReport)>,
    late: Vec<(Id, LateRefunds)>,
    lost: Vec<LostShare>,
    watched: Vec<(Id, WindowKey)>,
    flushes: Vec<oneshot::Sender<bool>>,
}

impl Keeper {
    /// Sends what there is to say when no report is in flight and no pause is due.
    pub(super) fn start_report(&mut self) {
        let now = Instant::now();
        let due = now >= self.report_due;
        let wanted = due || !self.words.is_empty() || !self.flushes.is_empty();
        if self.report_call.is_some() || now < self.outage.retry_at || !wanted || self.ended {
            return;
        }
        let words = self.words.len().min(REPORT_MAX);
        let mut sent = SentReport { words, ..SentReport::default() };
        for (tenant, done) in std::mem::take(&mut self.flushes) {
            self.running_figures(&mut sent, Some(tenant));
            sent.flushes.push(done);
        }
        if due {
            let pause = Duration::from_millis(self.shared.config.report_interval_ms);
            self.report_due = now + pause;
            self.hurried = false;
            self.running_figures(&mut sent, None);
            self.watch(&mut sent);
            sent.lost = std::mem::take(&mut self.lost.told);
        }
        let alive = due && self.common.is_some();
        if sent.words == 0 && sent.running.is_empty() && sent.late.is_empty() && !alive {
            sent.flushes.into_iter().for_each(|done| {
                let _ = done.send(true);
            });
            return;
        }
        self.send_report(sent);
    }

    /// Reports sooner: somebody waits for the last tokens of a window.
    pub(super) fn hurry_report(&mut self) {
        let usual = Duration::from_millis(self.shared.config.report_interval_ms);
        let soon = usual.saturating_sub(Duration::from_millis(HURRY_MS));
        // Once for each report: the next is then due a whole interval later.
        let earliest = self.report_due.checked_sub(soon).unwrap_or(self.report_due);
        if !std::mem::replace(&mut self.hurried, true) {
            self.report_due = earliest;
        }
    }

    fn send_report(&mut self, mut sent: SentReport) {
        self.report_number += 1;
        let (mut leases, mut seals) = (Vec::new(), Vec::new());
        for word in self.words.iter().take(sent.words) {
            match word {
                Word::Final { figures, .. } => leases.push(*figures),
                Word::Seal(of) => seals.push(*of),
            }
        }
        leases.extend(sent.running.iter().map(|(_, figures)| *figures));
        let report = Report {
            holder: self.holder,
            number: self.report_number,
            leases,
            seals,
            late: sent.late.iter().map(|(_, late)| *late).collect(),
            lost: sent.lost.clone(),
            watched: sent.watched.iter().map(|(_, key)| *key).collect(),
        };
        sent.at = self.shared.clock.monotonic_ms();
        self.report_sent = sent;
        self.shared.metrics.calls_report.inc();
        let authority = Arc::clone(&self.authority);
        let limit = self.call_limit();
        self.report_call =
            Some(Box::pin(async move { bounded(limit, authority.report(report)).await }));
    }

    /// Adds what changed: of one tenant in full, else as much as fits.
    fn running_figures(&self, sent: &mut SentReport, tenant: Option<TenantId>) {
        let add = |account: &Account, sent: &mut SentReport| {
            let changed = account.changed(&self.shared).map(|figures| (account.id(), figures));
            sent.running.extend(changed);
            let total = account.slot().late();
            if total != account.late_reported {
                let late = LateRefunds { key: account.key, total: u64::from(total) };
                sent.late.push((account.id(), late));
            }
        };
        if let Some(tenant) = tenant {
            let ids = [(tenant, 0), (tenant, 1)];
            ids.iter().filter_map(|id| self.accounts.get(id)).for_each(|account| {
                add(account, sent);
            });
            return;
        }
        for account in self.accounts.values() {
            if sent.running.len() + sent.late.len() >= REPORT_MAX {
                return;
            }
            add(account, sent);
        }
    }

    /// Adds accounts of the shared dispatcher, a part of them in turn when they are many.
    fn watch(&mut self, sent: &mut SentReport) {
        if self.common.is_none() {
            return;
        }
        let from = self.watch_from.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.accounts.range((from, Bound::Unbounded));
        let watched = rest.filter(|(_, account)| account.confirmed).take(REPORT_MAX);
        sent.watched = watched.map(|(id, account)| (*id, account.key)).collect();
        let all = sent.watched.len() < REPORT_MAX;
        self.watch_from = if all { None } else { sent.watched.last().map(|(id, _)| *id) };
    }

    pub(super) fn on_reported(&mut self, answer: Result<ReportAnswer, CallFailed>) {
        let sent = std::mem::take(&mut self.report_sent);
        let stored = answer.is_ok();
        match answer {
            Ok(answer) if answer.ended => self.ended = true,
            Ok(answer) => {
                self.recovered();
                self.shared.clock.learn(sent.at, answer.now);
                self.after_report(&sent, answer);
            }
            Err(error) => {
                self.credit_unseen = true;
                self.lost.told.extend(sent.lost);
                self.failed("report", &error);
            }
        }
        sent.flushes.into_iter().for_each(|done| {
            let _ = done.send(stored);
        });
    }

    fn after_report(&mut self, sent: &SentReport, answer: ReportAnswer) {
        for (id, figures) in &sent.running {
            let Some(account) = self.accounts.get_mut(id) else { continue };
            let mut leases = account.leases_mut();
            if let Some(lease) = leases.find(|lease| lease.generation == figures.lease) {
                lease.reported = (figures.spent, figures.refunded);
            }
        }
        let mut touched: Vec<Id> = Vec::new();
        for (id, late) in &sent.late {
            if let Some(account) = self.accounts.get_mut(id).filter(|a| a.key == late.key) {
                account.late_reported = u32::try_from(late.total).unwrap_or(u32::MAX);
                touched.push(*id);
            }
        }
        for word in self.words.drain(..sent.words.min(self.words.len())) {
            let Word::Final { id, figures, record: index } = word else { continue };
            if let Some(record) = self.shared.map.record(index) {
                record.free();
                self.records.freed.push(index);
            }
            if let Some(account) = self.accounts.get_mut(&id).filter(|a| a.key == figures.of.key) {
                account.pending = account.pending.saturating_sub(1);
                touched.push(id);
            }
        }
        answer.recalls.into_iter().for_each(|of| self.recall(of, Via::Shared));
        answer.own_recalls.into_iter().for_each(|of| self.recall(of, Via::Direct));
        self.take_standings(sent, &answer.standings);
        for (of, fence, holder) in answer.lost {
            self.ask_lost(of, fence, holder);
        }
        // A report whose answer was lost may have credited.
        let credited = std::mem::take(&mut self.credit_unseen) || answer.credited > 0;
        for id in touched {
            self.credited(id, credited);
        }
        if credited {
            self.pools_may_have_more();
        }
    }

    /// What came back of one account may be another's of the same pool.
    fn pools_may_have_more(&mut self) {
        let exhausted = |(id, account): (&Id, &Account)| {
            let waits = account.exhausted.is_some() && account.slot().above().is_some();
            waits.then_some(*id)
        };
        let ids: Vec<Id> = self.accounts.iter().filter_map(exhausted).collect();
        ids.into_iter().for_each(|id| self.credited(id, true));
    }

    fn take_standings(&mut self, sent: &SentReport, standings: &[Option<Standing>]) {
        for ((id, key), standing) in sent.watched.iter().zip(standings) {
            self.with(*id, |keeper, account| {
                if account.key == *key {
                    keeper.stand(account, *standing);
                    if account.waiting() > 0 {
                        keeper.serve_account(account);
                    }
                }
            });
        }
    }

    /// Tokens may have gone back into a window that was exhausted.
    fn credited(&mut self, id: Id, credited: bool) {
        let Some(account) = self.accounts.get_mut(&id) else { return };
        if credited {
            account.exhausted = None;
            account.slot().clear_empty();
        }
        account.retry_at = 0;
        if account.waiting() > 0 {
            self.serve(id);
        }
    }

    /// Seals a tranche that is closing, whether anything of it is held or not.
    fn recall(&mut self, of: EpochRef, via: Via) {
        let index = Metric::CONSUMABLE.iter().position(|metric| *metric == of.key.metric);
        let Some(index) = index else { return };
        self.with((of.key.tenant, index), |keeper, account| {
            // The start names a window; an end may have been moved since.
            if account.key.window.start != of.key.window.start {
                return;
            }
            if via == Via::Direct {
                account.direct_floor = account.direct_floor.max(of.epoch);
            }
            match via {
                Via::Direct if account.keeps(of.epoch) => keeper.retire_kept(account),
                Via::Direct => keeper.retire(account),
                Via::Shared => {
                    account.bounds.floor = account.bounds.floor.max(of.epoch);
                    keeper.leave_closed(account);
                }
            }
        });
        self.words.push(Word::Seal(of));
    }
}
