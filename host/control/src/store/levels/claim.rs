//! Claims: room under a limit, taken atomically before it is used, and given back.
//!
//! One transaction locks the pools above the tenant, then its level, decides and counts.
//! Invariants: of any number of claims for the last of a limit one passes, whichever
//! processes take them; a claim that was taken is counted once, however often it is sent
//! within a day. A refusal writes nothing, so the same claim may pass when there is room.

use std::collections::BTreeMap;

use model::{
    catalog::Catalog,
    clock::UnixMs,
    quota::Metric,
    reservation::{Amount, Exceeded},
    tenant::TenantId,
};

use super::{room::Judged, set};
use crate::store::{
    Store, StoreError,
    audit::{self, Act, Actor},
    authority::{int, uint},
    db::{ControlTx, Purpose, sql},
    rows::stored,
};

/// How long a claim is remembered, in ms: a day covers every sane client's retries.
pub(in crate::store) const KEPT_MS: u64 = 86_400_000;
/// Largest level: what every JSON reader can hold exactly.
pub(in crate::store) const LEVEL_MAX: u64 = (1 << 53) - 1;

/// Room that a backend asks for, or gives back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Chosen by the client, one per claim of a tenant.
    pub id: String,
    /// Of what: users, projects or storage.
    pub metric: Metric,
    /// How much more, in the metric's own unit (bytes of storage); negative gives back.
    pub delta: i64,
}

/// A claim that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimTaken {
    /// The level that it led to.
    pub level: u64,
    /// Whether it was counted before, and only answered again.
    pub repeated: bool,
}

/// Why nothing was counted.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// There is no such tenant.
    #[error("there is no such tenant")]
    NotFound,
    /// The id was used for another claim.
    #[error("the id was used for another claim")]
    IdReused,
    /// There is no room.
    #[error("the limit of {} {} is reached", .0.limit, .0.metric.as_str())]
    Exceeded(Exceeded),
    /// The plan that would say the limit is not declared.
    #[error("the plan {0:?} is not declared")]
    PlanUnknown(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// Takes a claim, or gives back; durable when answered. `catalog` says the plans'
    /// quotas.
    ///
    /// # Errors
    /// There is no room, no such tenant, the id means another claim, or the store failed.
    pub async fn claim(
        &self,
        by: &Actor,
        tenant: TenantId,
        claim: &Claim,
        catalog: &Catalog,
    ) -> Result<ClaimTaken, ClaimError> {
        // Not the id: its client may have made it of a person's address, and the chain is for
        // ever.
        let act = Act::new(by, "usage.claim", claim.metric.as_str());
        let mut tx = self.db.control(Purpose::Write).await?;
        let outcome = take(&mut tx, act, tenant, claim, catalog, self.clock.now()).await;
        tx.end(outcome).await
    }
}

async fn take(
    tx: &mut ControlTx,
    mut act: Act,
    tenant: TenantId,
    claim: &Claim,
    catalog: &Catalog,
    now: UnixMs,
) -> Result<ClaimTaken, ClaimError> {
    let judged = Judged::hold(tx, tenant, claim.metric, now).await?;
    let used = judged.used();
    if let Some(level) = seen(tx, tenant, claim, now).await? {
        return Ok(ClaimTaken { level, repeated: true });
    }
    let level = if claim.delta < 0 {
        used.saturating_sub(claim.delta.unsigned_abs())
    } else {
        let amount = Amount::exactly(claim.delta.unsigned_abs());
        used.saturating_add(judged.room(tx, amount, catalog).await?)
    };
    if !keep(tx, tenant, claim, level, now).await? {
        return Err(ClaimError::IdReused);
    }
    set(tx, tenant, claim.metric, level, now).await?;
    let shown = |level| BTreeMap::from([(claim.metric, level)]);
    act.describe(Some(&shown(used)), Some(&shown(level)));
    audit::append(tx, tenant, &act, now).await?;
    Ok(ClaimTaken { level, repeated: false })
}

/// What the same claim led to before.
async fn seen(
    tx: &mut ControlTx,
    tenant: TenantId,
    claim: &Claim,
    now: UnixMs,
) -> Result<Option<u64>, ClaimError> {
    let row: Option<(String, i64, i64)> = sql("SELECT metric, delta, level FROM usage_claim
         WHERE tenant_id = $1 AND id = $2 AND created_at > $3")
    .bind(tenant.0)
    .bind(&claim.id)
    .bind(oldest(now))
    .optional(tx)
    .await?;
    match row {
        None => Ok(None),
        Some((metric, delta, level)) if metric == claim.metric.as_str() && delta == claim.delta => {
            Ok(Some(uint(level)))
        }
        Some(_) => Err(ClaimError::IdReused),
    }
}

/// Remembers a claim; false when its id was used meanwhile, for another metric.
async fn keep(
    tx: &mut ControlTx,
    tenant: TenantId,
    claim: &Claim,
    level: u64,
    now: UnixMs,
) -> Result<bool, StoreError> {
    let kept = sql("INSERT INTO usage_claim (tenant_id, id, metric, delta, level, created_at)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (tenant_id, id) DO UPDATE SET metric = excluded.metric,
             delta = excluded.delta, level = excluded.level, created_at = excluded.created_at
         WHERE usage_claim.created_at <= $7")
    .bind(tenant.0)
    .bind(&claim.id)
    .bind(claim.metric.as_str())
    .bind(claim.delta)
    .bind(int(level))
    .bind(stored(now))
    .bind(oldest(now))
    .execute(tx)
    .await?;
    Ok(kept == 1)
}

fn oldest(now: UnixMs) -> i64 {
    stored(UnixMs(now.0.saturating_sub(KEPT_MS)))
}
