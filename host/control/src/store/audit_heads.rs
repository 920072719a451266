//! The signed heads of the audit chains: one a day and chain, when there is something new.
//!
//! Invariant: a head is never changed, and is signed for an entry that is committed.

use model::{
    audit::{AuditHead, PLATFORM_CHAIN},
    clock::UnixMs,
    tenant::TenantId,
};
use uuid::Uuid;

use super::{
    Store, StoreError,
    db::{ControlTx, Purpose, Tx, sql},
    rows::stored,
};
use crate::keys::HeadKey;

const DAY_MS: u64 = 86_400_000;
/// Chains that are signed in one transaction: some tens of milliseconds.
const BATCH: usize = 500;

/// Heads of chains that have grown since they were signed, and were not signed on a day.
/// $1 is the day, $2 how many, $3 the platform's chain.
const UNSIGNED: &str = "SELECT e.tenant_id, e.seq, e.hash
    FROM (SELECT id AS tenant_id FROM tenant UNION ALL
          SELECT tenant_id FROM audit_entry WHERE tenant_id = $3 AND seq = 1) c
    JOIN audit_entry e ON e.tenant_id = c.tenant_id
     AND e.seq = (SELECT MAX(m.seq) FROM audit_entry m WHERE m.tenant_id = c.tenant_id)
    WHERE NOT EXISTS (SELECT 1 FROM audit_head h WHERE h.tenant_id = c.tenant_id
                      AND (h.day >= $1 OR h.seq = e.seq))
    ORDER BY e.tenant_id LIMIT $2";

#[derive(sqlx::FromRow)]
struct HeadRow {
    tenant_id: Uuid,
    seq: i64,
    hash: String,
    at: i64,
    public_key: String,
    signature: String,
}

impl Store {
    /// Signs the head of every chain that has grown and was not signed today; how many.
    ///
    /// # Errors
    /// The store failed, or was opened without keys.
    pub async fn sign_heads(&self) -> Result<usize, StoreError> {
        let key = self.heads.as_deref().ok_or(StoreError::NoKeys)?;
        let mut signed = 0;
        loop {
            let mut tx = self.db.control(Purpose::Write).await?;
            let batch = sign(&mut tx, key, self.clock.now()).await;
            let batch = tx.end(batch).await?;
            signed += batch;
            if batch < BATCH {
                return Ok(signed);
            }
        }
    }

    /// Up to `limit` heads of a chain, the latest first; those before the one signed at
    /// `before`. `None` is the platform's chain.
    ///
    /// # Errors
    /// The store failed.
    pub async fn audit_heads(
        &self,
        chain: Option<TenantId>,
        before: Option<UnixMs>,
        limit: u32,
    ) -> Result<Vec<AuditHead>, StoreError> {
        match chain {
            Some(tenant) => {
                let mut tx = self.db.tenant(tenant, Purpose::Read).await?;
                let heads = heads(&mut tx, tenant, before, limit).await;
                tx.end(heads).await
            }
            None => {
                let mut tx = self.db.control(Purpose::Read).await?;
                let heads = heads(&mut tx, PLATFORM_CHAIN, before, limit).await;
                tx.end(heads).await
            }
        }
    }

    /// Up to `limit` chains' latest heads, in the order of the chains' ids, after one.
    ///
    /// # Errors
    /// The store failed.
    pub async fn latest_heads(
        &self,
        after: Option<TenantId>,
        limit: u32,
    ) -> Result<Vec<AuditHead>, StoreError> {
        let mut tx = self.db.control(Purpose::Read).await?;
        let rows: Result<Vec<HeadRow>, _> =
            sql("SELECT tenant_id, seq, hash, at, public_key, signature FROM audit_head h
             WHERE day = (SELECT MAX(day) FROM audit_head m WHERE m.tenant_id = h.tenant_id)
               AND (tenant_id > $1 OR $2 = 1)
             ORDER BY tenant_id LIMIT $3")
            .bind(after.unwrap_or(PLATFORM_CHAIN).0)
            .bind(i64::from(after.is_none()))
            .bind(i64::from(limit))
            .all(&mut tx)
            .await;
        Ok(tx.end(rows).await?.into_iter().map(HeadRow::decode).collect())
    }

    /// The public key that this process signs heads with, in base64; `None` without keys.
    #[must_use]
    pub fn head_key(&self) -> Option<&str> {
        self.heads.as_deref().map(HeadKey::public)
    }
}

async fn sign(tx: &mut ControlTx, key: &HeadKey, now: UnixMs) -> Result<usize, StoreError> {
    let day = i64::try_from(now.0 / DAY_MS).unwrap_or(i64::MAX);
    let grown: Vec<(Uuid, i64, String)> = sql(UNSIGNED)
        .bind(day)
        .bind(i64::try_from(BATCH).unwrap_or(i64::MAX))
        .bind(PLATFORM_CHAIN.0)
        .all(tx)
        .await?;
    for (chain, seq, hash) in &grown {
        let mut head = AuditHead {
            chain: TenantId(*chain),
            seq: u64::try_from(*seq).unwrap_or(0),
            hash: hash.clone(),
            at_ms: now.0,
            public_key: key.public().to_owned(),
            signature: String::new(),
        };
        head.signature = key.sign(&head.message());
        // Another process may sign the same at the same time.
        sql("INSERT INTO audit_head (tenant_id, day, seq, hash, at, public_key, signature)
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (tenant_id, day) DO NOTHING")
        .bind(*chain)
        .bind(day)
        .bind(*seq)
        .bind(hash.as_str())
        .bind(stored(now))
        .bind(&head.public_key)
        .bind(&head.signature)
        .execute(tx)
        .await?;
    }
    Ok(grown.len())
}

async fn heads<S>(
    tx: &mut Tx<S>,
    chain: TenantId,
    before: Option<UnixMs>,
    limit: u32,
) -> Result<Vec<AuditHead>, StoreError> {
    let rows: Vec<HeadRow> = sql("SELECT tenant_id, seq, hash, at, public_key, signature
         FROM audit_head WHERE tenant_id = $1 AND at < $2 ORDER BY day DESC LIMIT $3")
    .bind(chain.0)
    .bind(before.map_or(i64::MAX, stored))
    .bind(i64::from(limit))
    .all(tx)
    .await?;
    Ok(rows.into_iter().map(HeadRow::decode).collect())
}

impl HeadRow {
    fn decode(self) -> AuditHead {
        AuditHead {
            chain: TenantId(self.tenant_id),
            seq: u64::try_from(self.seq).unwrap_or(0),
            hash: self.hash,
            at_ms: u64::try_from(self.at).unwrap_or(0),
            public_key: self.public_key,
            signature: self.signature,
        }
    }
}

#[cfg(test)]
mod tests;
