//! What no report brings about, for the job that looks after holders.
//!
//! Invariant: each of these may run in every process, at any time and cut off anywhere; none
//! credits anything that is not final.

use model::clock::UnixMs;

use super::{
    super::{
        Store, StoreError,
        db::{ControlTx, Purpose, sql},
    },
    commit::{Operation, committed},
    int,
    recall::EpochRow,
    reconcile::Sweep,
    shared::Close,
};

/// Windows that ended whose shared epochs one run closes: the holders have to seal all of
/// them, beside those of the windows that are open.
const ENDED_MAX: i64 = 512;
/// Epochs that one transaction of a sweep ends.
const SWEEP_MAX: u32 = 512;
/// How long the row of an ended holder stays, in ms: 48 h, as the details of a window.
const ENDED_KEPT_MS: u64 = 48 * 3_600_000;

impl Store {
    /// The time that quota accounts go by.
    ///
    /// # Errors
    /// The database failed.
    pub async fn authority_now(&self) -> Result<UnixMs, StoreError> {
        let mut tx = self.db.control(Purpose::Read).await?;
        let now = self.authority_time.now(&mut tx, &*self.clock).await;
        tx.end(now).await
    }

    /// Starts closing shared epochs of windows that are over, so that what was not spent of
    /// them is not charged.
    ///
    /// # Errors
    /// The database failed.
    pub async fn close_ended_windows(&self) -> Result<(), StoreError> {
        let mut tx = self.db.control(Purpose::Read).await?;
        let ended = ended(self, &mut tx).await;
        let rows = tx.end(ended).await?;
        let keys: Vec<_> = rows.iter().filter_map(EpochRow::epoch).map(|of| of.key).collect();
        if keys.is_empty() { Ok(()) } else { committed(self, &Close(keys)).await }
    }

    /// Ends shared epochs that waited for a holder which has ended; tokens credited.
    ///
    /// # Errors
    /// The database failed.
    pub async fn sweep_epochs(&self) -> Result<u64, StoreError> {
        let mut credited = 0;
        loop {
            let done = committed(self, &Sweep(SWEEP_MAX)).await?;
            credited += done.credited;
            if done.epochs < u64::from(SWEEP_MAX) {
                return Ok(credited);
            }
        }
    }

    /// Forgets holders that ended long ago and of which nobody needs anything.
    ///
    /// # Errors
    /// The database failed.
    pub async fn forget_ended_holders(&self) -> Result<(), StoreError> {
        committed(self, &ForgetEnded).await
    }
}

async fn ended(store: &Store, tx: &mut ControlTx) -> Result<Vec<EpochRow>, StoreError> {
    let now = store.authority_time.now(tx, &*store.clock).await?;
    sql("SELECT tenant_id AS tenant, metric, start_ms, end_ms, latest AS epoch
         FROM quota_window WHERE shared_floor < shared_latest AND end_ms <= $1
         ORDER BY end_ms LIMIT $2")
    .bind(int(now.0))
    .bind(ENDED_MAX)
    .all(tx)
    .await
}

struct ForgetEnded;

impl Operation for ForgetEnded {
    type Answer = ();

    async fn run(&self, tx: &mut ControlTx, now: UnixMs) -> Result<(), StoreError> {
        sql("DELETE FROM quota_holder WHERE ended_at < $1
               AND NOT EXISTS (SELECT 1 FROM quota_epoch e
                   WHERE e.fence = quota_holder.fence AND e.state <> 'reconciled')
               AND NOT EXISTS (SELECT 1 FROM quota_report r
                   WHERE r.holder = quota_holder.holder AND r.sealed = 0)")
        .bind(int(now.0.saturating_sub(ENDED_KEPT_MS)))
        .execute(tx)
        .await
        .map(drop)
    }
}
