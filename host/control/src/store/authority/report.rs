//! Figures of holders: stored, reconciled when final, credited.
//!
//! Invariant: an older report never replaces a newer one, and nothing replaces final
//! figures. A tranche bound to one holder's dispatcher is reconciled by that holder's seal
//! alone, because nobody else can have its tokens.

use model::{
    clock::UnixMs,
    ledger::{EpochReport, Fence, HolderId, LateRefunds, Recall, Report, ReportAnswer},
};
use sqlx::prelude::FromRow;

use super::{
    super::{
        StoreError,
        db::{ControlTx, sql},
    },
    commit::Operation,
    int, of, uint, window,
};

/// All figures in one commit.
impl Operation for Report {
    type Answer = ReportAnswer;

    async fn run(&self, tx: &mut ControlTx, now: UnixMs) -> Result<ReportAnswer, StoreError> {
        let epochs = self.epochs.iter().map(|figures| figures.key);
        window::hold(tx, epochs.chain(self.late.iter().map(|late| late.key))).await?;
        let mut answer = ReportAnswer::default();
        for figures in &self.epochs {
            let stored = store_figures(tx, self.holder, self.number, figures).await?;
            answer.credited += stored.credited;
            answer.recalls.extend(stored.recall);
        }
        for late in &self.late {
            answer.credited += credit_late(tx, self.holder, late, now).await?;
        }
        Ok(answer)
    }
}

/// What storing one holder's figures of one tranche led to.
#[derive(Default)]
pub(super) struct Stored {
    pub(super) credited: u64,
    /// The tranche was reconciled by it.
    pub(super) settled: bool,
    recall: Option<Recall>,
}

#[derive(FromRow)]
struct EpochRow {
    fence: String,
    tranche: i64,
    state: String,
    report_no: Option<i64>,
    sealed: Option<i64>,
}

/// Stores one holder's figures of one tranche, and reconciles it when they are final. The
/// caller holds the window, if there is one.
pub(super) async fn store_figures(
    tx: &mut ControlTx,
    holder: HolderId,
    number: u64,
    figures: &EpochReport,
) -> Result<Stored, StoreError> {
    let Some(epoch) = known_or_adopted(tx, holder, figures).await? else {
        return Ok(Stored::default());
    };
    let foreign = epoch.fence.parse() != Ok(Fence::Holder(holder));
    let stale = epoch.report_no.is_some_and(|stored| stored >= int(number));
    if foreign || stale || epoch.sealed == Some(1) || epoch.state == "reconciled" {
        return Ok(Stored::default());
    }
    let spent = int(figures.spent).min(epoch.tranche);
    if spent < int(figures.spent) {
        tracing::error!(?figures, "quota_invariant_broken: more was spent than the tranche had");
    }
    upsert(tx, holder, number, figures, spent).await?;
    if figures.sealed {
        let credited = reconcile(tx, figures, epoch.tranche - spent).await?;
        return Ok(Stored { credited, settled: true, recall: None });
    }
    let recall =
        (epoch.state == "closing").then_some(Recall { key: figures.key, floor: figures.epoch });
    Ok(Stored { credited: 0, settled: false, recall })
}

/// The tranche of the figures. One that is newer than anything known here means that this
/// database went back in time: it is adopted, so that it stays charged.
async fn known_or_adopted(
    tx: &mut ControlTx,
    holder: HolderId,
    figures: &EpochReport,
) -> Result<Option<EpochRow>, StoreError> {
    if let Some(epoch) = find(tx, holder, figures).await? {
        return Ok(Some(epoch));
    }
    if figures.tranche == 0 {
        return Ok(None);
    }
    let (window, _) = window::find_or_insert(tx, &figures.key, figures.tranche).await?;
    if int(figures.epoch) <= window.latest {
        return Ok(None);
    }
    tracing::error!(
        ?figures,
        "quota_authority_rollback: a holder spends a tranche that this database does not know"
    );
    adopt(tx, holder, figures).await?;
    find(tx, holder, figures).await
}

