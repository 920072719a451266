//! The family of a tenant as the rules of pools need it, read in two statements.
//!
//! The rows of the pools are the locks: whoever claims or changes shares holds those above
//! the tenant and its own, ancestors' first. What is set aside counts as used. Invariant: a share counts only while its
//! member is a child of the pool's owner; what a move left behind says nothing.

use model::{
    pool::{Family, Member, Membership, POOLED, Share},
    quota::Metric,
    tenant::{FAMILY_DEPTH_MAX, TenantId},
    window::Window,
};
use sqlx::prelude::FromRow;
use uuid::Uuid;

use crate::store::{
    StoreError,
    authority::{int, uint, unspent_of_window},
    db::{ControlTx, sql, sql_each},
};

/// A query on a tenant's line: itself and its ancestors, `depth` levels up. A line is no
/// longer than `$3`, whatever the rows say.
macro_rules! on_line {
    ($query:literal) => {
        concat!(
            "WITH RECURSIVE line (id, parent, depth) AS (
                 SELECT id, parent, 0 FROM tenant WHERE id = $1
                 UNION ALL
                 SELECT tenant.id, tenant.parent, line.depth + 1
                 FROM tenant JOIN line ON tenant.id = line.parent WHERE line.depth < $3)
             ",
            $query
        )
    };
}

/// Locks the pools that a claim of `tenant` may draw from, and its own. Whether there is one.
pub(in crate::store) async fn hold(
    tx: &mut ControlTx,
    tenant: TenantId,
    metric: Metric,
) -> Result<bool, StoreError> {
    if !POOLED.contains(&metric) {
        return Ok(false);
    }
    let held: Vec<(Uuid,)> = sql_each(
        on_line!(
            "SELECT pool.tenant_id FROM line JOIN pool ON pool.tenant_id = line.id
             WHERE pool.metric = $2 ORDER BY line.depth DESC"
        ),
        on_line!(
            "SELECT pool.tenant_id FROM line JOIN pool ON pool.tenant_id = line.id
             WHERE pool.metric = $2 ORDER BY line.depth DESC FOR UPDATE OF pool"
        ),
    )
    .bind(tenant.0)
    .bind(metric.as_str())
    .bind(i64::from(FAMILY_DEPTH_MAX))
    .all(tx)
    .await?;
    Ok(!held.is_empty())
}

/// The tenant above all pools that `tenant` draws from: itself, when it is in none.
pub(in crate::store) async fn top(
    tx: &mut ControlTx,
    tenant: TenantId,
    metric: Metric,
) -> Result<TenantId, StoreError> {
    let line: Vec<(Uuid, i64)> = sql(on_line!(
        "SELECT line.id,
             CAST(CASE WHEN pool.open = 1 OR share.child IS NOT NULL THEN 1 ELSE 0 END AS BIGINT)
         FROM line
         LEFT JOIN pool ON pool.tenant_id = line.parent AND pool.metric = $2
         LEFT JOIN pool_share share ON share.tenant_id = line.parent AND share.metric = $2
          AND share.child = line.id
         ORDER BY line.depth"
    ))
    .bind(tenant.0)
    .bind(metric.as_str())
    .bind(i64::from(FAMILY_DEPTH_MAX))
    .all(tx)
    .await?;
    let top = line.into_iter().find(|(_, is_member)| *is_member == 0);
    Ok(top.map_or(tenant, |(id, _)| TenantId(id)))
}

/// The tenant above all pools that `tenant` draws from, and everybody below it who draws
/// from pools.
pub(in crate::store) async fn around(
    tx: &mut ControlTx,
    tenant: TenantId,
    metric: Metric,
) -> Result<(TenantId, Family), StoreError> {
    let top = top(tx, tenant, metric).await?;
    Ok((top, below(tx, top, metric, Use::Levels).await?))
}

#[derive(FromRow)]
struct MemberRow {
    id: Uuid,
    parent: Option<Uuid>,
    used: i64,
    carried: i64,
    pool: Option<i64>,
    owner_total: Option<i64>,
    guaranteed: Option<i64>,
    maximum: Option<i64>,
}

