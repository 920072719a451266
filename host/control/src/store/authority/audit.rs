//! The audit of the quota accounts: sums that must agree, whatever crashed.
//!
//! Run by an operator, on a schedule, and after every chaos test. Invariant: it only reads,
//! and an empty answer is the proof.

use sqlx::prelude::FromRow;
use uuid::Uuid;

use super::{
    super::{
        Store, StoreError,
        db::{ControlTx, Purpose, sql},
    },
    int, pooled,
};

/// A window whose account does not add up: `quota_invariant_broken`.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct QuotaViolation {
    /// The tenant's id.
    pub tenant: Uuid,
    /// Name of the metric.
    pub metric: String,
    /// Start of the window, ms since 1970.
    pub start_ms: i64,
    /// Which rule is broken.
    pub rule: String,
    /// The figure that was found.
    pub found: i64,
    /// The figure that was expected, or the bound.
    pub expected: i64,
}

/// Sums per window, and the rules over them.
const AUDIT: &str = "
WITH spent AS (
    SELECT tenant_id, metric, start_ms, epoch, CAST(sum(spent) AS BIGINT) AS spent,
           CAST(sum(1 - sealed) AS BIGINT) AS unsealed
    FROM quota_report GROUP BY tenant_id, metric, start_ms, epoch
), epoch AS (
    SELECT e.tenant_id, e.metric, e.start_ms, e.epoch, e.state,
           e.tranche_own + e.tranche_shared AS tranche, coalesce(s.spent, 0) AS spent,
           coalesce(s.unsealed, 0) AS unsealed, e.shared
    FROM quota_epoch e LEFT JOIN spent s USING (tenant_id, metric, start_ms, epoch)
), account AS (
    SELECT w.tenant_id, w.metric, w.start_ms, w.granted, w.credited, w.limit_high,
        w.folded_tranche + CAST(coalesce((SELECT sum(e.tranche) FROM epoch e
            WHERE e.tenant_id = w.tenant_id AND e.metric = w.metric
              AND e.start_ms = w.start_ms), 0) AS BIGINT)
            AS tranches,
        w.folded_tranche - w.folded_spent
            + CAST(coalesce((SELECT sum(e.tranche - e.spent) FROM epoch e
                WHERE e.tenant_id = w.tenant_id AND e.metric = w.metric
                  AND e.start_ms = w.start_ms AND e.state = 'reconciled'), 0) AS BIGINT)
            + CAST(coalesce((SELECT sum(l.refunded) FROM quota_late_refund l
                WHERE l.tenant_id = w.tenant_id AND l.metric = w.metric
                  AND l.start_ms = w.start_ms), 0) AS BIGINT) AS credits
    FROM quota_window w
)
SELECT tenant_id AS tenant, metric, start_ms, 'granted - credited <= limit' AS rule,
       granted - credited AS found, limit_high AS expected
FROM account WHERE granted - credited > limit_high
UNION ALL
SELECT tenant_id, metric, start_ms, 'granted = sum of tranches', granted, tranches
FROM account WHERE granted <> tranches
UNION ALL
SELECT tenant_id, metric, start_ms, 'credited = unspent of reconciled tranches + late refunds',
       credited, credits
FROM account WHERE credited <> credits
UNION ALL
SELECT e.tenant_id, e.metric, e.start_ms, 'spent <= tranche of epoch ' || e.epoch,
       e.spent, e.tranche
FROM epoch e WHERE e.spent > e.tranche
UNION ALL
SELECT e.tenant_id, e.metric, e.start_ms, 'no open figures of reconciled epoch ' || e.epoch,
       e.unsealed, 0
FROM epoch e WHERE e.state = 'reconciled' AND e.unsealed > 0
UNION ALL
SELECT e.tenant_id, e.metric, e.start_ms,
       CASE e.state WHEN 'open' THEN 'an open shared epoch is above the floor'
       ELSE 'a closed shared epoch is at most the floor' END,
       e.epoch, w.shared_floor
FROM epoch e JOIN quota_window w USING (tenant_id, metric, start_ms)
WHERE e.shared = 1 AND (e.state = 'open') <> (e.epoch > w.shared_floor)
UNION ALL
SELECT e.tenant_id, e.metric, e.start_ms, 'a shared epoch is at most the latest',
       e.epoch, w.shared_latest
FROM epoch e JOIN quota_window w USING (tenant_id, metric, start_ms)
WHERE e.shared = 1 AND e.epoch > w.shared_latest";

impl Store {
    /// Every quota account that does not add up. Reads all windows: seconds for a large
    /// installation, without holding up writers.
    ///
    /// # Errors
    /// The database failed.
    pub async fn audit_quotas(&self) -> Result<Vec<QuotaViolation>, StoreError> {
        let mut tx = self.db.control(Purpose::Read).await?;
        let violations = violations(&mut tx).await;
        tx.end(violations).await
    }
}

async fn violations(tx: &mut ControlTx) -> Result<Vec<QuotaViolation>, StoreError> {
    let mut violations: Vec<QuotaViolation> = sql(AUDIT).all(tx).await?;
    let drawn = pooled::drawn(tx).await?;
    let broken = drawn.into_iter().filter(|drawn| int(drawn.tokens) > drawn.most);
    violations.extend(broken.map(|drawn| QuotaViolation {
        tenant: drawn.owner,
        metric: drawn.metric,
        start_ms: drawn.start_ms,
        rule: "sum of members <= pool".to_owned(),
        found: int(drawn.tokens),
        expected: drawn.most,
    }));
    Ok(violations)
}
