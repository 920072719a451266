//! Reports of living holders: figures stored, epochs ended, and what is asked for in turn.
//!
//! A report takes a fixed number of statements, however many figures it has (a few more for
//! each late refund, each share of a lost holder and each epoch that ends). Invariant: a
//! holder that was ended stores nothing and learns nothing that lets it spend.

use std::collections::BTreeSet;

use model::{
    clock::UnixMs,
    ledger::{EpochRef, Report, ReportAnswer, WindowKey},
};

use super::{
    super::{StoreError, db::ControlTx},
    commit::Operation,
    figures::{self, Source},
    late, lives, recall,
    reconcile::reconcile,
    seals, shared, window,
};

/// All figures in one commit.
impl Operation for Report {
    type Answer = ReportAnswer;

    async fn run(&self, tx: &mut ControlTx, now: UnixMs) -> Result<ReportAnswer, StoreError> {
        if !lives::heard_from(tx, self.holder, now).await? {
            return Ok(ReportAnswer { now, ended: true, ..ReportAnswer::default() });
        }
        window::hold(tx, touched(self)).await?;
        let source = Source { holder: self.holder, number: self.number };
        let adopted = figures::store(tx, source, &self.leases).await?;
        seals::seal(tx, source, self.seals.iter().copied()).await?;
        seals::answer_shares(tx, &self.lost).await?;
        let mut perhaps_final = perhaps_final(self);
        perhaps_final.retain(|of| !adopted.contains(&of.key));
        let mut credited = reconcile(tx, &perhaps_final).await?.credited;
        for late in &self.late {
            credited += late::credit(tx, self.holder, late, now).await?;
        }
        let (recalls, own_recalls) = recall::recalls(tx, self.holder).await?;
        Ok(ReportAnswer {
            recalls,
            own_recalls,
            standings: shared::standings(tx, &self.watched).await?,
            lost: recall::lost(tx, self.number).await?,
            credited,
            now,
            ended: false,
        })
    }
}

/// The windows that a report changes.
fn touched(report: &Report) -> impl Iterator<Item = WindowKey> + Send + '_ {
    let epochs = report.leases.iter().map(|figures| figures.of);
    let epochs = epochs.chain(report.seals.iter().copied());
    let epochs = epochs.chain(report.lost.iter().map(|share| share.of));
    epochs.map(|of| of.key).chain(report.late.iter().map(|late| late.key))
}

/// The epochs that a report may have brought the last figures of.
fn perhaps_final(report: &Report) -> Vec<EpochRef> {
    let sealed = report.leases.iter().filter(|figures| figures.sealed).map(|figures| figures.of);
    let epochs = sealed.chain(report.seals.iter().copied());
    let epochs: BTreeSet<_> = epochs.chain(report.lost.iter().map(|share| share.of)).collect();
    epochs.into_iter().collect()
}
