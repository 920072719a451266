//! Tranches of tenants that draw from pools, or have one.
//!
//! A pool is the sum of what is granted in its members' windows, each counted as at least its
//! guarantee; a tranche is opened under the lock of the family's top, and no larger than the
//! room that all of them leave. Invariant: what the members of a pool were granted and did
//! not give back is at no moment more than the pool, through every level. Changes of the
//! terms exclude every opening, so what is read here holds until the commit.
//!
//! Levels are crossed per tranche, here, and not per lease in Redis. It is as exact: no token is
//! handed out before every pool above it has paid. Ledgers stay one key each, so members need
//! not share a slot of a Cluster, a lease checks one fence and one pair of bounds, and a first
//! call costs what it costs without a pool. The price is staleness: a member can find nothing
//! while others hold unspent tranches, at most two of each who draws: with `a` members that draw
//! from a pool and may have at most `m` each, `2 a · max(8, m ÷ 100 a)`
//! tokens, so 2 % of the pool or 16 a member, and as much again for each edge without Redis.
//! Whoever finds none has them recalled ([`Release`]).

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use model::{
    clock::UnixMs,
    ledger::{EpochRef, OpenRequest, WindowKey},
    pool::Family,
    quota::Metric,
    tenant::TenantId,
    window::Window,
};
use uuid::Uuid;

use super::{
    super::{
        StoreError,
        db::{ControlTx, locking, sql},
        pools::{
            family::{self, Use, below},
            tokens::carried,
        },
    },
    commit::Operation,
    held::{counts_by_reports, unspent},
    int, of,
    recall::EpochRow,
    shared, uint, window,
};

/// Who stands in pools, and under whom.
#[derive(Default)]
pub(super) struct Tops(BTreeMap<(TenantId, Metric), TenantId>);

impl Tops {
    /// Those of the accounts. The rows of the tops' pools are held, in one order by
    /// everybody. One small query where there is no pool of tokens.
    pub(super) async fn hold(tx: &mut ControlTx, keys: &[WindowKey]) -> Result<Self, StoreError> {
        if !tx.is_alone() {
            // Before the terms are read: whoever changes them excludes it.
            sql("LOCK TABLE quota_window IN ROW EXCLUSIVE MODE").execute(tx).await?;
        }
        let shared: Vec<(String,)> = sql("SELECT DISTINCT metric FROM pool
             WHERE metric IN ('api_calls', 'ai_requests')")
        .all(tx)
        .await?;
        let mut tops = BTreeMap::new();
        for key in keys {
            if shared.iter().any(|(metric,)| metric == key.metric.as_str()) {
                let top = family::top(tx, key.tenant, key.metric).await?;
                tops.insert((key.tenant, key.metric), top);
            }
        }
        let rows: BTreeSet<_> = tops.iter().map(|((_, metric), top)| (*top, *metric)).collect();
        let mut owners = BTreeSet::new();
        for (top, metric) in rows {
            let held = locking!("SELECT total FROM pool WHERE tenant_id = $1 AND metric = $2");
            let held: Option<(i64,)> = held.bind(top.0).bind(metric.as_str()).optional(tx).await?;
            if held.is_some() {
                owners.insert((top, metric));
            }
        }
        // A top without a pool is a tenant that has nothing to do with any.
        tops.retain(|(_, metric), top| owners.contains(&(*top, *metric)));
        Ok(Self(tops))
    }

    /// The top of an account; `None` for one that no pool bounds.
    pub(super) fn of(&self, key: &WindowKey) -> Option<TenantId> {
        self.0.get(&(key.tenant, key.metric)).copied()
    }
}

/// What an account may be granted.
pub(super) struct Room {
    /// The tenant above all pools.
    top: TenantId,
    /// Credits that its pools have seen.
    freed: i64,
    /// The most that the account can ever have in its window.
    pub(super) limit: u64,
    /// What it can have now.
    pub(super) remaining: u64,
    /// What tranches are a part of: the limit, divided by the members that draw, so that all
    /// their tranches together park as little of a pool as those of one tenant do.
    pub(super) sizing: u64,
    /// Others' tokens would help: its own share is not used up.
    wants_others: bool,
}

impl Room {
    /// Of a request under a top; `None` when the caller does not know the pools as they are.
    pub(super) async fn of(
        tx: &mut ControlTx,
        top: TenantId,
        request: &OpenRequest,
    ) -> Result<Option<Self>, StoreError> {
        let OpenRequest { key, limit, above, .. } = *request;
        let plan = match above {
            Some(above) if above.tenant == top && key.tenant != top => above.limit,
            None if key.tenant == top => limit,
            _ => return Ok(None),
        };
        // Before the sums: a credit that they lack then shows as a later count.
        let freed = freed(tx, top, key.metric).await?;
        let family = below(tx, top, key.metric, Use::Granted(key.window)).await?;
        let tenant = key.tenant;
        let limit = family.limit(tenant, plan);
        Ok(Some(Self {
            top,
            freed,
            limit,
            remaining: family.room(tenant, plan),
            sizing: sizing(&family, tenant, limit),
            wants_others: family.leaves_share(tenant),
        }))
    }

