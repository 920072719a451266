//! Where tenants stand in pools of tokens, as it is published to the data plane.
//!
//! Invariant: a share is of the pool that the tenant's parent has now; what a move left
//! behind says nothing.

use std::collections::BTreeMap;

use model::{
    pool::{Places, Share},
    quota::Metric,
    tenant::TenantId,
};
use sqlx::prelude::FromRow;
use uuid::Uuid;

use crate::store::{
    StoreError,
    authority::uint,
    db::{Tx, sql},
    rows::Span,
};

/// Where the tenants of a span stand in pools of tokens; those in none are left out.
pub(in crate::store) async fn places<S>(
    tx: &mut Tx<S>,
    span: Span,
) -> Result<BTreeMap<TenantId, Places>, StoreError> {
    let rows: Vec<PlaceRow> = sql("SELECT tenant.id, above.metric,
             CAST(NULL AS BIGINT) AS total, above.total AS owner_total,
             share.guaranteed, share.maximum
         FROM pool above
         JOIN tenant ON tenant.parent = above.tenant_id
         LEFT JOIN pool_share share ON share.tenant_id = above.tenant_id
          AND share.metric = above.metric AND share.child = tenant.id
         WHERE tenant.id BETWEEN $1 AND $2 AND (above.open = 1 OR share.child IS NOT NULL)
         UNION ALL
         SELECT pool.tenant_id, pool.metric, pool.total, NULL, NULL, NULL
         FROM pool WHERE pool.tenant_id BETWEEN $1 AND $2")
    .bind(span.first)
    .bind(span.last)
    .all(tx)
    .await?;
    let mut places: BTreeMap<TenantId, Places> = BTreeMap::new();
    for row in rows {
        let Some(metric) = Metric::from_name(&row.metric) else { continue };
        if !Metric::CONSUMABLE.contains(&metric) {
            continue;
        }
        let held = places.entry(TenantId(row.id)).or_default();
        let mut place = held.of(metric);
        match (row.total, row.owner_total) {
            (Some(total), _) => place.total = Some(uint(total)),
            (None, owner_total) => {
                let max = uint(row.maximum.or(owner_total).unwrap_or(0));
                let guaranteed = uint(row.guaranteed.unwrap_or(0));
                place.share = Some(Share { guaranteed, max });
            }
        }
        held.set(metric, place);
    }
    Ok(places)
}

/// A share, or with `total` a pool.
#[derive(FromRow)]
struct PlaceRow {
    id: Uuid,
    metric: String,
    total: Option<i64>,
    owner_total: Option<i64>,
    guaranteed: Option<i64>,
    maximum: Option<i64>,
}
