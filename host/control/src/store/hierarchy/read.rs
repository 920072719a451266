//! Families as they are shown: a tenant's subtree, its ancestors, its children by pages.
//!
//! Invariant: one answer is one committed state, effective statuses included.

use std::collections::BTreeMap;

use model::tenant::{Status, TenantId};
use sqlx::prelude::FromRow;
use uuid::Uuid;

use super::closure;
use crate::store::{
    Store, StoreError,
    db::{ControlTx, Purpose, sql},
    rows::Span,
};

/// Tenants of one tree: a few hundred KB of JSON. A larger one is read level by level.
const TREE_TENANTS_MAX: usize = 1_000;

/// A tenant as its family sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Identity.
    pub id: TenantId,
    /// Its parent.
    pub parent: Option<TenantId>,
    /// DNS label under the base domain.
    pub slug: String,
    /// Legal name.
    pub organization_name: String,
    /// Name of its plan.
    pub plan: String,
    /// Stored status.
    pub status: Status,
    /// The status in effect: a suspension or erasure of an ancestor applies to it too.
    pub effective_status: Status,
    /// Levels below the tenant that was asked about; 0 is that tenant.
    pub depth: u32,
}

/// A tenant's place and subtree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    /// Ancestors, nearest first.
    pub ancestors: Vec<TenantId>,
    /// The subtree level by level, in the order of creation; the tenant itself first.
    pub members: Vec<Member>,
    /// Whether there are more members than are listed; the deepest are left out.
    pub truncated: bool,
}

/// Some children in the order of their creation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildPage {
    /// The children.
    pub children: Vec<Member>,
    /// Where the next page goes on after; `None` on the last one.
    pub next_after: Option<TenantId>,
}

#[derive(FromRow)]
struct MemberRow {
    id: Uuid,
    parent: Option<Uuid>,
    slug: String,
    organization_name: String,
    plan: String,
    status: String,
    depth: i64,
}

impl Store {
    /// The ids of a tenant and all its descendants, in their order, from the database; empty
    /// for an unknown tenant.
    ///
    /// # Errors
    /// The store failed.
    pub async fn subtree(&self, root: TenantId) -> Result<Vec<TenantId>, StoreError> {
        let mut tx = self.db.control(Purpose::Read).await?;
        let subtree = closure::subtree(&mut tx, root).await;
        tx.end(subtree).await
    }

    /// A tenant's ancestors and subtree; `None` when there is no such tenant.
    ///
    /// # Errors
    /// The store failed.
    pub async fn family(&self, id: TenantId) -> Result<Option<Family>, StoreError> {
        let mut tx = self.db.control(Purpose::Read).await?;
        let family = family(&mut tx, id).await;
        tx.end(family).await
    }

    /// Up to `limit` children of a tenant, after the one of id `after`; `None` when there is
    /// no such tenant.
    ///
    /// # Errors
    /// The store failed.
    pub async fn children(
        &self,
        parent: TenantId,
        after: Option<TenantId>,
        limit: u32,
    ) -> Result<Option<ChildPage>, StoreError> {
        let mut tx = self.db.control(Purpose::Read).await?;
        let page = children(&mut tx, parent, after, limit).await;
        tx.end(page).await
    }
}

async fn family(tx: &mut ControlTx, id: TenantId) -> Result<Option<Family>, StoreError> {
    let line = statuses(tx, id).await?;
    let Some((_, above)) = line.split_first() else { return Ok(None) };
    let mut rows: Vec<MemberRow> =
        sql("SELECT t.id, t.parent, t.slug, t.organization_name, t.plan, t.status, c.depth
         FROM tenant_closure c JOIN tenant t ON t.id = c.tenant_id
         WHERE c.ancestor = $1 ORDER BY c.depth, t.id LIMIT $2")
        .bind(id.0)
        .bind(i64::try_from(TREE_TENANTS_MAX + 1).unwrap_or(i64::MAX))
        .all(tx)
        .await?;
    let truncated = rows.len() > TREE_TENANTS_MAX;
    rows.truncate(TREE_TENANTS_MAX);
    // What each member's children inherit; a parent comes before its children.
    let imposed = above.iter().map(|(_, status)| *status).find(|status| status.applies_below());
    let mut below = BTreeMap::new();
    let mut members = Vec::with_capacity(rows.len());
    for row in rows {
        let inherited = match row.parent {
            Some(parent) if row.depth > 0 => below.get(&parent).copied().flatten(),
            _ => imposed,
        };
        let member = row.member(inherited)?;
        let passed_on = Some(member.status).filter(|status| status.applies_below()).or(inherited);
        below.insert(member.id.0, passed_on);
        members.push(member);
    }
    let ancestors = above.iter().map(|(id, _)| *id).collect();
    Ok(Some(Family { ancestors, members, truncated }))
}

async fn children(
    tx: &mut ControlTx,
    parent: TenantId,
    after: Option<TenantId>,
    limit: u32,
) -> Result<Option<ChildPage>, StoreError> {
    let line = statuses(tx, parent).await?;
    if line.is_empty() {
        return Ok(None);
    }
    let mut rows: Vec<MemberRow> =
        sql("SELECT id, parent, slug, organization_name, plan, status, CAST(1 AS BIGINT) AS depth
         FROM tenant WHERE parent = $1 AND id > $2 ORDER BY id LIMIT $3")
        .bind(parent.0)
        .bind(after.map_or(Span::ALL.first, |id| id.0))
        .bind(i64::from(limit) + 1)
        .all(tx)
        .await?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let imposed = line.into_iter().map(|(_, status)| status).find(|status| status.applies_below());
    let children: Vec<_> =
        rows.into_iter().map(|row| row.member(imposed)).collect::<Result<_, _>>()?;
    let next_after = children.last().filter(|_| more).map(|last| last.id);
    Ok(Some(ChildPage { children, next_after }))
}

/// A tenant and its ancestors with their statuses, nearest first.
async fn statuses(tx: &mut ControlTx, id: TenantId) -> Result<Vec<(TenantId, Status)>, StoreError> {
    let rows: Vec<(Uuid, String)> = sql("SELECT t.id, t.status
         FROM tenant_closure c JOIN tenant t ON t.id = c.ancestor
         WHERE c.tenant_id = $1 ORDER BY c.depth")
    .bind(id.0)
    .all(tx)
    .await?;
    rows.into_iter().map(|(id, name)| Ok((TenantId(id), status(&name)?))).collect()
}

impl MemberRow {
    /// A member below an ancestor that imposes this status, if one does.
    fn member(self, imposed: Option<Status>) -> Result<Member, StoreError> {
        let status = status(&self.status)?;
        Ok(Member {
            id: TenantId(self.id),
            parent: self.parent.map(TenantId),
            slug: self.slug,
            organization_name: self.organization_name,
            plan: self.plan,
            status,
            effective_status: status.effective(imposed),
            depth: u32::try_from(self.depth).unwrap_or(0),
        })
    }
}

fn status(name: &str) -> Result<Status, StoreError> {
    Status::from_name(name).ok_or_else(|| StoreError::Decode(format!("status {name:?}")))
}