    /// Notes that a tranche was drawn, or that there was none to draw.
    pub(super) async fn note(
        &self,
        tx: &mut ControlTx,
        key: &WindowKey,
        is_dry: bool,
    ) -> Result<(), StoreError> {
        let note = sql("UPDATE quota_window SET pool_top = $4, pool_dry = $5
             WHERE tenant_id = $1 AND metric = $2 AND start_ms = $3");
        let dry = is_dry.then_some(self.freed);
        of(note, key).bind(self.top.0).bind(dry).execute(tx).await.map(drop)
    }

    /// Whether others hold tokens that they may not need, of pools that this account's share
    /// would let it have more of.
    pub(super) async fn is_parked(
        &self,
        tx: &mut ControlTx,
        key: &WindowKey,
    ) -> Result<bool, StoreError> {
        Ok(self.wants_others && !parked(tx, self.top, key, 1).await?.is_empty())
    }

    /// What brings them back.
    pub(super) const fn release(&self, of: WindowKey) -> Release {
        Release { top: self.top, of }
    }
}

fn sizing(family: &Family, tenant: TenantId, limit: u64) -> u64 {
    let drawing = family.membership(tenant).map_or(1, |held| family.active_in(held.owner));
    limit / u64::try_from(drawing).unwrap_or(u64::MAX).max(1)
}

async fn freed(tx: &mut ControlTx, top: TenantId, metric: Metric) -> Result<i64, StoreError> {
    let freed: Option<(i64,)> =
        sql("SELECT freed FROM quota_pool WHERE tenant_id = $1 AND metric = $2")
            .bind(top.0)
            .bind(metric.as_str())
            .optional(tx)
            .await?;
    Ok(freed.map_or(0, |(freed,)| freed))
}

/// Tells those under these tops that found nothing that there may be something.
pub(super) async fn free(
    tx: &mut ControlTx,
    tops: impl IntoIterator<Item = (Uuid, String)>,
) -> Result<(), StoreError> {
    let tops: BTreeSet<_> = tops.into_iter().collect();
    for (top, metric) in tops {
        sql("UPDATE quota_pool SET freed = freed + 1 WHERE tenant_id = $1 AND metric = $2")
            .bind(top)
            .bind(metric)
            .execute(tx)
            .await?;
    }
    Ok(())
}

/// Tranches of others in a family of which tokens are left, as far as reports say.
async fn parked(
    tx: &mut ControlTx,
    top: TenantId,
    key: &WindowKey,
    max: i64,
) -> Result<Vec<EpochRow>, StoreError> {
    sql(concat!(
        "SELECT e.tenant_id AS tenant, e.metric, e.start_ms, w.end_ms, e.epoch
         FROM quota_window w
         JOIN quota_epoch e ON e.tenant_id = w.tenant_id AND e.metric = w.metric
          AND e.start_ms = w.start_ms
         WHERE w.pool_top = $1 AND w.metric = $2 AND w.start_ms < $4 AND w.end_ms > $3
           AND w.tenant_id <> $5 AND ",
        unspent!(),
        " > 0 AND ",
        counts_by_reports!(),
        " LIMIT $6"
    ))
    .bind(top.0)
    .bind(key.metric.as_str())
    .bind(int(key.window.start.0))
    .bind(int(key.window.end.0))
    .bind(key.tenant.0)
    .bind(max)
    .all(tx)
    .await
}

/// Epochs that one release closes: as many as one report may seal.
const RELEASED_MAX: i64 = 512;

/// Starts closing what others of a family have open, for the sake of one account. After the
/// opening that found nothing, so that no two windows are locked against their order.
pub(super) struct Release {
    top: TenantId,
    of: WindowKey,
}

impl Operation for Release {
    type Answer = ();

