//! Telling the authority what was spent.
//!
//! One report is in flight: final figures at once, running figures every second and for
//! tenants whose usage somebody reads. Invariant: final figures are sent until the
//! authority has them; only then is their record freed.

use std::{sync::Arc, time::Duration};

use model::{
    ledger::{EpochReport, LateRefunds, Recall, Report, ReportAnswer, WindowKey},
    tenant::TenantId,
};
use tokio::{sync::oneshot, time::Instant};

use super::{CallFailed, Id, Keeper, account::Account, bounded};

/// Figures in one report; more would hold the only writer for too long.
const REPORT_MAX: usize = 512;

/// A sealed tranche and its final figures.
#[derive(Clone, Copy)]
pub(super) struct Final {
    pub(super) id: Id,
    pub(super) key: WindowKey,
    pub(super) epoch: u64,
    pub(super) tranche: u64,
    pub(super) spent: u64,
    pub(super) refunded: u64,
    /// To be freed when the figures are durable.
    pub(super) record: Option<u32>,
}

/// What a report under way contains, for its answer.
#[derive(Default)]
pub(super) struct SentReport {
    finals: usize,
    running: Vec<(Id, EpochReport)>,
    late: Vec<(Id, LateRefunds)>,
    flushes: Vec<oneshot::Sender<bool>>,
}

impl Keeper {
    /// Sends what there is to say when no report is in flight and no pause is due.
    pub(super) fn start_report(&mut self) {
        let now = Instant::now();
        let due = now >= self.report_due;
        let wanted = due || !self.finals.is_empty() || !self.flushes.is_empty();
        if self.report_call.is_some() || now < self.outage.retry_at || !wanted {
            return;
        }
        if due {
            let pause = Duration::from_millis(self.shared.config.report_interval_ms);
            self.report_due = now + pause;
        }
        let mut sent = SentReport::default();
        let mut epochs = self.final_figures();
        sent.finals = epochs.len();
        for (tenant, done) in std::mem::take(&mut self.flushes) {
            self.running_figures(&mut sent, Some(tenant));
            sent.flushes.push(done);
        }
        if due {
            self.running_figures(&mut sent, None);
        }
        if sent.finals == 0 && sent.running.is_empty() && sent.late.is_empty() {
            sent.flushes.into_iter().for_each(|done| {
                let _ = done.send(true);
            });
            return;
        }
        epochs.extend(sent.running.iter().map(|(_, figures)| *figures));
        let late = sent.late.iter().map(|(_, late)| *late).collect();
        self.report_sent = sent;
        self.send(epochs, late);
    }

    fn send(&mut self, epochs: Vec<EpochReport>, late: Vec<LateRefunds>) {
        self.report_number += 1;
        let report = Report { holder: self.holder, number: self.report_number, epochs, late };
        self.shared.metrics.calls_report.inc();
        let authority = Arc::clone(&self.authority);
        let limit = self.call_limit();
        self.report_call =
            Some(Box::pin(async move { bounded(limit, authority.report(report)).await }));
    }

    fn final_figures(&self) -> Vec<EpochReport> {
        let report = |figures: &Final| EpochReport {
            key: figures.key,
            epoch: figures.epoch,
            tranche: figures.tranche,
            spent: figures.spent,
            refunded: figures.refunded,
            sealed: true,
        };
        self.finals.iter().take(REPORT_MAX).map(report).collect()
    }

    /// Adds what changed: of one tenant in full, else as much as fits.
    fn running_figures(&self, sent: &mut SentReport, tenant: Option<TenantId>) {
        let add = |account: &Account, sent: &mut SentReport| {
            if let Some(figures) = account.changed(&self.shared) {
                sent.running.push((account.id(), figures));
            }
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

    pub(super) async fn on_reported(&mut self, answer: Result<ReportAnswer, CallFailed>) {
        let sent = std::mem::take(&mut self.report_sent);
        let stored = answer.is_ok();
        match answer {
            Ok(answer) => {
                self.recovered();
                self.after_report(&sent, &answer).await;
            }
            Err(error) => {
                self.credit_unseen = true;
                self.failed("report", &error);
            }
        }
        sent.flushes.into_iter().for_each(|done| {
            let _ = done.send(stored);
        });
    }

    async fn after_report(&mut self, sent: &SentReport, answer: &ReportAnswer) {
        for (id, figures) in &sent.running {
            let lease = self.accounts.get_mut(id).and_then(|account| account.lease.as_mut());
            if let Some(lease) = lease.filter(|lease| lease.epoch == figures.epoch) {
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
        for done in self.finals.drain(..sent.finals.min(self.finals.len())) {
            if let Some(index) = done.record
                && let Some(record) = self.shared.map.record(index)
            {
                record.free();
                self.records.freed.push(index);
            }
            if let Some(account) = self.accounts.get_mut(&done.id).filter(|a| a.key == done.key) {
                account.pending = account.pending.saturating_sub(1);
                touched.push(done.id);
            }
        }
        for recall in &answer.recalls {
            self.recall(recall).await;
        }
        // A report whose answer was lost may have credited.
        let credited = std::mem::take(&mut self.credit_unseen) || answer.credited > 0;
        for id in touched {
            self.credited(id, credited).await;
        }
    }

    /// Tokens may have gone back into a window that was exhausted.
    async fn credited(&mut self, id: Id, credited: bool) {
        let Some(account) = self.accounts.get_mut(&id) else { return };
        if credited {
            account.exhausted = None;
            account.slot().clear_empty();
        }
        if account.waiting() > 0 {
            self.serve(id).await;
        }
    }

    async fn recall(&mut self, recall: &Recall) {
        let index = model::quota::Metric::CONSUMABLE.iter().position(|m| *m == recall.key.metric);
        let Some(index) = index else { return };
        self.with((recall.key.tenant, index), async |keeper, account| {
            let held = account.lease.as_ref().is_some_and(|lease| lease.epoch <= recall.floor);
            if held && account.key == recall.key {
                keeper.retire(account).await;
            }
        })
        .await;
    }
}
