//! Changes of plan at a later time: asked for, listed, cancelled, applied when due.
//!
//! Invariant: a change is scheduled until exactly one thing becomes of it, and an applied
//! one changed the tenant in the same transaction.

use std::{collections::BTreeMap, sync::Arc};

use model::{
    catalog::Catalog,
    clock::UnixMs,
    tenant::{Status, Tenant, TenantId},
};
use serde_json::json;
use uuid::Uuid;

use super::{
    Actor, ChangeError, Store, StoreError,
    audit::Act,
    change::{Change, detached},
    db::{OneTenant, Purpose, TenantTx, sql},
    due, overrides, random,
    rows::{self, Span, stored},
};

/// Changes of one tenant that may wait: more than anybody plans ahead.
const SCHEDULED_MAX: usize = 32;
/// Ended changes that are kept to be listed; the audit log keeps all.
const ENDED_KEPT: i64 = 100;

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanChangeState {
    /// It waits for its time.
    Scheduled,
    /// The tenant has the plan since its time, or had it.
    Applied,
    /// Somebody thought better of it.
    Cancelled,
    /// It could not be applied.
    Refused,
}

impl PlanChangeState {
    const ALL: [Self; 4] = [Self::Scheduled, Self::Applied, Self::Cancelled, Self::Refused];

    /// The stable name used in JSON and SQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Applied => "applied",
            Self::Cancelled => "cancelled",
            Self::Refused => "refused",
        }
    }
}

/// A change of plan with its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanChange {
    /// Names it among the tenant's.
    pub id: Uuid,
    /// The plan that the tenant is to have.
    pub plan: String,
    /// From when on.
    pub effective_at: UnixMs,
    /// What became of it.
    pub state: PlanChangeState,
    /// Why it was refused.
    pub detail: Option<String>,
    /// When it was asked for.
    pub created_at: UnixMs,
    /// When it was applied, cancelled or refused.
    pub ended_at: Option<UnixMs>,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: Uuid,
    plan: String,
    effective_at: i64,
    state: String,
    detail: Option<String>,
    created_at: i64,
    ended_at: Option<i64>,
}

impl Store {
    /// A tenant's changes of plan, the latest time first; `None` without such a tenant.
    ///
    /// # Errors
    /// The store failed.
    pub async fn plan_changes(
        &self,
        tenant: TenantId,
    ) -> Result<Option<Vec<PlanChange>>, StoreError> {
        let mut tx = self.db.tenant(tenant, Purpose::Read).await?;
        let found = list(&mut tx).await;
        tx.end(found).await
    }

    /// Has a tenant's plan change at a time. The caller checks plan and time.
    ///
    /// # Errors
    /// No such tenant, too many changes that wait, or the store failed.
    pub async fn schedule_plan_change(
        self: &Arc<Self>,
        by: &Actor,
        tenant: TenantId,
        plan: String,
        effective_at: UnixMs,
    ) -> Result<PlanChange, ChangeError> {
        let (store, act) = (Arc::clone(self), Act::new(by, "plan-change.schedule", ""));
        detached(async move {
            let mut change = Change::of(&store, tenant, act).await?;
            let outcome = schedule(&mut change, plan, effective_at, store.clock.now()).await;
            change.end(outcome).await
        })
        .await
    }

    /// Cancels a change that waits.
    ///
    /// # Errors
    /// No such change that waits, or the store failed.
    pub async fn cancel_plan_change(
        self: &Arc<Self>,
        by: &Actor,
        tenant: TenantId,
        id: Uuid,
    ) -> Result<(), ChangeError> {
        let act = Act::new(by, "plan-change.cancel", id.to_string());
        let store = Arc::clone(self);
        detached(async move {
            let mut change = Change::of(&store, tenant, act).await?;
            let outcome = cancel(&mut change, id, store.clock.now()).await;
            change.end(outcome).await
        })
        .await
    }
}