/// Whose use is counted how: a query of a tenant and everybody below it who draws from its
/// pool, or from one further down.
macro_rules! members {
    ($used:expr, $carried:expr) => {
        concat!(
            "WITH RECURSIVE held (id, depth) AS (
                 SELECT id, 0 FROM tenant WHERE id = $1
                 UNION ALL
                 SELECT tenant.id, held.depth + 1
                 FROM held
                 JOIN pool ON pool.tenant_id = held.id AND pool.metric = $2
                 JOIN tenant ON tenant.parent = held.id
                 LEFT JOIN pool_share share ON share.tenant_id = held.id AND share.metric = $2
                  AND share.child = tenant.id
                 WHERE (pool.open = 1 OR share.child IS NOT NULL) AND held.depth < $3)
             SELECT held.id, tenant.parent, ",
            $used,
            " AS used, ",
            $carried,
            " AS carried, pool.total AS pool, above.total AS owner_total, share.guaranteed,
                 share.maximum
             FROM held JOIN tenant ON tenant.id = held.id
             LEFT JOIN pool ON pool.tenant_id = held.id AND pool.metric = $2
             LEFT JOIN pool above ON above.tenant_id = tenant.parent AND above.metric = $2
             LEFT JOIN pool_share share ON share.tenant_id = tenant.parent AND share.metric = $2
              AND share.child = held.id
             ORDER BY held.depth"
        )
    };
}

/// A sum over the quota windows of `held` that share an instant with a window from `$4` to
/// `$5`. Members have the windows of the top, so that is one, but for anchors that changed.
macro_rules! of_windows {
    ($sum:expr) => {
        concat!(
            "coalesce((SELECT CAST(sum(",
            $sum,
            ") AS BIGINT) FROM quota_window w WHERE w.tenant_id = held.id AND w.metric = $2
                 AND w.start_ms < $5 AND w.end_ms > $4), 0)"
        )
    };
}

/// What counts as used.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) enum Use {
    /// Levels, and what is set aside: of metrics without a window.
    Levels,
    /// Tokens that were granted in a window and not credited: what tranches are bound by.
    Granted(Window),
    /// Tokens that were charged in a window, as far as is known: for people.
    Charged(Window),
}

/// A tenant and everybody below it who draws from its pool, or from one further down.
pub(in crate::store) async fn below(
    tx: &mut ControlTx,
    top: TenantId,
    metric: Metric,
    used: Use,
) -> Result<Family, StoreError> {
    let statement = match used {
        Use::Levels => sql(members!(
            "coalesce((SELECT level.value + level.reserved FROM usage_level level
                 WHERE level.tenant_id = held.id AND level.metric = $2), 0)",
            "CAST(0 AS BIGINT)"
        )),
        Use::Granted(_) => sql(members!(
            of_windows!("w.granted - w.credited - w.pool_base"),
            of_windows!("w.carried")
        )),
        Use::Charged(_) => sql(members!(
            of_windows!(concat!("w.granted - w.credited - w.pool_base - ", unspent_of_window!())),
            of_windows!("w.carried")
        )),
    };
    let statement = statement.bind(top.0).bind(metric.as_str()).bind(i64::from(FAMILY_DEPTH_MAX));
    let statement = match used {
        Use::Levels => statement,
        Use::Granted(Window { start, end }) | Use::Charged(Window { start, end }) => {
            statement.bind(int(start.0)).bind(int(end.0))
        }
    };
    let rows: Vec<MemberRow> = statement.all(tx).await?;
    let members: Vec<_> = rows.iter().map(|row| row.member(top)).collect();
    Ok(Family::new(&members))
}

impl MemberRow {
    /// A row below the top is a member of its parent's pool, with a share of its own or the
    /// open one's. What former members took is gone from the pool, and is the owner's use.
    fn member(&self, top: TenantId) -> Member {
        let owner = self.parent.filter(|_| self.id != top.0);
        let membership = owner.map(|owner| Membership {
            owner: TenantId(owner),
            share: Share {
                guaranteed: uint(self.guaranteed.unwrap_or(0)),
                max: uint(self.maximum.or(self.owner_total).unwrap_or(0)),
            },
        });
        Member {
            tenant: TenantId(self.id),
            membership,
            used: uint(self.used).saturating_add(uint(self.carried)),
            pool: self.pool.map(|pool| uint(pool).saturating_sub(uint(self.carried))),
        }
    }
}
