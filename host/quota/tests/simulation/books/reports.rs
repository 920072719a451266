//! Reports: figures and seals taken in, epochs ended, tokens credited.
//!
//! Invariant: an epoch is credited once, when all figures of it are final, and those never add
//! up to more than its tranche; what came back late goes to its window while that is open.

use std::collections::BTreeSet;

use model::{
    clock::Clock as _,
    ledger::{
        EpochRef, Fence, HolderId, LateRefunds, LeaseReport, LostShare, Report, ReportAnswer,
    },
};

use super::{Books, Epoch, FINAL, Figures, HolderRow, Ordinal, Phase};
use crate::simulation::{rules::CREDITED_AFTER, trace::trace};

impl Books {
    pub(in crate::simulation) fn report(&mut self, report: &Report) -> ReportAnswer {
        let now = self.clock.now();
        trace(&self.clock, format_args!("{report:?}"));
        let Some(ordinal) = self.alive(report.holder) else {
            return ReportAnswer { now, ended: true, ..ReportAnswer::default() };
        };
        self.holders[ordinal].reported_at = now.0;
        for figures in &report.leases {
            self.store(ordinal, report.holder, report.number, figures);
        }
        for of in &report.seals {
            self.seal(ordinal, report.holder, report.number, of);
        }
        report.lost.iter().for_each(|share| self.answer_share(share));
        let mut ended: BTreeSet<EpochRef> = report.seals.iter().copied().collect();
        ended.extend(report.lost.iter().map(|share| share.of));
        ended.extend(report.leases.iter().filter(|one| one.sealed).map(|one| one.of));
        let mut credited = ended.iter().map(|of| self.reconcile(of)).map(|done| done.1).sum();
        for late in &report.late {
            credited += self.credit_late(ordinal, late);
        }
        ReportAnswer {
            recalls: self.recalls(ordinal, true, report.holder),
            own_recalls: self.recalls(ordinal, false, report.holder),
            standings: report.watched.iter().map(|key| self.standing(key)).collect(),
            lost: self.lacking(),
            credited,
            now,
            ended: false,
        }
    }

    pub(super) fn store(
        &mut self,
        from: Ordinal,
        holder: HolderId,
        number: u64,
        figures: &LeaseReport,
    ) {
        let EpochRef { key, epoch } = figures.of;
        let Some(row) = self.windows.get_mut(&key).and_then(|row| row.epochs.get_mut(&epoch))
        else {
            self.truth.fail(format_args!("figures of an unknown epoch: {figures:?}"));
            return;
        };
        let foreign = !row.is_shared() && row.fence != Fence::Holder(holder);
        let known = row.reports.get(&(from, figures.lease)).copied();
        let mark = row.reports.get(&(from, 0)).filter(|mark| mark.sealed);
        let newest = known.map(|one| one.number).max(mark.map(|mark| mark.number));
        let stale = newest.is_some_and(|newest| newest >= number);
        let sealed = known.is_some_and(|known| known.sealed);
        if foreign || stale || sealed || row.phase == Phase::Reconciled {
            return;
        }
        if mark.is_some() && known.is_none() {
            self.truth.fail(format_args!("a lease of a tranche that was sealed: {figures:?}"));
        }
        let LeaseReport { lease, mut spent, sealed, .. } = *figures;
        if !self.rules.figures_whole {
            let others = row.spent() - known.map_or(0, |known| known.spent);
            spent = spent.min(row.tranche.saturating_sub(others));
        }
        row.reports.insert((from, lease), Figures { number, spent, sealed });
        if row.finally_spent() > row.tranche {
            self.truth.fail(format_args!("more was spent than the tranche had: {figures:?}"));
        }
    }

    pub(super) fn seal(&mut self, from: Ordinal, holder: HolderId, number: u64, of: &EpochRef) {
        let epochs = self.windows.get_mut(&of.key).map(|row| &mut row.epochs);
        if let Some(epoch) = epochs.and_then(|epochs| epochs.get_mut(&of.epoch))
            && epoch.phase != Phase::Reconciled
            && (epoch.is_shared() || epoch.fence == Fence::Holder(holder))
        {
            epoch.seal(from, number);
        }
    }

