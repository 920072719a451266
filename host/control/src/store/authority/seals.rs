//! Marks that a holder is through with an epoch: lease 0 of it.
//!
//! A sealed mark says that the holder's figures of the epoch are complete; one that is not
//! sealed, that the holder was lost and nobody knows yet what it had. Invariant: a mark is
//! sealed by the holder itself, by the will of its successor, or by what the dispatcher's
//! CLOSE answered, and never by time.

use std::collections::BTreeSet;

use model::ledger::{EpochRef, Fence, HolderId, LostShare};

use super::{
    super::{
        StoreError,
        db::{ControlTx, sql},
    },
    figures::Source,
    given::{given, on_given},
    int, of,
    recall::EpochRow,
    window,
};

/// Report number of figures that come after the end of a holder: after every number that it
/// used itself.
pub(super) const FINAL_NUMBER: u64 = i64::MAX as u64;

/// Seals epochs for a holder, whether it had tokens of them or not.
pub(super) async fn seal(
    tx: &mut ControlTx,
    source: Source,
    epochs: impl IntoIterator<Item = EpochRef>,
) -> Result<(), StoreError> {
    let epochs: BTreeSet<_> = epochs.into_iter().collect();
    if epochs.is_empty() {
        return Ok(());
    }
    on_given!(
        "INSERT INTO quota_report (tenant_id, metric, start_ms, epoch, holder, lease, report_no,
             spent, refunded, sealed)
         SELECT e.tenant_id, e.metric, e.start_ms, e.epoch, $2, 0, $3, 0, 0, 1
         FROM given g CROSS JOIN quota_epoch e
         WHERE e.tenant_id = g.tenant_id AND e.metric = g.metric AND e.start_ms = g.start_ms
           AND e.epoch = g.epoch AND e.state <> 'reconciled'
           AND (e.shared = 1 OR e.fence = $4)
         ON CONFLICT (tenant_id, metric, start_ms, epoch, holder, lease) DO UPDATE SET
             report_no = excluded.report_no, spent = 0, sealed = 1
         WHERE quota_report.sealed = 0"
    )
    .bind(given(epochs))
    .bind(source.holder.0)
    .bind(int(source.number))
    .bind(Fence::Holder(source.holder).to_string())
    .execute(tx)
    .await
    .map(drop)
}

/// Seals what a will does not tell of. Of a holder's own epochs that is what it never handed
/// out, or whose leases all had been final; shared ones are as [`tell_shares`] says.
pub(super) async fn seal_untold(
    tx: &mut ControlTx,
    source: Source,
    epochs: &[EpochRef],
) -> Result<(), StoreError> {
    if epochs.is_empty() {
        return Ok(());
    }
    on_given!(
        "INSERT INTO quota_report (tenant_id, metric, start_ms, epoch, holder, lease, report_no,
             spent, refunded, sealed)
         SELECT e.tenant_id, e.metric, e.start_ms, e.epoch, $2, 0, $3, 0, 0, 1
         FROM given g CROSS JOIN quota_epoch e
         WHERE e.tenant_id = g.tenant_id AND e.metric = g.metric AND e.start_ms = g.start_ms
           AND e.epoch = g.epoch AND e.state <> 'reconciled' AND e.shared = 0
           AND e.fence = $4
         ON CONFLICT (tenant_id, metric, start_ms, epoch, holder, lease) DO NOTHING"
    )
    .bind(given(epochs.iter().copied()))
    .bind(source.holder.0)
    .bind(int(source.number))
    .bind(Fence::Holder(source.holder).to_string())
    .execute(tx)
    .await
    .map(drop)
}

/// Marks every shared epoch that a lost holder may have tokens of as lacking its share. Who
/// calls has locked the holder: what is opened later it can no longer confirm.
///
/// Windows in which an epoch is closing are held first: another transaction may be about to
/// end it without this holder, which registered after it began to close; a mark beside that
/// would be an open figure of a reconciled epoch. One that is still open here nobody ends
/// without having seen the holder, which has to seal it.
pub(super) async fn lack_shares(tx: &mut ControlTx, holder: HolderId) -> Result<(), StoreError> {
    hold_closing(tx).await?;
    sql("INSERT INTO quota_report (tenant_id, metric, start_ms, epoch, holder, lease, report_no,
             spent, refunded, sealed)
         SELECT e.tenant_id, e.metric, e.start_ms, e.epoch, $1, 0, 0, 0, 0, 0
         FROM quota_epoch e WHERE e.shared = 1 AND e.state <> 'reconciled'
         ON CONFLICT (tenant_id, metric, start_ms, epoch, holder, lease) DO NOTHING")
    .bind(holder.0)
    .execute(tx)
    .await
    .map(drop)
}