    async fn run(&self, tx: &mut ControlTx, _: UnixMs) -> Result<(), StoreError> {
        let rows = parked(tx, self.top, &self.of, RELEASED_MAX).await?;
        let epochs: BTreeSet<EpochRef> = rows.iter().filter_map(EpochRow::epoch).collect();
        let keys: BTreeSet<WindowKey> = epochs.iter().map(|of| of.key).collect();
        window::hold(tx, keys.iter().copied()).await?;
        for key in &keys {
            shared::close_before(tx, key, i64::MAX).await?;
        }
        for EpochRef { key, epoch } in &epochs {
            let close = sql("UPDATE quota_epoch SET state = 'closing'
                 WHERE tenant_id = $1 AND metric = $2 AND start_ms = $3 AND epoch = $4
                   AND shared = 0 AND state = 'open'");
            of(close, key).bind(int(*epoch)).execute(tx).await?;
        }
        Ok(())
    }
}

/// What the members of a pool had when a window began, and what the pool was at most.
pub(super) struct Drawn {
    pub(super) owner: Uuid,
    pub(super) metric: String,
    pub(super) start_ms: i64,
    pub(super) tokens: u64,
    pub(super) most: i64,
}

#[derive(sqlx::FromRow)]
struct PoolRow {
    owner: Uuid,
    metric: String,
    start_ms: i64,
    most: i64,
}

/// Every pool of tokens, wherever a window of somebody below its owner begins. A member that
/// came with another anchor has a window over the ends of the others', whose sums are of two
/// periods; of windows that overlap all at once, one begins last.
pub(super) async fn drawn(tx: &mut ControlTx) -> Result<Vec<Drawn>, StoreError> {
    let rows: Vec<PoolRow> = sql("SELECT DISTINCT p.tenant_id AS owner, p.metric, w.start_ms,
             CASE WHEN w.start_ms >= q.since_ms THEN p.total ELSE q.total_high END AS most
         FROM pool p
         JOIN quota_pool q ON q.tenant_id = p.tenant_id AND q.metric = p.metric
         JOIN tenant_closure c ON c.ancestor = p.tenant_id
         JOIN quota_window w ON w.tenant_id = c.tenant_id AND w.metric = p.metric")
    .all(tx)
    .await?;
    let mut drawn = Vec::with_capacity(rows.len());
    for PoolRow { owner, metric, start_ms, most } in rows {
        let Some(known) = Metric::from_name(&metric) else { continue };
        let window = first_moment(start_ms);
        let family = below(tx, TenantId(owner), known, Use::Granted(window)).await?;
        let carried = carried(tx, TenantId(owner), known, window).await?;
        let tokens = family.used_below(TenantId(owner)).saturating_add(carried);
        drawn.push(Drawn { owner, metric, start_ms, tokens, most });
    }
    Ok(drawn)
}

/// What overlaps it are the windows that hold the time.
fn first_moment(start_ms: i64) -> Window {
    let start = uint(start_ms);
    Window { start: UnixMs(start), end: UnixMs(start.saturating_add(1)) }
}
