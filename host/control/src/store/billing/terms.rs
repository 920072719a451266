//! Under which plan and in which status a tenant was when.
//!
//! Written by every transaction that changes one of them. Invariant: of two rows of a
//! tenant that follow each other, something differs.

use model::{clock::UnixMs, tenant::Tenant};

use crate::store::{
    StoreError,
    db::{Tx, sql},
    rows,
};

/// Keeps plan and status as they are from now on, if that is news.
pub(in crate::store) async fn keep<S>(
    tx: &mut Tx<S>,
    tenant: &Tenant,
    now: UnixMs,
) -> Result<(), StoreError> {
    sql("INSERT INTO tenant_terms (tenant_id, since, plan, status)
         SELECT $1, $2, $3, $4 WHERE NOT EXISTS (
             SELECT 1 FROM tenant_terms held
             WHERE held.tenant_id = $1 AND held.plan = $3 AND held.status = $4
               AND held.since = (SELECT MAX(since) FROM tenant_terms WHERE tenant_id = $1))
         ON CONFLICT (tenant_id, since)
             DO UPDATE SET plan = excluded.plan, status = excluded.status")
    .bind(tenant.id.0)
    .bind(rows::stored(now))
    .bind(&tenant.plan)
    .bind(tenant.status.as_str())
    .execute(tx)
    .await
    .map(drop)
}
