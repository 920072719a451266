//! Retention of single tenants, which is shorter than the installation's: row by row.
//!
//! Called by the manager, on both databases. A tenant's settings are read in the transaction
//! that deletes, which excludes every change of them. Invariant: nothing goes that the
//! settings as last answered keep, and every transaction that deleted leaves an entry in the
//! tenant's own audit chain.

use model::{clock::UnixMs, tenant::TenantId};
use uuid::Uuid;

use super::{
    JOB, Store, StoreError,
    retention::{DAY_MS, DELETE_ROWS},
    sql,
};
use crate::store::{
    audit::{self, Act},
    db::{Purpose, TenantTx},
    rows::{self, Span, stored},
};

impl Store {
    /// Deletes what tenants wish to be kept for less than `installation` days.
    pub(super) async fn delete_of_tenants(&self, installation: u32) -> Result<u64, StoreError> {
        let mut tx = self.db.control(Purpose::Read).await?;
        let own: Result<Vec<(Uuid,)>, _> = sql("SELECT id FROM tenant
             WHERE retention_days < $1 AND NOT legal_hold ORDER BY id")
        .bind(i64::from(installation))
        .all(&mut tx)
        .await;
        let mut deleted = 0;
        for (tenant,) in tx.end(own).await? {
            deleted += self.delete_of(TenantId(tenant), installation).await?;
        }
        Ok(deleted)
    }

    async fn delete_of(&self, tenant: TenantId, installation: u32) -> Result<u64, StoreError> {
        let mut deleted = 0;
        loop {
            let mut tx = self.db.tenant(tenant, Purpose::Change).await?;
            let rows = delete_some(&mut tx, installation, self.clock.now()).await;
            match tx.end(rows).await? {
                0 => return Ok(deleted),
                rows => deleted += rows,
            }
        }
    }
}

async fn delete_some(tx: &mut TenantTx, installation: u32, now: UnixMs) -> Result<u64, StoreError> {
    let id = tx.tenant();
    let tenant = rows::tenants(tx, Span::one(id)).await?.into_iter().next();
    let Some(days) = tenant.and_then(|tenant| tenant.gdpr.retention_days(installation)) else {
        return Ok(0);
    };
    let before = UnixMs(now.0.saturating_sub(u64::from(days) * DAY_MS));
    let rows = sql("DELETE FROM tenant_data WHERE tenant_id = $1 AND created_at < $2
           AND (id, created_at) IN (
               SELECT id, created_at FROM tenant_data
               WHERE tenant_id = $1 AND created_at < $2 LIMIT $3)")
    .bind(id.0)
    .bind(stored(before))
    .bind(DELETE_ROWS)
    .execute(tx)
    .await?;
    if rows > 0 {
        let mut act = Act::new(&JOB, "retention.delete_rows", "tenant_data");
        let gone = serde_json::json!({ "rows": rows, "before_ms": before.0 });
        act.describe(Some(&gone), None);
        audit::append(tx, id, &act, now).await?;
    }
    Ok(rows)
}
