//! Figures of leases, as their holder reports them.
//!
//! Invariants: an older report never replaces a newer one, and nothing replaces final
//! figures; of a tranche bound to one holder only that holder's figures are taken; what all
//! leases of a tranche finally spent together never exceeds it. Figures that are not final
//! bound nobody else's: a token that was refunded and went back may be somebody else's by now.

use std::collections::{BTreeMap, BTreeSet};

use model::ledger::{EpochRef, Fence, HolderId, LeaseReport, WindowKey};
use sqlx::prelude::FromRow;

use super::{
    super::{
        StoreError,
        db::{ControlTx, sql},
    },
    given::{Given, given, on_given},
    int, of, window,
};

/// Whose figures, and in which order they were made.
#[derive(Clone, Copy)]
pub(super) struct Source {
    pub(super) holder: HolderId,
    pub(super) number: u64,
}

/// Stores figures of many leases; windows in which a tranche was adopted. The caller holds
/// the windows that there are.
pub(super) async fn store(
    tx: &mut ControlTx,
    source: Source,
    leases: &[LeaseReport],
) -> Result<BTreeSet<WindowKey>, StoreError> {
    // The last word on a lease counts, if a report has several.
    let leases: BTreeMap<_, _> =
        leases.iter().map(|figures| ((figures.of, figures.lease), figures)).collect();
    let leases: Vec<&LeaseReport> = leases.into_values().collect();
    if leases.is_empty() {
        return Ok(BTreeSet::new());
    }
    let mut stored = find(tx, source, &leases).await?;
    let adopted = adopt_unknown(tx, source, &leases, &stored).await?;
    if !adopted.is_empty() {
        stored = find(tx, source, &leases).await?;
    }
    let accepted = accepted(source, &leases, &stored);
    if !accepted.is_empty() {
        upsert(tx, source, accepted).await?;
    }
    Ok(adopted)
}

/// What is stored of a lease and its tranche.
#[derive(FromRow)]
struct Stored {
    n: i64,
    fence: String,
    shared: i64,
    tranche: i64,
    state: String,
    /// Σ spent of the leases of the tranche whose figures are final.
    ended: i64,
    report_no: Option<i64>,
    sealed: Option<i64>,
    /// Number of the report that sealed the tranche for this holder.
    mark_no: Option<i64>,
}

/// What is stored, by the place of the figures.
async fn find(
    tx: &mut ControlTx,
    source: Source,
    leases: &[&LeaseReport],
) -> Result<BTreeMap<usize, Stored>, StoreError> {
    let rows: Vec<Stored> = on_given!(
        "SELECT g.n, e.fence, e.shared, e.tranche_own + e.tranche_shared AS tranche, e.state,
             (SELECT CAST(coalesce(sum(a.spent), 0) AS BIGINT) FROM quota_report a
              WHERE a.tenant_id = e.tenant_id AND a.metric = e.metric
                AND a.start_ms = e.start_ms AND a.epoch = e.epoch AND a.sealed = 1) AS ended,
             r.report_no, r.sealed, m.report_no AS mark_no
         FROM given g CROSS JOIN quota_epoch e
         LEFT JOIN quota_report r ON r.tenant_id = e.tenant_id AND r.metric = e.metric
          AND r.start_ms = e.start_ms AND r.epoch = e.epoch AND r.holder = $2
          AND r.lease = g.lease
         LEFT JOIN quota_report m ON m.tenant_id = e.tenant_id AND m.metric = e.metric
          AND m.start_ms = e.start_ms AND m.epoch = e.epoch AND m.holder = $2
          AND m.lease = 0 AND m.sealed = 1
         WHERE e.tenant_id = g.tenant_id AND e.metric = g.metric AND e.start_ms = g.start_ms
           AND e.epoch = g.epoch"
    )
    .bind(given(leases.iter().map(|figures| row_of(figures, 0))))
    .bind(source.holder.0)
    .all(tx)
    .await?;
    Ok(rows.into_iter().filter_map(|row| Some((usize::try_from(row.n).ok()?, row))).collect())
}

fn row_of(figures: &LeaseReport, spent: i64) -> Given {
    let LeaseReport { of, lease, refunded, sealed, .. } = *figures;
    Given { of, holder: None, lease: i64::from(lease), spent, refunded: int(refunded), sealed }
}

