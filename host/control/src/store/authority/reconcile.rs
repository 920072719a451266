//! Ending epochs whose figures are final: the only place that credits a tranche.
//!
//! Invariants: a holder's own epoch ends by that holder's seal; a shared one only when it
//! is closing, every living holder has sealed it and no figure of anybody is missing. That
//! is one statement, so that a holder that ends meanwhile is either still listed, or has
//! left its mark. What is credited is the tranche less all that was spent of it, once.

use std::collections::BTreeMap;

use model::{clock::UnixMs, ledger::EpochRef};
use sqlx::prelude::FromRow;
use uuid::Uuid;

use super::{
    super::{
        StoreError,
        db::{ControlTx, sql},
    },
    commit::Operation,
    given::{Given, given, on_given},
    pooled,
    recall::EpochRow,
    uint, window,
};

/// A condition on epoch `e`: all its figures are final.
macro_rules! is_final {
    () => {
        "e.state <> 'reconciled'
         AND NOT EXISTS (SELECT 1 FROM quota_report u WHERE u.tenant_id = e.tenant_id
             AND u.metric = e.metric AND u.start_ms = e.start_ms AND u.epoch = e.epoch
             AND u.sealed = 0)
         AND CASE WHEN e.shared = 0
             THEN EXISTS (SELECT 1 FROM quota_report m WHERE m.tenant_id = e.tenant_id
                 AND m.metric = e.metric AND m.start_ms = e.start_ms AND m.epoch = e.epoch
                 AND m.lease = 0)
             ELSE e.state = 'closing' AND NOT EXISTS (SELECT 1 FROM quota_holder h
                 WHERE h.ended_at IS NULL AND NOT EXISTS (SELECT 1 FROM quota_report m
                     WHERE m.tenant_id = e.tenant_id AND m.metric = e.metric
                       AND m.start_ms = e.start_ms AND m.epoch = e.epoch
                       AND m.holder = h.holder AND m.lease = 0))
             END"
    };
}

/// What ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reconciled {
    pub(super) epochs: u64,
    pub(super) credited: u64,
}

#[derive(FromRow)]
struct Final {
    n: i64,
    unspent: i64,
}

/// Ends those of the epochs whose figures are final. The caller holds their windows, and has
/// closed none of them in this transaction.
pub(super) async fn reconcile(
    tx: &mut ControlTx,
    epochs: &[EpochRef],
) -> Result<Reconciled, StoreError> {
    if epochs.is_empty() {
        return Ok(Reconciled::default());
    }
    let rows: Vec<Final> = on_given!(
        "SELECT g.n, e.tranche_own + e.tranche_shared - coalesce((
             SELECT CAST(sum(a.spent) AS BIGINT) FROM quota_report a
             WHERE a.tenant_id = e.tenant_id AND a.metric = e.metric
               AND a.start_ms = e.start_ms AND a.epoch = e.epoch), 0) AS unspent
         FROM given g CROSS JOIN quota_epoch e
         WHERE e.tenant_id = g.tenant_id AND e.metric = g.metric AND e.start_ms = g.start_ms
           AND e.epoch = g.epoch AND ",
        is_final!()
    )
    .bind(given(epochs.iter().copied()))
    .all(tx)
    .await?;
    let place = |row: &Final| usize::try_from(row.n).ok();
    let done: BTreeMap<EpochRef, i64> =
        rows.iter().filter_map(|row| Some((*epochs.get(place(row)?)?, row.unspent))).collect();
    end(tx, done.keys().copied()).await?;
    credit(tx, &done).await?;
    let credited = done.values().map(|unspent| uint(*unspent)).sum();
    Ok(Reconciled { epochs: done.len() as u64, credited })
}

async fn end(
    tx: &mut ControlTx,
    epochs: impl ExactSizeIterator<Item = EpochRef>,
) -> Result<(), StoreError> {
    if epochs.len() == 0 {
        return Ok(());
    }
    on_given!(
        "UPDATE quota_epoch SET state = 'reconciled'
         WHERE (tenant_id, metric, start_ms, epoch) IN (
             SELECT tenant_id, metric, start_ms, epoch FROM given)"
    )
    .bind(given(epochs))
    .execute(tx)
    .await
    .map(drop)
}

/// Credits what was not spent: of epochs from before the tenant came into its pool, it was
/// not the pool's. Late refunds may have lowered what is left of those already, by tokens that
/// were: then less is left than comes back.
async fn credit(tx: &mut ControlTx, done: &BTreeMap<EpochRef, i64>) -> Result<(), StoreError> {
    let unspent: Vec<Given> = done
        .iter()
        .filter(|(_, unspent)| **unspent > 0)
        .map(|(of, unspent)| Given { spent: *unspent, ..Given::from(*of) })
        .collect();
    if unspent.is_empty() {
        return Ok(());
    }
    let pools: Vec<(Option<Uuid>, String)> = on_given!(
        "UPDATE quota_window SET credited = credited + c.unspent,
             pool_base = CASE WHEN pool_base < c.earlier THEN 0 ELSE pool_base - c.earlier END
         FROM (SELECT g.tenant_id AS tenant, g.metric AS kind, g.start_ms AS since,
                   CAST(sum(g.spent) AS BIGINT) AS unspent,
                   CAST(sum(CASE WHEN g.epoch <= w.pool_since THEN g.spent ELSE 0 END) AS BIGINT)
                       AS earlier
               FROM given g JOIN quota_window w ON w.tenant_id = g.tenant_id
                AND w.metric = g.metric AND w.start_ms = g.start_ms
               GROUP BY g.tenant_id, g.metric, g.start_ms) c
         WHERE quota_window.tenant_id = c.tenant AND quota_window.metric = c.kind
           AND quota_window.start_ms = c.since
         RETURNING pool_top, metric"
    )
    .bind(given(unspent))
    .all(tx)
    .await?;
    let of_pools = pools.into_iter().filter_map(|(top, metric)| Some((top?, metric)));
    pooled::free(tx, of_pools).await
}

/// Ends shared epochs that nobody will report of any more, at most so many: the last holder
/// that they waited for has ended.
pub(super) struct Sweep(pub(super) u32);

impl Operation for Sweep {
    type Answer = Reconciled;

    async fn run(&self, tx: &mut ControlTx, _: UnixMs) -> Result<Reconciled, StoreError> {
        let rows: Vec<EpochRow> = sql(concat!(
            "SELECT e.tenant_id AS tenant, e.metric, e.start_ms, w.end_ms, e.epoch
             FROM quota_epoch e JOIN quota_window w ON w.tenant_id = e.tenant_id
              AND w.metric = e.metric AND w.start_ms = e.start_ms
             WHERE e.shared = 1 AND e.state = 'closing' AND ",
            is_final!(),
            " LIMIT $1"
        ))
        .bind(i64::from(self.0))
        .all(tx)
        .await?;
        let epochs: Vec<EpochRef> = rows.iter().filter_map(EpochRow::epoch).collect();
        window::hold(tx, epochs.iter().map(|of| of.key)).await?;
        reconcile(tx, &epochs).await
    }
}