async fn list(tx: &mut TenantTx) -> Result<Option<Vec<PlanChange>>, StoreError> {
    if rows::tenants(tx, Span::one(tx.tenant())).await?.is_empty() {
        return Ok(None);
    }
    let rows: Vec<Row> =
        sql("SELECT id, plan, effective_at, state, detail, created_at, ended_at FROM plan_change
             WHERE tenant_id = $1 ORDER BY effective_at DESC, id DESC")
        .bind(tx.tenant().0)
        .all(tx)
        .await?;
    rows.into_iter().map(Row::decode).collect::<Result<_, _>>().map(Some)
}

impl Row {
    fn decode(self) -> Result<PlanChange, StoreError> {
        let state = PlanChangeState::ALL.into_iter().find(|state| state.as_str() == self.state);
        Ok(PlanChange {
            id: self.id,
            plan: self.plan,
            effective_at: rows::instant(self.effective_at),
            state: state.ok_or_else(|| StoreError::Decode(format!("state {:?}", self.state)))?,
            detail: self.detail,
            created_at: rows::instant(self.created_at),
            ended_at: self.ended_at.map(rows::instant),
        })
    }
}

async fn schedule(
    change: &mut Change<OneTenant>,
    plan: String,
    effective_at: UnixMs,
    now: UnixMs,
) -> Result<PlanChange, ChangeError> {
    let tx = &mut change.tx;
    let tenant = held(tx).await?;
    if waiting(tx).await?.len() >= SCHEDULED_MAX {
        return Err(ChangeError::TooMany { field: "plan_changes", most: SCHEDULED_MAX });
    }
    let id = uuid::Builder::from_unix_timestamp_millis(now.0, &random::bytes()?).into_uuid();
    sql("INSERT INTO plan_change (tenant_id, id, plan, effective_at, state, created_at)
         VALUES ($1, $2, $3, $4, 'scheduled', $5)")
    .bind(tx.tenant().0)
    .bind(id)
    .bind(&plan)
    .bind(stored(effective_at))
    .bind(stored(now))
    .execute(tx)
    .await?;
    forget_old(tx).await?;
    keep_due(tx, &tenant, now).await?;
    change.target(&id.to_string());
    change.describe(None, Some(&json!({"plan": plan, "effective_at": effective_at.0})));
    let state = PlanChangeState::Scheduled;
    Ok(PlanChange { id, plan, effective_at, state, detail: None, created_at: now, ended_at: None })
}

async fn cancel(change: &mut Change<OneTenant>, id: Uuid, now: UnixMs) -> Result<(), ChangeError> {
    let tx = &mut change.tx;
    let tenant = held(tx).await?;
    if !end(tx, id, PlanChangeState::Cancelled, None, now).await? {
        return Err(ChangeError::NotFound);
    }
    Ok(keep_due(tx, &tenant, now).await?)
}

async fn held(tx: &mut TenantTx) -> Result<Tenant, ChangeError> {
    let tenant = rows::tenants(tx, Span::one(tx.tenant())).await?.into_iter().next();
    let gone = |tenant: &Tenant| matches!(tenant.status, Status::Erasing | Status::Erased);
    tenant.filter(|tenant| !gone(tenant)).ok_or(ChangeError::NotFound)
}

/// Ends a change that waits; false when there is none.
async fn end(
    tx: &mut TenantTx,
    id: Uuid,
    state: PlanChangeState,
    detail: Option<&str>,
    now: UnixMs,
) -> Result<bool, StoreError> {
    let ended = sql("UPDATE plan_change SET state = $3, detail = $4, ended_at = $5
         WHERE tenant_id = $1 AND id = $2 AND state = 'scheduled'")
    .bind(tx.tenant().0)
    .bind(id)
    .bind(state.as_str())
    .bind(detail)
    .bind(stored(now))
    .execute(tx)
    .await?;
    Ok(ended == 1)
}

async fn forget_old(tx: &mut TenantTx) -> Result<(), StoreError> {
    sql("DELETE FROM plan_change WHERE tenant_id = $1 AND state <> 'scheduled' AND id NOT IN (
             SELECT id FROM plan_change WHERE tenant_id = $1 AND state <> 'scheduled'
             ORDER BY ended_at DESC, id DESC LIMIT $2)")
    .bind(tx.tenant().0)
    .bind(ENDED_KEPT)
    .execute(tx)
    .await
    .map(drop)
}

async fn keep_due(tx: &mut TenantTx, tenant: &Tenant, now: UnixMs) -> Result<(), StoreError> {
    let overrides = overrides::all(tx).await?;
    let due_at = due::next(tx, &overrides, now).await?;
    due::write(tx, tenant, due_at).await
}

/// The changes that wait: time, id and plan, in the order of their times.
async fn waiting(tx: &mut TenantTx) -> Result<Vec<(UnixMs, Uuid, String)>, StoreError> {
    let rows: Vec<(i64, Uuid, String)> = sql("SELECT effective_at, id, plan FROM plan_change
         WHERE tenant_id = $1 AND state = 'scheduled' ORDER BY effective_at, id")
    .bind(tx.tenant().0)
    .all(tx)
    .await?;
    Ok(rows.into_iter().map(|(at, id, plan)| (rows::instant(at), id, plan)).collect())
}

/// When the first change of the transaction's tenant that waits is due.
pub(super) async fn next(tx: &mut TenantTx) -> Result<Option<UnixMs>, StoreError> {
    Ok(waiting(tx).await?.first().map(|(at, ..)| *at))
}

/// Applies to the tenant what is due, in the order of its times; what became of each.
pub(super) async fn apply(
    tx: &mut TenantTx,
    tenant: &mut Tenant,
    catalog: &Catalog,
    now: UnixMs,
) -> Result<BTreeMap<Uuid, PlanChangeState>, StoreError> {
    let mut ended = BTreeMap::new();
    for (at, id, plan) in waiting(tx).await? {
        if at > now {
            break;
        }
        let state = if catalog.plans.contains_key(&plan) {
            end(tx, id, PlanChangeState::Applied, None, now).await?;
            tenant.plan = plan;
            PlanChangeState::Applied
        } else {
            let detail = format!("the plan `{plan}` is no longer declared");
            end(tx, id, PlanChangeState::Refused, Some(&detail), now).await?;
            PlanChangeState::Refused
        };
        ended.insert(id, state);
    }
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Backend, Control, NEW_YEAR, acme, id_of, on_both};

    const HOUR_MS: u64 = 3_600_000;

    async fn schedule(control: &Control, tenant: TenantId, plan: &str, hours: u64) -> PlanChange {
        let at = NEW_YEAR.plus_ms(hours * HOUR_MS);
        let change =
            control.store.schedule_plan_change(&Actor::Operator, tenant, plan.to_owned(), at).await;
        change.expect("a change")
    }

    /// Lets hours pass and settles what is due.
    async fn pass(control: &Control, hours: u64) {
        control.clock.advance_ms(hours * HOUR_MS);
        for tenant in control.store.due(9).await.expect("a store") {
            let catalog = Arc::clone(&control.catalog.borrow());
            control.store.settle(&Actor::Job("test"), tenant, catalog).await.expect("settled");
        }
    }

    fn published(control: &Control) -> (String, u64) {
        let directory = control.store.directory();
        let directory = directory.borrow();
        let tenant = &directory.records().next().expect("a tenant").tenant;
        (tenant.plan.clone(), tenant.version)
    }

    async fn states(control: &Control, tenant: TenantId) -> Vec<(String, &'static str)> {
        let changes = control.store.plan_changes(tenant).await.expect("a store").expect("a tenant");
        changes.into_iter().map(|change| (change.plan, change.state.as_str())).collect()
    }

    on_both![
        a_change_is_applied_at_its_time_and_once,
        of_several_that_are_due_the_latest_is_in_force,
        a_cancelled_change_is_never_applied,
        a_plan_that_is_gone_by_then_is_refused_and_the_tenant_keeps_its_own,
        what_waits_is_bounded_and_so_is_what_has_ended,
    ];

    async fn a_change_is_applied_at_its_time_and_once(on: Backend) {
        let control = Control::start(on).await;
        let id = id_of(&control.create(&acme()).await);
        schedule(&control, id, "team", 2).await;
        pass(&control, 1).await;
        assert_eq!(published(&control), ("enterprise".to_owned(), 1));
        pass(&control, 1).await;
        assert_eq!(published(&control), ("team".to_owned(), 2));
        let catalog = Arc::clone(&control.catalog.borrow());
        control
            .store
            .settle(&Actor::Job("test"), id, catalog)
            .await
            .expect("what another process settled");
        assert_eq!(published(&control), ("team".to_owned(), 2));
        assert_eq!(states(&control, id).await, [("team".to_owned(), "applied")]);
        assert_eq!(control.store.due(9).await.expect("a store"), []);
    }

    async fn of_several_that_are_due_the_latest_is_in_force(on: Backend) {
        let control = Control::start(on).await;
        let id = id_of(&control.create(&acme()).await);
        schedule(&control, id, "developer", 3).await;
        schedule(&control, id, "team", 2).await;
        schedule(&control, id, "enterprise", 9).await;
        pass(&control, 5).await;
        assert_eq!(published(&control), ("developer".to_owned(), 2));
        pass(&control, 4).await;
        assert_eq!(published(&control), ("enterprise".to_owned(), 3));
    }

    async fn a_cancelled_change_is_never_applied(on: Backend) {
        let control = Control::start(on).await;
        let id = id_of(&control.create(&acme()).await);
        let change = schedule(&control, id, "team", 1).await;
        control.store.cancel_plan_change(&Actor::Operator, id, change.id).await.expect("cancelled");
        let again = control.store.cancel_plan_change(&Actor::Operator, id, change.id).await;
        assert!(matches!(again, Err(ChangeError::NotFound)));
        pass(&control, 2).await;
        assert_eq!(published(&control), ("enterprise".to_owned(), 1));
        assert_eq!(states(&control, id).await, [("team".to_owned(), "cancelled")]);
    }

    async fn a_plan_that_is_gone_by_then_is_refused_and_the_tenant_keeps_its_own(on: Backend) {
        let control = Control::start(on).await;
        let id = id_of(&control.create(&acme()).await);
        schedule(&control, id, "team", 1).await;
        control.catalog.send_modify(|catalog| {
            let mut fewer = (**catalog).clone();
            fewer.plans.remove("team");
            *catalog = fewer.into();
        });
        pass(&control, 1).await;
        assert_eq!(published(&control), ("enterprise".to_owned(), 1));
        let changes = control.store.plan_changes(id).await.expect("a store").expect("a tenant");
        assert_eq!(changes[0].state, PlanChangeState::Refused);
        assert_eq!(changes[0].detail.as_deref(), Some("the plan `team` is no longer declared"));
    }

    async fn what_waits_is_bounded_and_so_is_what_has_ended(on: Backend) {
        let control = Control::start(on).await;
        let id = id_of(&control.create(&acme()).await);
        for _ in 0..SCHEDULED_MAX {
            schedule(&control, id, "team", 1).await;
        }
        let at = NEW_YEAR.plus_ms(1);
        let more =
            control.store.schedule_plan_change(&Actor::Operator, id, "team".to_owned(), at).await;
        assert!(matches!(more, Err(ChangeError::TooMany { most: SCHEDULED_MAX, .. })));
        for round in 1..=4 {
            pass(&control, 1).await;
            for _ in 0..SCHEDULED_MAX {
                schedule(&control, id, "team", round + 1).await;
            }
        }
        let ended = states(&control, id).await.len() - SCHEDULED_MAX;
        assert_eq!(ended as i64, ENDED_KEPT);
        let unknown = TenantId(Uuid::nil());
        let refused = control
            .store
            .schedule_plan_change(&Actor::Operator, unknown, "team".to_owned(), at)
            .await;
        assert!(matches!(refused, Err(ChangeError::NotFound)));
        assert_eq!(control.store.plan_changes(unknown).await.expect("a store"), None);
    }
}
