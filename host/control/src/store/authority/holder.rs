//! The beginning and the orderly ends of holders: registered, succeeded, ended.
//!
//! Invariant: a dead holder's tranches are credited only by its own final figures, read by
//! a successor that holds the lock of its lease file; without them they stay charged.

use model::{
    clock::UnixMs,
    ledger::{EpochRef, Fence, Holder, HolderId, Inherited, Registered, Will},
};

use super::{
    super::{
        StoreError,
        db::{ControlTx, sql},
    },
    commit::Operation,
    figures::{self, Source},
    int, lives,
    recall::EpochRow,
    reconcile::reconcile,
    seals::{self, FINAL_NUMBER},
    window,
};

/// Inserts the holder.
impl Operation for Holder {
    type Answer = Registered;

    async fn run(&self, tx: &mut ControlTx, now: UnixMs) -> Result<Registered, StoreError> {
        sql("INSERT INTO quota_holder (holder, fence, edge, boot, registered_at, reported_at)
             VALUES ($1, $2, $3, $4, $5, $5)")
        .bind(self.id.0)
        .bind(Fence::Holder(self.id).to_string())
        .bind(&self.edge)
        .bind(self.boot.0)
        .bind(int(now.0))
        .execute(tx)
        .await?;
        Ok(Registered { now })
    }
}

/// Takes the final figures of a predecessor and ends it.
impl Operation for Will {
    type Answer = Inherited;

    async fn run(&self, tx: &mut ControlTx, now: UnixMs) -> Result<Inherited, StoreError> {
        let holder = self.predecessor;
        let known = lives::lock(tx, holder).await?;
        if known.is_some_and(|row| row.boot != self.boot.0) {
            tracing::warn!(%holder, "a will of another uptime is ignored");
            return Ok(Inherited::default());
        }
        let source = Source { holder, number: FINAL_NUMBER };
        let told: Vec<EpochRef> = self.leases.iter().map(|figures| figures.of).collect();
        let open = unreconciled(tx, holder).await?;
        window::hold(tx, told.iter().chain(&open).map(|of| of.key)).await?;
        let adopted = figures::store(tx, source, &self.leases).await?;
        seals::seal(tx, source, told.iter().copied()).await?;
        seals::seal_untold(tx, source, &open).await?;
        seals::tell_shares(tx, holder).await?;
        lives::end(tx, holder, now, false).await?;
        seals::lack_unsealed(tx, holder).await?;
        let mut ended: Vec<_> = told.into_iter().chain(open).collect();
        ended.retain(|of| !adopted.contains(&of.key));
        ended.sort_unstable();
        ended.dedup();
        let done = reconcile(tx, &ended).await?;
        Ok(Inherited { epochs: done.epochs, credited: done.credited })
    }
}

/// What a holder may still have tokens of: the epochs of its own dispatcher, those of which
/// it left a lease without final figures, and those that lack its share.
async fn unreconciled(tx: &mut ControlTx, holder: HolderId) -> Result<Vec<EpochRef>, StoreError> {
    let rows: Vec<EpochRow> = sql("SELECT e.tenant_id AS tenant, e.metric, e.start_ms, w.end_ms,
             e.epoch
         FROM quota_epoch e JOIN quota_window w ON w.tenant_id = e.tenant_id
          AND w.metric = e.metric AND w.start_ms = e.start_ms
         WHERE e.fence = $2 AND e.state <> 'reconciled'
         UNION
         SELECT e.tenant_id AS tenant, e.metric, e.start_ms, w.end_ms, e.epoch
         FROM quota_report r JOIN quota_epoch e ON e.tenant_id = r.tenant_id
          AND e.metric = r.metric AND e.start_ms = r.start_ms AND e.epoch = r.epoch
         JOIN quota_window w ON w.tenant_id = e.tenant_id AND w.metric = e.metric
          AND w.start_ms = e.start_ms
         WHERE r.holder = $1 AND r.sealed = 0 AND e.state <> 'reconciled'")
    .bind(holder.0)
    .bind(Fence::Holder(holder).to_string())
    .all(tx)
    .await?;
    Ok(rows.iter().filter_map(EpochRow::epoch).collect())
}

/// Ends a holder that reported everything. What others wait for is ended by the sweep.
pub(super) struct End(pub(super) HolderId);

impl Operation for End {
    type Answer = ();

    async fn run(&self, tx: &mut ControlTx, now: UnixMs) -> Result<(), StoreError> {
        let known = lives::lock(tx, self.0).await?;
        if known.is_some_and(|row| row.ended_at.is_none()) {
            lives::end(tx, self.0, now, false).await?;
            seals::lack_unsealed(tx, self.0).await?;
        }
        Ok(())
    }
}
