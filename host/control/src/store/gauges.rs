//! Levels that are reported rather than metered: users, projects, storage, sessions.
//!
//! Read by the usage API. Nothing reports them yet, so they are 0 until the reporting API
//! comes; the table and this reader are its place.

use std::collections::BTreeMap;

use model::{quota::Metric, tenant::TenantId};

use super::{
    Store, StoreError,
    db::{Purpose, TenantTx, sql},
};

impl Store {
    /// A tenant's reported levels; a metric without a report is absent and means 0.
    ///
    /// # Errors
    /// The store failed.
    pub async fn gauges(&self, tenant: TenantId) -> Result<BTreeMap<Metric, u64>, StoreError> {
        let mut tx = self.db.tenant(tenant, Purpose::Read).await?;
        let levels = levels(&mut tx).await;
        tx.end(levels).await
    }
}

#[cfg(test)]
impl Store {
    /// Stands in for the reporting API.
    pub(crate) async fn put_gauge(
        self: &std::sync::Arc<Self>,
        tenant: TenantId,
        metric: Metric,
        value: i64,
    ) -> Result<(), StoreError> {
        let mut tx = self.db.tenant(tenant, Purpose::Write).await?;
        let put = sql("INSERT INTO tenant_gauge VALUES ($1, $2, $3, 0)")
            .bind(tenant.0)
            .bind(metric.as_str())
            .bind(value)
            .execute(&mut tx)
            .await;
        tx.end(put).await.map(drop)
    }
}

async fn levels(tx: &mut TenantTx) -> Result<BTreeMap<Metric, u64>, StoreError> {
    let rows: Vec<(String, i64)> =
        sql("SELECT metric, value FROM tenant_gauge WHERE tenant_id = $1")
            .bind(tx.tenant().0)
            .all(tx)
            .await?;
    let level = |(name, value): (String, i64)| {
        let metric = Metric::from_name(&name)
            .ok_or_else(|| StoreError::Decode(format!("gauge {name:?}")))?;
        Ok((metric, u64::try_from(value).unwrap_or(0)))
    };
    rows.into_iter().map(level).collect()
}