    /// What CLOSE told of a lost holder counts as spent, or what it had reported, if more.
    fn answer_share(&mut self, share: &LostShare) {
        let LostShare { of, holder, tokens } = share;
        let Some(ordinal) = self.ordinals.get(holder).copied() else { return };
        let epochs = self.windows.get_mut(&of.key).map(|row| &mut row.epochs);
        let Some(epoch) = epochs.and_then(|epochs| epochs.get_mut(&of.epoch)) else { return };
        let lacking = epoch.reports.get(&(ordinal, 0)).is_some_and(|mark| !mark.sealed);
        if !lacking || !epoch.is_shared() {
            return;
        }
        let mine = epoch.reports.range_mut((ordinal, 0)..=(ordinal, u32::MAX));
        let mut known = 0;
        for (_, figures) in mine {
            known += figures.spent;
            (figures.sealed, figures.number) = (true, FINAL);
        }
        let more = tokens.saturating_sub(known);
        epoch.beyond += known.saturating_sub(*tokens);
        self.wasted += known.saturating_sub(*tokens);
        if let Some(mark) = epoch.reports.get_mut(&(ordinal, 0)) {
            mark.spent = more;
        }
        if epoch.finally_spent() > epoch.tranche {
            self.truth.fail(format_args!("more was granted than the tranche had: {share:?}"));
        }
    }

    /// Whether all figures of an epoch are final.
    fn is_final(&self, epoch: &Epoch) -> bool {
        if epoch.phase == Phase::Reconciled {
            return false;
        }
        let late = self.clock.elapsed().saturating_sub(epoch.closing_since) > CREDITED_AFTER;
        if !self.rules.credit_after_seals && epoch.phase == Phase::Closing && late {
            return true;
        }
        if epoch.reports.values().any(|figures| !figures.sealed) {
            return false;
        }
        let sealed =
            |(ordinal, row): (Ordinal, &HolderRow)| row.ended || epoch.is_sealed_by(ordinal);
        match epoch.fence {
            Fence::Holder(_) => epoch.reports.keys().any(|(_, lease)| *lease == 0),
            Fence::Redis(_) => {
                epoch.phase == Phase::Closing && self.holders.iter().enumerate().all(sealed)
            }
        }
    }

    /// Ends an epoch whose figures are final; whether it did, and what was credited.
    pub(super) fn reconcile(&mut self, of: &EpochRef) -> (u64, u64) {
        let epoch = self.windows.get(&of.key).and_then(|row| row.epochs.get(&of.epoch));
        if !epoch.is_some_and(|epoch| self.is_final(epoch)) {
            return (0, 0);
        }
        let Some(row) = self.windows.get_mut(&of.key) else { return (0, 0) };
        let Some(epoch) = row.epochs.get_mut(&of.epoch) else { return (0, 0) };
        let unspent = epoch.tranche.saturating_sub(epoch.spent());
        epoch.phase = Phase::Reconciled;
        row.credited += unspent;
        if of.epoch <= row.since {
            row.base = row.base.saturating_sub(unspent);
        }
        if unspent > 0 {
            self.free(&of.key);
        }
        self.debited(&of.key);
        (1, unspent)
    }

    fn credit_late(&mut self, from: Ordinal, late: &LateRefunds) -> u64 {
        let now = self.clock.now();
        let Some(row) = self.windows.get_mut(&late.key).filter(|_| now < late.key.window.end)
        else {
            return 0;
        };
        let held = row.held();
        let known = row.late.entry(from).or_default();
        let news = late.total.saturating_sub(*known).min(held);
        *known += news;
        row.credited += news;
        // Nobody says of which epoch.
        row.base -= news.min(row.base);
        if news > 0 {
            self.free(&late.key);
        }
        self.debited(&late.key);
        news
    }

    fn recalls(&self, ordinal: Ordinal, shared: bool, holder: HolderId) -> Vec<EpochRef> {
        let asked = |epoch: &Epoch| {
            epoch.phase == Phase::Closing
                && !epoch.is_sealed_by(ordinal)
                && epoch.is_shared() == shared
                && (shared || epoch.fence == Fence::Holder(holder))
        };
        self.epochs().filter(|(_, epoch)| asked(epoch)).map(|(of, _)| of).collect()
    }

    pub(super) fn lacking(&self) -> Vec<(EpochRef, Fence, HolderId)> {
        let mut lacking = Vec::new();
        for (of, epoch) in self.epochs() {
            if epoch.is_shared() && epoch.phase == Phase::Closing {
                let marks =
                    epoch.reports.iter().filter(|((_, lease), mark)| *lease == 0 && !mark.sealed);
                let holder = |ordinal: Ordinal| self.holders[ordinal].holder.id;
                lacking.extend(marks.map(|((ordinal, _), _)| (of, epoch.fence, holder(*ordinal))));
            }
        }
        lacking
    }
}
