//! How many sessions each tenant has, as the registry last said: a level like users or
//! storage, with its history, so that alerts and trends read it where they read the others.
//!
//! Written by the job that samples the registry, of every edge. Invariant: it is a copy. No
//! session is admitted or refused by it, and it is written only when it changes.

use std::collections::BTreeMap;

use model::{clock::UnixMs, quota::Metric, tenant::TenantId};
use uuid::Uuid;

use super::{
    Store, StoreError,
    authority::{int, uint},
    db::{ControlTx, Purpose, sql},
    rows::stored,
    trends,
};

/// Tenants of one commit (200): on SQLite nobody else writes meanwhile.
const BATCH_TENANTS: usize = 200;
const METRIC: Metric = Metric::ConcurrentSessions;

impl Store {
    /// The counts as they are stored, of the tenants that have sessions.
    ///
    /// # Errors
    /// The store failed.
    pub async fn session_levels(&self) -> Result<BTreeMap<TenantId, u64>, StoreError> {
        let mut tx = self.db.control(Purpose::Read).await?;
        let rows = read(&mut tx).await;
        let rows = tx.end(rows).await?;
        Ok(rows.into_iter().map(|(id, count)| (TenantId(id), uint(count))).collect())
    }

    /// Stores counts, and answers how many were another before. A tenant that is not there is
    /// passed over.
    ///
    /// # Errors
    /// The store failed, perhaps after some of them.
    pub async fn put_session_levels(
        &self,
        counts: &BTreeMap<TenantId, u64>,
    ) -> Result<u64, StoreError> {
        let now = self.clock.now();
        let counts: Vec<(TenantId, u64)> = counts.iter().map(|(id, count)| (*id, *count)).collect();
        let mut changed = 0;
        // In the order of the tenants, so that two edges never wait for each other.
        for batch in counts.chunks(BATCH_TENANTS) {
            let mut tx = self.db.control(Purpose::Write).await?;
            let put = put(&mut tx, batch, now).await;
            changed += tx.end(put).await?;
        }
        Ok(changed)
    }
}

async fn read(tx: &mut ControlTx) -> Result<Vec<(Uuid, i64)>, StoreError> {
    sql("SELECT tenant_id, value FROM usage_level
         WHERE metric = 'concurrent_sessions' AND value > 0")
    .all(tx)
    .await
}

async fn put(
    tx: &mut ControlTx,
    counts: &[(TenantId, u64)],
    now: UnixMs,
) -> Result<u64, StoreError> {
    let mut changed = 0;
    for (tenant, count) in counts {
        let written = sql("INSERT INTO usage_level (tenant_id, metric, value, updated_at)
             SELECT id, $2, $3, $4 FROM tenant WHERE id = $1
             ON CONFLICT (tenant_id, metric)
             DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at
             WHERE usage_level.value <> excluded.value")
        .bind(tenant.0)
        .bind(METRIC.as_str())
        .bind(int(*count))
        .bind(stored(now))
        .execute(tx)
        .await?;
        if written > 0 {
            trends::put_level(tx, *tenant, METRIC, *count, now).await?;
            changed += 1;
        }
    }
    Ok(changed)
}
