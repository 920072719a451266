//! What applications keep for a tenant: rows of `tenant_data`, by kind.
//!
//! The kinds are the application's own (the product guide's users, projects and files); the
//! data is JSON that nobody here looks into. A row is found by its id and its time, which
//! together name the one part it lies in. Invariant: every statement names the tenant, and
//! is over before its transaction of that tenant is.

use model::{clock::UnixMs, tenant::TenantId};
use serde_json::Value;
use uuid::Uuid;

use super::{
    ChangeError, Store, StoreError,
    db::{Purpose, TenantTx, sql},
    keys::exists,
    rows::{instant, stored},
};

/// Rows of the longest page.
pub const DATA_PAGE_MAX: u32 = 1_000;

/// What names a row within its tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DataKey {
    /// When it was made; rows are listed in this order.
    pub created_at: UnixMs,
    /// Its id, the application's choice.
    pub id: Uuid,
}

/// A row.
#[derive(Clone, Debug, PartialEq)]
pub struct DataRow {
    /// Its name.
    pub key: DataKey,
    /// What it is: `user`, `project`, `file`.
    pub kind: String,
    /// What the application keeps.
    pub data: Value,
    /// When it was last written.
    pub updated_at: UnixMs,
}

#[derive(sqlx::FromRow)]
struct Stored {
    id: Uuid,
    kind: String,
    data: String,
    created_at: i64,
    updated_at: i64,
}

impl Store {
    /// Writes a row, new or not; when it was written.
    ///
    /// # Errors
    /// No such tenant, or the store failed.
    pub async fn put_data(
        &self,
        tenant: TenantId,
        key: DataKey,
        kind: &str,
        data: &Value,
    ) -> Result<UnixMs, ChangeError> {
        let now = self.clock.now();
        let mut tx = self.db.tenant(tenant, Purpose::Write).await?;
        let outcome = put(&mut tx, key, kind, data, now).await;
        tx.end(outcome).await?;
        Ok(now)
    }

    /// A row.
    ///
    /// # Errors
    /// The store failed.
    pub async fn data(
        &self,
        tenant: TenantId,
        key: DataKey,
    ) -> Result<Option<DataRow>, StoreError> {
        let mut tx = self.db.tenant(tenant, Purpose::ReadData).await?;
        let row = read(&mut tx, key).await;
        tx.end(row).await
    }

    /// Up to `limit` rows of a kind, or of all, after the one of the key `after`; oldest first.
    ///
    /// # Errors
    /// The store failed.
    pub async fn data_page(
        &self,
        tenant: TenantId,
        kind: Option<&str>,
        after: Option<DataKey>,
        limit: u32,
    ) -> Result<Vec<DataRow>, StoreError> {
        let mut tx = self.db.tenant(tenant, Purpose::ReadData).await?;
        let rows = page(&mut tx, kind, after, limit).await;
        tx.end(rows).await
    }

    /// Deletes a row; whether it was there.
    ///
    /// # Errors
    /// The store failed.
    pub async fn delete_data(&self, tenant: TenantId, key: DataKey) -> Result<bool, StoreError> {
        let mut tx = self.db.tenant(tenant, Purpose::Write).await?;
        let deleted = sql("DELETE FROM tenant_data
             WHERE tenant_id = $1 AND id = $2 AND created_at = $3")
        .bind(tenant.0)
        .bind(key.id)
        .bind(stored(key.created_at))
        .execute(&mut tx)
        .await;
        Ok(tx.end(deleted).await? > 0)
    }
}

async fn put(
    tx: &mut TenantTx,
    key: DataKey,
    kind: &str,
    data: &Value,
    now: UnixMs,
) -> Result<(), ChangeError> {
    exists(tx).await?;
    sql("INSERT INTO tenant_data (tenant_id, id, kind, data, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (tenant_id, id, created_at) DO UPDATE
         SET kind = excluded.kind, data = excluded.data, updated_at = excluded.updated_at")
    .bind(tx.tenant().0)
    .bind(key.id)
    .bind(kind)
    .bind(data.to_string())
    .bind(stored(key.created_at))
    .bind(stored(now))
    .execute(tx)
    .await?;
    Ok(())
}

async fn read(tx: &mut TenantTx, key: DataKey) -> Result<Option<DataRow>, StoreError> {
    let row: Option<Stored> = sql("SELECT id, kind, data, created_at, updated_at FROM tenant_data
         WHERE tenant_id = $1 AND id = $2 AND created_at = $3")
    .bind(tx.tenant().0)
    .bind(key.id)
    .bind(stored(key.created_at))
    .optional(tx)
    .await?;
    row.map(read_row).transpose()
}

async fn page(
    tx: &mut TenantTx,
    kind: Option<&str>,
    after: Option<DataKey>,
    limit: u32,
) -> Result<Vec<DataRow>, StoreError> {
    let rows: Vec<Stored> = sql("SELECT id, kind, data, created_at, updated_at FROM tenant_data
         WHERE tenant_id = $1 AND ($2 IS NULL OR kind = $2) AND created_at >= $3
           AND (created_at, id) > ($3, $4)
         ORDER BY created_at, id LIMIT $5")
    .bind(tx.tenant().0)
    .bind(kind)
    .bind(after.map_or(i64::MIN, |key| stored(key.created_at)))
    .bind(after.map_or(Uuid::nil(), |key| key.id))
    .bind(i64::from(limit.min(DATA_PAGE_MAX)))
    .all(tx)
    .await?;
    rows.into_iter().map(read_row).collect()
}

fn read_row(row: Stored) -> Result<DataRow, StoreError> {
    let data = serde_json::from_str(&row.data)
        .map_err(|error| StoreError::Decode(format!("data of {}: {error}", row.id)))?;
    let key = DataKey { created_at: instant(row.created_at), id: row.id };
    Ok(DataRow { key, kind: row.kind, data, updated_at: instant(row.updated_at) })
}

#[cfg(test)]
mod tests;