/// The figures that are news and may be believed, no more than each tranche has.
fn accepted(
    source: Source,
    leases: &[&LeaseReport],
    stored: &BTreeMap<usize, Stored>,
) -> Vec<Given> {
    let mut ended: BTreeMap<EpochRef, i64> = BTreeMap::new();
    let mut accepted = Vec::with_capacity(leases.len());
    for (place, figures) in leases.iter().enumerate() {
        let Some(row) = stored.get(&place).filter(|row| is_news(source, figures, row)) else {
            continue;
        };
        let others = ended.entry(figures.of).or_insert(row.ended);
        let spent = int(figures.spent).min((row.tranche - *others).max(0));
        if spent < int(figures.spent) {
            tracing::error!(
                ?figures,
                others,
                "quota_invariant_broken: more was spent than the tranche had"
            );
        }
        if figures.sealed {
            *others += spent;
        }
        accepted.push(row_of(figures, spent));
    }
    accepted
}

fn is_news(source: Source, figures: &LeaseReport, row: &Stored) -> bool {
    let number = int(source.number);
    let foreign = row.shared == 0 && row.fence.parse() != Ok(Fence::Holder(source.holder));
    let stale = row.report_no.max(row.mark_no).is_some_and(|stored| stored >= number);
    if foreign || stale || row.sealed == Some(1) || row.state == "reconciled" {
        return false;
    }
    if row.mark_no.is_some() && row.report_no.is_none() {
        tracing::error!(?figures, "quota_invariant_broken: a lease of a tranche that was sealed");
    }
    figures.lease > 0
}

/// Adopts tranches that are newer than anything known here, which means that this database
/// went back in time: so they stay charged.
async fn adopt_unknown(
    tx: &mut ControlTx,
    source: Source,
    leases: &[&LeaseReport],
    stored: &BTreeMap<usize, Stored>,
) -> Result<BTreeSet<WindowKey>, StoreError> {
    let mut adopted = BTreeSet::new();
    for (place, figures) in leases.iter().enumerate() {
        if stored.contains_key(&place) || figures.tranche == 0 {
            continue;
        }
        let key = &figures.of.key;
        let (window, _) = window::find_or_insert(tx, key, figures.tranche).await?;
        if int(figures.of.epoch) <= window.latest {
            // Folded, or adopted just now for another lease of it.
            continue;
        }
        tracing::error!(
            ?figures,
            "quota_authority_rollback: a holder spends a tranche that this database does not know"
        );
        adopt(tx, source, figures).await?;
        adopted.insert(*key);
    }
    Ok(adopted)
}

/// Whose the tranche was is not known: it counts as a shared one that is closing, so that
/// whoever has tokens of it seals them before anything is credited.
async fn adopt(
    tx: &mut ControlTx,
    source: Source,
    figures: &LeaseReport,
) -> Result<(), StoreError> {
    let (key, epoch, tranche) = (&figures.of.key, int(figures.of.epoch), int(figures.tranche));
    // Exactness across a rollback is best effort: what was granted counts as allowed.
    let debit = sql("UPDATE quota_window
         SET limit_high = CASE WHEN limit_high < granted + $5 - credited
                          THEN granted + $5 - credited ELSE limit_high END,
             granted = granted + $5, latest = $4, shared_latest = $4, shared_floor = $4
         WHERE tenant_id = $1 AND metric = $2 AND start_ms = $3");
    of(debit, key).bind(epoch).bind(tranche).execute(tx).await?;
    let close = sql("UPDATE quota_epoch SET state = 'closing'
         WHERE tenant_id = $1 AND metric = $2 AND start_ms = $3 AND shared = 1
           AND state = 'open'");
    of(close, key).execute(tx).await?;
    let insert = sql("INSERT INTO quota_epoch
             (tenant_id, metric, start_ms, epoch, tranche_own, fence, state, shared)
         VALUES ($1, $2, $3, $4, $5, $6, 'closing', 1)");
    let fence = Fence::Holder(source.holder).to_string();
    of(insert, key).bind(epoch).bind(tranche).bind(fence).execute(tx).await.map(drop)
}

async fn upsert(
    tx: &mut ControlTx,
    source: Source,
    accepted: Vec<Given>,
) -> Result<(), StoreError> {
    on_given!(
        "INSERT INTO quota_report (tenant_id, metric, start_ms, epoch, holder, lease, report_no,
             spent, refunded, sealed)
         SELECT g.tenant_id, g.metric, g.start_ms, g.epoch, $2, g.lease, $3, g.spent,
             g.refunded, g.sealed
         FROM given g WHERE true
         ON CONFLICT (tenant_id, metric, start_ms, epoch, holder, lease) DO UPDATE SET
             report_no = excluded.report_no, spent = excluded.spent,
             refunded = excluded.refunded, sealed = excluded.sealed
         WHERE quota_report.sealed = 0"
    )
    .bind(given(accepted))
    .bind(source.holder.0)
    .bind(int(source.number))
    .execute(tx)
    .await
    .map(drop)
}