/// Locks the windows in which a shared epoch is closing, in the order of all others' locks.
async fn hold_closing(tx: &mut ControlTx) -> Result<(), StoreError> {
    let rows: Vec<EpochRow> = sql("SELECT DISTINCT e.tenant_id AS tenant, e.metric, e.start_ms,
             w.end_ms, CAST(0 AS BIGINT) AS epoch
         FROM quota_epoch e JOIN quota_window w ON w.tenant_id = e.tenant_id
          AND w.metric = e.metric AND w.start_ms = e.start_ms
         WHERE e.shared = 1 AND e.state = 'closing'")
    .all(tx)
    .await?;
    window::hold(tx, rows.iter().filter_map(EpochRow::epoch).map(|of| of.key)).await
}

/// The same of those shared epochs of which a holder that ended left a lease without final
/// figures.
pub(super) async fn lack_unsealed(tx: &mut ControlTx, holder: HolderId) -> Result<(), StoreError> {
    sql("INSERT INTO quota_report (tenant_id, metric, start_ms, epoch, holder, lease, report_no,
             spent, refunded, sealed)
         SELECT DISTINCT e.tenant_id, e.metric, e.start_ms, e.epoch, r.holder, 0, 0, 0, 0, 0
         FROM quota_report r JOIN quota_epoch e ON e.tenant_id = r.tenant_id
          AND e.metric = r.metric AND e.start_ms = r.start_ms AND e.epoch = r.epoch
         WHERE r.holder = $1 AND r.sealed = 0 AND r.lease > 0 AND e.shared = 1
         ON CONFLICT (tenant_id, metric, start_ms, epoch, holder, lease) DO UPDATE SET sealed = 0")
    .bind(holder.0)
    .execute(tx)
    .await
    .map(drop)
}

/// Takes what a will told for the missing shares of its holder, where it told of every
/// lease.
pub(super) async fn tell_shares(tx: &mut ControlTx, holder: HolderId) -> Result<(), StoreError> {
    sql("UPDATE quota_report SET sealed = 1, spent = 0, report_no = $2
         WHERE holder = $1 AND sealed = 0 AND lease = 0
           AND EXISTS (SELECT 1 FROM quota_epoch e WHERE e.tenant_id = quota_report.tenant_id
             AND e.metric = quota_report.metric AND e.start_ms = quota_report.start_ms
             AND e.epoch = quota_report.epoch AND e.shared = 1)
           AND NOT EXISTS (SELECT 1 FROM quota_report l
             WHERE l.tenant_id = quota_report.tenant_id AND l.metric = quota_report.metric
               AND l.start_ms = quota_report.start_ms AND l.epoch = quota_report.epoch
               AND l.holder = $1 AND l.lease > 0 AND l.sealed = 0)")
    .bind(holder.0)
    .bind(int(FINAL_NUMBER))
    .execute(tx)
    .await
    .map(drop)
}

/// Takes what CLOSE told of lost holders: each share counts as spent, or what the holder
/// itself had reported, if that is more, and no more than final figures of others leave. The
/// answer to a share that nobody lacks is ignored.
pub(super) async fn answer_shares(
    tx: &mut ControlTx,
    shares: &[LostShare],
) -> Result<(), StoreError> {
    for share in shares {
        answer_share(tx, share).await?;
    }
    Ok(())
}

async fn answer_share(tx: &mut ControlTx, share: &LostShare) -> Result<(), StoreError> {
    let LostShare { of: EpochRef { key, epoch }, holder, tokens } = share;
    let find = sql("SELECT e.tranche_own + e.tranche_shared,
             (SELECT CAST(coalesce(sum(a.spent), 0) AS BIGINT) FROM quota_report a
              WHERE a.tenant_id = $1 AND a.metric = $2 AND a.start_ms = $3 AND a.epoch = $4
                AND a.sealed = 1),
             (SELECT CAST(coalesce(sum(a.spent), 0) AS BIGINT) FROM quota_report a
              WHERE a.tenant_id = $1 AND a.metric = $2 AND a.start_ms = $3 AND a.epoch = $4
                AND a.holder = $5 AND a.sealed = 1),
             (SELECT CAST(coalesce(sum(a.spent), 0) AS BIGINT) FROM quota_report a
              WHERE a.tenant_id = $1 AND a.metric = $2 AND a.start_ms = $3 AND a.epoch = $4
                AND a.holder = $5 AND a.sealed = 0)
         FROM quota_epoch e JOIN quota_report r ON r.tenant_id = e.tenant_id
          AND r.metric = e.metric AND r.start_ms = e.start_ms AND r.epoch = e.epoch
         WHERE e.tenant_id = $1 AND e.metric = $2 AND e.start_ms = $3 AND e.epoch = $4
           AND e.shared = 1 AND r.holder = $5 AND r.lease = 0 AND r.sealed = 0");
    let lacking: Option<(i64, i64, i64, i64)> =
        of(find, key).bind(int(*epoch)).bind(holder.0).optional(tx).await?;
    let Some((tranche, ended, own_ended, running)) = lacking else { return Ok(()) };
    let told = (int(*tokens) - own_ended).max(0);
    let left = (tranche - ended).max(0);
    if told > left {
        tracing::error!(?share, "quota_invariant_broken: more was granted than the tranche had");
    }
    let spent = told.max(running).min(left);
    // The mark stands for all leases that had no final figures; their refunds stay as they
    // are, and all of it is final now.
    let answer = sql("UPDATE quota_report SET sealed = 1, report_no = $6,
             spent = CASE WHEN lease = 0 THEN $7 ELSE 0 END
         WHERE tenant_id = $1 AND metric = $2 AND start_ms = $3 AND epoch = $4 AND holder = $5
           AND sealed = 0");
    of(answer, key)
        .bind(int(*epoch))
        .bind(holder.0)
        .bind(int(FINAL_NUMBER))
        .bind(spent)
        .execute(tx)
        .await
        .map(drop)
}
