//! Levels that are reported rather than metered: users, projects, storage, sessions.
//!
//! Read by the usage API. Nothing reports them yet, so they are 0 until the reporting API
//! comes; the table and this reader are its place.

use std::collections::BTreeMap;

use model::{quota::Metric, tenant::TenantId};

use super::{Store, StoreError};

impl Store {
    /// A tenant's reported levels; a metric without a report is absent and means 0.
    ///
    /// # Errors
    /// The store failed.
    pub async fn gauges(&self, tenant: TenantId) -> Result<BTreeMap<Metric, u64>, StoreError> {
        let rows: Vec<(String, i64)> =
            sqlx::query_as("SELECT metric, value FROM tenant_gauge WHERE tenant = $1")
                .bind(tenant.0)
                .fetch_all(self.reader())
                .await?;
        let level = |(name, value): (String, i64)| {
            let metric = Metric::from_name(&name)
                .ok_or_else(|| StoreError::Decode(format!("gauge {name:?}")))?;
            Ok((metric, u64::try_from(value).unwrap_or(0)))
        };
        rows.into_iter().map(level).collect()
    }
}
