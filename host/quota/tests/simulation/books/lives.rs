//! How holders end: by a will, without a word, or because they say so.
//!
//! Invariant: an end credits nothing by itself; what a lost holder may have had stays charged
//! until somebody tells its share.

use std::collections::BTreeSet;

use model::{
    clock::Clock as _,
    ledger::{EpochRef, Fence, HolderId, Inherited, Stranded, Will, WindowKey},
};

use super::{Books, Epoch, FINAL, Figures, HolderRow, Ordinal, Phase, SILENT_MS};
use crate::simulation::trace::trace;

impl Books {
    pub(in crate::simulation) fn inherit(&mut self, will: &Will) -> Inherited {
        trace(&self.clock, format_args!("{will:?}"));
        let Some(ordinal) = self.ordinals.get(&will.predecessor).copied() else {
            return Inherited::default();
        };
        if self.holders[ordinal].holder.boot != will.boot {
            return Inherited::default();
        }
        let holder = will.predecessor;
        let told: BTreeSet<EpochRef> = will.leases.iter().map(|figures| figures.of).collect();
        let mine = |epoch: &Epoch| {
            let unsealed =
                |((of, _), figures): (&(Ordinal, u32), &Figures)| *of == ordinal && !figures.sealed;
            epoch.fence == Fence::Holder(holder) || epoch.reports.iter().any(unsealed)
        };
        let left =
            |(_, epoch): &(EpochRef, &Epoch)| epoch.phase != Phase::Reconciled && mine(epoch);
        let open: BTreeSet<EpochRef> = self.epochs().filter(left).map(|(of, _)| of).collect();
        for figures in &will.leases {
            self.store(ordinal, holder, FINAL, figures);
        }
        told.iter().for_each(|of| self.seal(ordinal, holder, FINAL, of));
        self.holders[ordinal].ended = true;
        for of in &open {
            let epochs = self.windows.get_mut(&of.key).map(|row| &mut row.epochs);
            let Some(epoch) = epochs.and_then(|epochs| epochs.get_mut(&of.epoch)) else { continue };
            let mut leases = epoch.reports.range((ordinal, 1)..=(ordinal, u32::MAX));
            if leases.any(|(_, figures)| !figures.sealed) {
                epoch.lacks(ordinal);
            } else {
                epoch.seal(ordinal, FINAL);
            }
        }
        let ended = told.union(&open).copied().collect::<BTreeSet<_>>();
        let mut inherited = Inherited::default();
        for of in ended {
            let (epochs, credited) = self.reconcile(&of);
            inherited.epochs += epochs;
            inherited.credited += credited;
        }
        inherited
    }

    pub(in crate::simulation) fn strand_others(&mut self, heir: HolderId) -> Stranded {
        let Some(heir) = self.ordinals.get(&heir).copied() else { return Stranded::default() };
        let edge = self.holders[heir].holder.edge.clone();
        let others = self.holders.iter().enumerate();
        let others = others
            .filter(|(ordinal, row)| *ordinal != heir && !row.ended && row.holder.edge == edge);
        let others: Vec<Ordinal> = others.map(|(ordinal, _)| ordinal).collect();
        others.into_iter().for_each(|other| self.lose(other));
        Stranded::default()
    }

    /// A holder went without a word: of shared epochs CLOSE has to tell its share, its own
    /// stay charged.
    fn lose(&mut self, ordinal: Ordinal) {
        self.holders[ordinal].ended = true;
        self.lost += 1;
        trace(&self.clock, format_args!("lost: {:?}", self.holders[ordinal].holder));
        let fence = Fence::Holder(self.holders[ordinal].holder.id);
        let now = self.clock.elapsed();
        for epoch in self.windows.values_mut().flat_map(|row| row.epochs.values_mut()) {
            if epoch.phase == Phase::Reconciled {
                continue;
            }
            if epoch.is_shared() {
                epoch.lacks(ordinal);
                self.wasted += epoch.tranche;
            } else if epoch.fence == fence {
                epoch.close(now);
                self.wasted += epoch.tranche;
            }
        }
    }

    pub(in crate::simulation) fn end(&mut self, holder: HolderId) {
        let Some(ordinal) = self.alive(holder) else { return };
        self.holders[ordinal].ended = true;
        for epoch in self.windows.values_mut().flat_map(|row| row.epochs.values_mut()) {
            let mut leases = epoch.reports.range((ordinal, 1)..=(ordinal, u32::MAX));
            if epoch.is_shared() && leases.any(|(_, figures)| !figures.sealed) {
                epoch.reports.entry((ordinal, 0)).or_default().sealed = false;
            }
        }
    }

    /// What the jobs of the authority do once in a while.
    pub(in crate::simulation) fn upkeep(&mut self) {
        let now = self.clock.now();
        let over = |key: &&WindowKey| key.window.end <= now;
        let over: Vec<WindowKey> = self.windows.keys().filter(over).copied().collect();
        self.close(&over);
        let heard = |row: &HolderRow| !row.ended && now.0 - row.reported_at < SILENT_MS;
        if self.holders.iter().any(heard) {
            let silent = |row: &HolderRow| !row.ended && now.0 - row.reported_at >= SILENT_MS;
            let silent: Vec<Ordinal> =
                (0..self.holders.len()).filter(|one| silent(&self.holders[*one])).collect();
            silent.into_iter().for_each(|holder| self.lose(holder));
        }
        let closing = |epoch: &Epoch| epoch.is_shared() && epoch.phase == Phase::Closing;
        let closing: Vec<EpochRef> =
            self.epochs().filter(|(_, epoch)| closing(epoch)).map(|(of, _)| of).collect();
        for of in closing {
            self.reconcile(&of);
        }
    }
}
