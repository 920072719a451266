//! Tenants of the store: read here, created and patched in the files beside.
//!
//! Invariant: a slug is taken once and for ever.

mod create;
mod patch;

use model::tenant::{Slug, Status, Tenant, TenantId};

pub use self::{
    create::{CreateError, NewTenant},
    patch::{ChangeError, Members, TenantPatch},
};
use super::{
    Store, StoreError,
    db::{ControlTx, Purpose, TenantTx, sql},
    rows::{self, Span, TenantRow},
    secrets,
};

/// A tenant with the names of its secrets.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredTenant {
    /// The tenant.
    pub tenant: Tenant,
    /// Names that its policy configs may refer to.
    pub secret_names: Vec<String>,
}

/// Which tenants to list.
#[derive(Clone, Debug, Default)]
pub struct TenantFilter {
    /// Only the one of this slug.
    pub slug: Option<String>,
    /// Only those of this status.
    pub status: Option<Status>,
    /// Only those of this plan.
    pub plan: Option<String>,
    /// Only this one and those below it.
    pub within: Option<TenantId>,
}

/// Some tenants in the order of their creation.
#[derive(Clone, Debug)]
pub struct TenantPage {
    /// The tenants.
    pub tenants: Vec<StoredTenant>,
    /// Where the next page goes on after; `None` on the last one.
    pub next_after: Option<TenantId>,
}

impl Store {
    /// The tenant of an id.
    ///
    /// # Errors
    /// The store failed.
    pub async fn tenant(&self, id: TenantId) -> Result<Option<StoredTenant>, StoreError> {
        let mut tx = self.db.tenant(id, Purpose::Read).await?;
        let stored = read(&mut tx).await;
        tx.end(stored).await
    }

    /// The tenant of a slug.
    ///
    /// # Errors
    /// The store failed.
    pub async fn tenant_by_slug(&self, slug: &Slug) -> Result<Option<StoredTenant>, StoreError> {
        let filter = TenantFilter { slug: Some(slug.to_string()), ..TenantFilter::default() };
        Ok(self.tenants(&filter, None, 1).await?.tenants.into_iter().next())
    }

    /// Up to `limit` tenants that pass the filter, after the one of id `after`.
    ///
    /// # Errors
    /// The store failed.
    pub async fn tenants(
        &self,
        filter: &TenantFilter,
        after: Option<TenantId>,
        limit: u32,
    ) -> Result<TenantPage, StoreError> {
        let mut tx = self.db.control(Purpose::Read).await?;
        let page = page(&mut tx, filter, after, limit).await;
        tx.end(page).await
    }
}

async fn read(tx: &mut TenantTx) -> Result<Option<StoredTenant>, StoreError> {
    let id = tx.tenant();
    let tenants = rows::tenants(tx, Span::one(id)).await?;
    let mut names = secrets::names(tx, Span::one(id)).await?;
    Ok(tenants.into_iter().next().map(|tenant| {
        let secret_names = names.remove(&id).unwrap_or_default();
        StoredTenant { tenant, secret_names }
    }))
}

async fn page(
    tx: &mut ControlTx,
    filter: &TenantFilter,
    after: Option<TenantId>,
    limit: u32,
) -> Result<TenantPage, StoreError> {
    let query = match filter.within {
        None => sql("SELECT * FROM tenant
             WHERE ($1 IS NULL OR slug = $1) AND ($2 IS NULL OR status = $2) AND id > $3
               AND ($5 IS NULL OR plan = $5)
             ORDER BY id LIMIT $4"),
        Some(_) => sql("SELECT tenant.* FROM tenant_closure
             JOIN tenant ON tenant.id = tenant_closure.tenant_id AND tenant_closure.ancestor = $6
             WHERE ($1 IS NULL OR slug = $1) AND ($2 IS NULL OR status = $2) AND tenant.id > $3
               AND ($5 IS NULL OR plan = $5)
             ORDER BY tenant.id LIMIT $4"),
    };
    let query = query
        .bind(filter.slug.as_deref())
        .bind(filter.status.map(Status::as_str))
        .bind(after.map_or(Span::ALL.first, |id| id.0))
        .bind(i64::from(limit) + 1)
        .bind(filter.plan.as_deref());
    let query = match filter.within {
        None => query,
        Some(root) => query.bind(root.0),
    };
    let mut rows: Vec<TenantRow> = query.all(tx).await?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let tenants = rows::with_domains(tx, rows).await?;
    let (Some(first), Some(last)) = (tenants.first(), tenants.last()) else {
        return Ok(TenantPage { tenants: Vec::new(), next_after: None });
    };
    let next_after = more.then_some(last.id);
    let span = Span { first: first.id.0, last: last.id.0 };
    let mut names = secrets::names(tx, span).await?;
    let named = |tenant: Tenant| {
        let secret_names = names.remove(&tenant.id).unwrap_or_default();
        StoredTenant { tenant, secret_names }
    };
    Ok(TenantPage { tenants: tenants.into_iter().map(named).collect(), next_after })
}
