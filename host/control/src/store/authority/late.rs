//! Refunds that came after their epoch was sealed.
//!
//! Invariant: they go to the window, by the difference to the last total of their holder,
//! and only while the window is open.

use model::{
    clock::UnixMs,
    ledger::{HolderId, LateRefunds},
};
use uuid::Uuid;

use super::{
    super::{
        StoreError,
        db::{ControlTx, sql},
    },
    int, of, pooled, uint, window,
};

/// Credits what came back since the last total, while the window is open.
pub(super) async fn credit(
    tx: &mut ControlTx,
    holder: HolderId,
    late: &LateRefunds,
    now: UnixMs,
) -> Result<u64, StoreError> {
    let key = &late.key;
    let Some(window) = window::find(tx, key).await? else { return Ok(0) };
    if int(now.0) >= window.end_ms {
        return Ok(0);
    }
    let known = sql("SELECT refunded FROM quota_late_refund
         WHERE tenant_id = $1 AND metric = $2 AND start_ms = $3 AND holder = $4");
    let known: Option<(i64,)> = of(known, key).bind(holder.0).optional(tx).await?;
    let known = known.map_or(0, |(refunded,)| refunded);
    let news = (int(late.total) - known).min(window.granted - window.credited);
    if news <= 0 {
        return Ok(0);
    }
    let count = sql("INSERT INTO quota_late_refund (tenant_id, metric, start_ms, holder, refunded)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (tenant_id, metric, start_ms, holder)
         DO UPDATE SET refunded = quota_late_refund.refunded + excluded.refunded");
    of(count, key).bind(holder.0).bind(news).execute(tx).await?;
    // Nobody says of which epoch: what may be from before the tenant came into its pool does
    // not go into the pool.
    let credit = sql("UPDATE quota_window SET credited = credited + $4,
             pool_base = pool_base - CASE WHEN pool_base < $4 THEN pool_base ELSE $4 END
         WHERE tenant_id = $1 AND metric = $2 AND start_ms = $3
         RETURNING pool_top, metric");
    let pools: Vec<(Option<Uuid>, String)> = of(credit, key).bind(news).all(tx).await?;
    pooled::free(tx, pools.into_iter().filter_map(|(top, metric)| Some((top?, metric)))).await?;
    Ok(uint(news))
}
