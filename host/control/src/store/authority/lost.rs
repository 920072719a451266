//! Holders that went without a word.
//!
//! Invariant: what a lost holder may have stays charged: its own tranches in full, of shared
//! ones what CLOSE tells. Nothing is credited here, so calling a holder lost is safe even
//! when it is wrong.

#[cfg(test)]
mod tests;

use model::{
    clock::UnixMs,
    ledger::{Fence, HolderId, Stranded},
};
use uuid::Uuid;

use super::{
    super::{
        Store, StoreError,
        db::{ControlTx, Purpose, sql},
    },
    commit::{Operation, committed},
    held::unspent,
    int, lives, seals, uint,
};

/// Ends every other living holder of this heir's edge.
pub(super) struct StrandOthers(pub(super) HolderId);

impl Operation for StrandOthers {
    type Answer = Stranded;

    async fn run(&self, tx: &mut ControlTx, now: UnixMs) -> Result<Stranded, StoreError> {
        let others: Vec<(Uuid,)> = sql("SELECT holder FROM quota_holder
             WHERE ended_at IS NULL AND holder <> $1
               AND edge = (SELECT edge FROM quota_holder WHERE holder = $1)
             ORDER BY holder")
        .bind(self.0.0)
        .all(tx)
        .await?;
        // All of them before any window, as everybody does: see `lives`.
        for (other,) in &others {
            lives::lock(tx, HolderId(*other)).await?;
        }
        let mut stranded = Stranded::default();
        for (other,) in others {
            if let Some(lost) = lose(tx, HolderId(other), now, i64::MAX).await? {
                stranded.epochs += lost.epochs;
                stranded.tokens += lost.tokens;
            }
        }
        Ok(stranded)
    }
}

/// Ends a holder that has not reported since.
struct Silent {
    holder: HolderId,
    since: i64,
}

impl Operation for Silent {
    type Answer = Option<Stranded>;

    async fn run(&self, tx: &mut ControlTx, now: UnixMs) -> Result<Self::Answer, StoreError> {
        lose(tx, self.holder, now, self.since).await
    }
}

/// Ends a holder as lost if it lives and has reported at `since` at the latest. Locked before
/// anything is looked for: see `lives`.
async fn lose(
    tx: &mut ControlTx,
    holder: HolderId,
    now: UnixMs,
    since: i64,
) -> Result<Option<Stranded>, StoreError> {
    let row = lives::lock(tx, holder).await?;
    if !row.is_some_and(|row| row.ended_at.is_none() && row.reported_at <= since) {
        return Ok(None);
    }
    let stranded = strand(tx, holder, now).await?;
    seals::lack_shares(tx, holder).await?;
    lives::end(tx, holder, now, true).await?;
    Ok(Some(stranded))
}

/// Closes the epochs of a holder's own dispatcher, and counts them.
async fn strand(tx: &mut ControlTx, holder: HolderId, now: UnixMs) -> Result<Stranded, StoreError> {
    let fence = Fence::Holder(holder).to_string();
    let (epochs, tokens): (i64, i64) = sql(concat!(
        "SELECT count(*), CAST(coalesce(sum(",
        unspent!(),
        "), 0) AS BIGINT)
         FROM quota_epoch e
         JOIN quota_window w ON w.tenant_id = e.tenant_id AND w.metric = e.metric
          AND w.start_ms = e.start_ms
         WHERE e.fence = $1 AND e.shared = 0 AND e.state <> 'reconciled' AND w.end_ms > $2"
    ))
    .bind(fence.as_str())
    .bind(int(now.0))
    .one(tx)
    .await?;
    // Twice about the state: SQLite finds the index by the text of its condition.
    sql("UPDATE quota_epoch SET state = 'closing'
         WHERE fence = $1 AND shared = 0 AND state = 'open' AND state <> 'reconciled'")
    .bind(fence.as_str())
    .execute(tx)
    .await?;
    Ok(Stranded { epochs: uint(epochs), tokens: uint(tokens) })
}

impl Store {
    /// Ends every holder as lost that has not reported for `silent_ms`, while another one has;
    /// how many. What it may have stays charged until the dispatcher's CLOSE tells. While all
    /// are silent nobody waits for them: a single edge with nothing to say is not lost.
    ///
    /// # Errors
    /// The database failed.
    pub async fn lose_silent_holders(&self, silent_ms: u64) -> Result<u64, StoreError> {
        let mut tx = self.db.control(Purpose::Read).await?;
        let found = silent(self, &mut tx, silent_ms).await;
        let (since, holders) = tx.end(found).await?;
        let mut lost = 0;
        for (holder,) in holders {
            let holder = HolderId(holder);
            let Some(stranded) = committed(self, &Silent { holder, since }).await? else {
                continue;
            };
            lost += 1;
            tracing::warn!(
                %holder,
                own_epochs = stranded.epochs,
                own_tokens = stranded.tokens,
                "an edge is silent: its share of open quotas stays charged"
            );
        }
        Ok(lost)
    }
}

async fn silent(
    store: &Store,
    tx: &mut ControlTx,
    silent_ms: u64,
) -> Result<(i64, Vec<(Uuid,)>), StoreError> {
    let now = store.authority_time.now(tx, &*store.clock).await?;
    let since = int(now.0.saturating_sub(silent_ms));
    let holders = sql("SELECT holder FROM quota_holder
         WHERE ended_at IS NULL AND reported_at <= $1 AND EXISTS (
             SELECT 1 FROM quota_holder o WHERE o.ended_at IS NULL AND o.reported_at > $1)
         ORDER BY holder");
    Ok((since, holders.bind(since).all(tx).await?))
}