async fn find(
    tx: &mut ControlTx,
    holder: HolderId,
    figures: &EpochReport,
) -> Result<Option<EpochRow>, StoreError> {
    let find = sql("SELECT e.fence, e.tranche_own + e.tranche_shared AS tranche, e.state,
                r.report_no, r.sealed
         FROM quota_epoch e LEFT JOIN quota_report r
           ON r.tenant_id = e.tenant_id AND r.metric = e.metric AND r.start_ms = e.start_ms
          AND r.epoch = e.epoch AND r.holder = $5
         WHERE e.tenant_id = $1 AND e.metric = $2 AND e.start_ms = $3 AND e.epoch = $4");
    of(find, &figures.key).bind(int(figures.epoch)).bind(holder.0).optional(tx).await
}

async fn adopt(
    tx: &mut ControlTx,
    holder: HolderId,
    figures: &EpochReport,
) -> Result<(), StoreError> {
    let (key, epoch, tranche) = (&figures.key, int(figures.epoch), int(figures.tranche));
    // Exactness across a rollback is best effort: what was granted counts as allowed.
    let debit = sql("UPDATE quota_window
         SET limit_high = CASE WHEN limit_high < granted + $5 - credited
                          THEN granted + $5 - credited ELSE limit_high END,
             granted = granted + $5, latest = $4
         WHERE tenant_id = $1 AND metric = $2 AND start_ms = $3");
    of(debit, key).bind(epoch).bind(tranche).execute(tx).await?;
    let insert = sql("INSERT INTO quota_epoch
             (tenant_id, metric, start_ms, epoch, tranche_own, fence, state)
         VALUES ($1, $2, $3, $4, $5, $6, 'open')");
    let fence = Fence::Holder(holder).to_string();
    of(insert, key).bind(epoch).bind(tranche).bind(fence).execute(tx).await?;
    Ok(())
}

async fn upsert(
    tx: &mut ControlTx,
    holder: HolderId,
    number: u64,
    figures: &EpochReport,
    spent: i64,
) -> Result<(), StoreError> {
    let upsert = sql("INSERT INTO quota_report
             (tenant_id, metric, start_ms, epoch, holder, report_no, spent, refunded, sealed)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         ON CONFLICT (tenant_id, metric, start_ms, epoch, holder) DO UPDATE SET
             report_no = excluded.report_no, spent = excluded.spent,
             refunded = excluded.refunded, sealed = excluded.sealed");
    of(upsert, &figures.key)
        .bind(int(figures.epoch))
        .bind(holder.0)
        .bind(int(number))
        .bind(spent)
        .bind(int(figures.refunded))
        .bind(i64::from(figures.sealed))
        .execute(tx)
        .await?;
    Ok(())
}

/// Ends a tranche whose figures are final: `unspent` tokens go back into the window.
async fn reconcile(
    tx: &mut ControlTx,
    figures: &EpochReport,
    unspent: i64,
) -> Result<u64, StoreError> {
    let key = &figures.key;
    let end = sql("UPDATE quota_epoch SET state = 'reconciled'
         WHERE tenant_id = $1 AND metric = $2 AND start_ms = $3 AND epoch = $4");
    of(end, key).bind(int(figures.epoch)).execute(tx).await?;
    let (settled,): (i64,) = of(
        sql("SELECT coalesce(
                 (SELECT min(epoch) - 1 FROM quota_epoch
                  WHERE tenant_id = $1 AND metric = $2 AND start_ms = $3 AND state = 'open'),
                 latest)
             FROM quota_window WHERE tenant_id = $1 AND metric = $2 AND start_ms = $3"),
        key,
    )
    .one(tx)
    .await?;
    let credit = sql("UPDATE quota_window SET credited = credited + $4,
             floor = CASE WHEN floor < $5 THEN $5 ELSE floor END
         WHERE tenant_id = $1 AND metric = $2 AND start_ms = $3");
    of(credit, key).bind(unspent).bind(settled).execute(tx).await?;
    Ok(uint(unspent))
}

/// Credits what came back since the last total, while the window is open.
async fn credit_late(
    tx: &mut ControlTx,
    holder: HolderId,
    late: &LateRefunds,
    now: UnixMs,
) -> Result<u64, StoreError> {
    let key = &late.key;
    let Some(window) = window::find(tx, key).await? else { return Ok(0) };
    if int(now.0) >= window.end_ms {
        return Ok(0);
    }
    let known = sql("SELECT refunded FROM quota_late_refund
         WHERE tenant_id = $1 AND metric = $2 AND start_ms = $3 AND holder = $4");
    let known: Option<(i64,)> = of(known, key).bind(holder.0).optional(tx).await?;
    let known = known.map_or(0, |(refunded,)| refunded);
    let news = (int(late.total) - known).min(window.granted - window.credited);
    if news <= 0 {
        return Ok(0);
    }
    let count = sql("INSERT INTO quota_late_refund (tenant_id, metric, start_ms, holder, refunded)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (tenant_id, metric, start_ms, holder)
         DO UPDATE SET refunded = quota_late_refund.refunded + excluded.refunded");
    of(count, key).bind(holder.0).bind(news).execute(tx).await?;
    let credit = sql("UPDATE quota_window SET credited = credited + $4
         WHERE tenant_id = $1 AND metric = $2 AND start_ms = $3");
    of(credit, key).bind(news).execute(tx).await?;
    Ok(uint(news))
}
