//! What held at the end of a month: who is billed by whom, and who belonged to the payer.
//!
//! Invariant: every tenant is billed once. Of several consolidations above one another the
//! topmost bills; without any, everybody pays for themselves.

use model::{
    billing::{Consolidation, Period},
    clock::UnixMs,
    tenant::{FAMILY_DEPTH_MAX, Status, TenantId},
};
use uuid::Uuid;

use crate::store::{
    StoreError,
    db::{ControlTx, sql},
    rows,
};

use super::settings;

/// Who pays for a tenant.
pub(super) struct Payer {
    pub(super) id: TenantId,
    /// Set when the payer is billed for its whole subtree.
    pub(super) consolidation: Option<Consolidation>,
}

/// A tenant that a payer pays for.
pub(super) struct Billed {
    pub(super) id: TenantId,
    pub(super) organization_name: String,
    pub(super) plan: String,
    pub(super) status: Status,
}

/// Who paid for a tenant in a month; `None` when the tenant was not there.
pub(super) async fn payer(
    tx: &mut ControlTx,
    tenant: TenantId,
    period: Period,
) -> Result<Option<Payer>, StoreError> {
    let end = period.window().end;
    let line = line_before(tx, tenant, end).await?;
    for ancestor in line.iter().rev() {
        let settings = settings::before(tx, *ancestor, end).await?;
        if let Some(consolidation) = settings.filter(|settings| settings.consolidated_invoicing) {
            return Ok(Some(Payer { id: *ancestor, consolidation: Some(consolidation) }));
        }
    }
    Ok(line.first().map(|id| Payer { id: *id, consolidation: None }))
}

/// A tenant and its ancestors just before an instant, nearest first; empty when the tenant
/// was not there.
async fn line_before(
    tx: &mut ControlTx,
    tenant: TenantId,
    end: UnixMs,
) -> Result<Vec<TenantId>, StoreError> {
    let mut line = Vec::new();
    let mut next = Some(tenant);
    while let Some(id) = next
        && line.len() < FAMILY_DEPTH_MAX as usize
    {
        let found: Option<(Option<Uuid>,)> = sql("SELECT parent FROM tenant_parent
             WHERE tenant_id = $1 AND since < $2 ORDER BY since DESC LIMIT 1")
        .bind(id.0)
        .bind(rows::stored(end))
        .optional(tx)
        .await?;
        let Some((parent,)) = found else { break };
        line.push(id);
        next = parent.map(TenantId);
    }
    Ok(line)
}

/// Whom a payer pays for in a month: itself, and its subtree if it consolidates.
pub(super) async fn billed(
    tx: &mut ControlTx,
    payer: &Payer,
    period: Period,
) -> Result<Vec<Billed>, StoreError> {
    let rows: Vec<(Uuid, String, String, String)> = sql("WITH RECURSIVE family (id) AS (
             SELECT id FROM tenant WHERE id = $1
             UNION ALL
             SELECT child.tenant_id
             FROM family JOIN tenant_parent child
               ON child.parent = family.id AND child.since < $2 AND $3 = 1
             WHERE NOT EXISTS (
                 SELECT 1 FROM tenant_parent later
                 WHERE later.tenant_id = child.tenant_id AND later.since > child.since
                   AND later.since < $2)
         )
         SELECT t.id, t.organization_name, terms.plan, terms.status
         FROM family JOIN tenant t ON t.id = family.id
         JOIN tenant_terms terms ON terms.tenant_id = t.id AND terms.since = (
             SELECT MAX(since) FROM tenant_terms WHERE tenant_id = t.id AND since < $2)
         ORDER BY CASE WHEN t.id = $1 THEN 0 ELSE 1 END, t.id")
    .bind(payer.id.0)
    .bind(rows::stored(period.window().end))
    .bind(i64::from(payer.consolidation.is_some()))
    .all(tx)
    .await?;
    let billed = |(id, organization_name, plan, status): (Uuid, String, String, String)| {
        let status = Status::from_name(&status)
            .ok_or_else(|| StoreError::Decode(format!("status {status:?}")))?;
        Ok(Billed { id: TenantId(id), organization_name, plan, status })
    };
    rows.into_iter().map(billed).collect()
}
