//! What a tenant's dates make due: an override begins or ends, a change of plan is at its
//! time.
//!
//! Looked for every second by the lifecycle job, by an index on `tenant.due_at`.
//! Invariant: `due_at` is the earliest instant at which something of the tenant is to
//! happen, and changes in the same transaction as what it follows from; so settling is
//! idempotent, whichever process does it.

use std::{collections::BTreeMap, sync::Arc};

use model::{
    catalog::Catalog,
    clock::UnixMs,
    overrides::{self, QuotaOverride},
    tenant::{Status, Tenant, TenantId},
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Actor, ChangeError, Store, StoreError,
    audit::Act,
    billing::terms,
    change::{Change, detached},
    db::{OneTenant, Purpose, TenantTx, sql},
    outbox, overrides as dated,
    plan_changes::{self, PlanChangeState},
    rows::{self, Span, stored},
};

impl Store {
    /// Up to `limit` tenants of which something is due, the longest due first.
    pub(crate) async fn due(&self, limit: u32) -> Result<Vec<TenantId>, StoreError> {
        let mut tx = self.db.control(Purpose::Read).await?;
        let rows = sql("SELECT id FROM tenant WHERE due_at <= $1 ORDER BY due_at LIMIT $2")
            .bind(stored(self.clock.now()))
            .bind(i64::from(limit))
            .all::<(Uuid,), _>(&mut tx)
            .await;
        Ok(tx.end(rows).await?.into_iter().map(|(id,)| TenantId(id)).collect())
    }

    /// Puts in force what is due of a tenant; nothing if another process did. A plan that
    /// the catalog does not offer is refused, and the tenant keeps its own.
    pub(crate) async fn settle(
        self: &Arc<Self>,
        by: &Actor,
        tenant: TenantId,
        catalog: Arc<Catalog>,
    ) -> Result<(), ChangeError> {
        let (store, act) = (Arc::clone(self), Act::new(by, "tenant.settle", ""));
        detached(async move {
            let mut change = Change::of(&store, tenant, act).await?;
            let outcome = settle(&mut change, &catalog, store.clock.now()).await;
            change.end(outcome).await
        })
        .await
    }
}

async fn settle(
    change: &mut Change<OneTenant>,
    catalog: &Catalog,
    now: UnixMs,
) -> Result<(), ChangeError> {
    let tx = &mut change.tx;
    let held = rows::tenants(tx, Span::one(tx.tenant())).await?.into_iter().next();
    let before = held.ok_or(ChangeError::NotFound)?;
    let mut tenant = before.clone();
    if matches!(tenant.status, Status::Erasing | Status::Erased) {
        write(tx, &tenant, None).await?;
        change.unchanged();
        return Ok(());
    }
    let ended = plan_changes::apply(tx, &mut tenant, catalog, now).await?;
    let overrides = dated::all(tx).await?;
    tenant.dated_quotas = overrides::in_force(&overrides, now);
    let changed = tenant != before;
    tenant.version += u64::from(changed);
    let due_at = next(tx, &overrides, now).await?;
    write(tx, &tenant, due_at).await?;
    if changed {
        terms::keep(tx, &tenant, now).await?;
        outbox::changes::tell(tx, &before, &tenant, now).await?;
        change.publish().await?;
    }
    if changed || !ended.is_empty() {
        let none = BTreeMap::new();
        change.describe(Some(&shown(&before, &none)), Some(&shown(&tenant, &ended)));
    } else {
        change.unchanged();
    }
    Ok(())
}

/// For the audit chain: what dates decide, and what became of changes of plan.
fn shown(tenant: &Tenant, ended: &BTreeMap<Uuid, PlanChangeState>) -> Value {
    let ended: BTreeMap<_, _> = ended.iter().map(|(id, state)| (id, state.as_str())).collect();
    json!({"plan": tenant.plan, "dated_quotas": tenant.dated_quotas, "plan_changes": ended})
}

/// When something of the transaction's tenant is next due after `now`.
pub(super) async fn next(
    tx: &mut TenantTx,
    overrides: &[QuotaOverride],
    now: UnixMs,
) -> Result<Option<UnixMs>, StoreError> {
    let boundary = overrides::next_boundary(overrides, now);
    let plan = plan_changes::next(tx).await?;
    Ok([boundary, plan].into_iter().flatten().min())
}

/// Writes what dates decide of a tenant.
pub(super) async fn write(
    tx: &mut TenantTx,
    tenant: &Tenant,
    due_at: Option<UnixMs>,
) -> Result<(), StoreError> {
    sql("UPDATE tenant SET plan = $2, dated_quotas = $3, due_at = $4, version = $5 WHERE id = $1")
        .bind(tx.tenant().0)
        .bind(&tenant.plan)
        .bind(rows::json(&tenant.dated_quotas)?)
        .bind(due_at.map(stored))
        .bind(i64::try_from(tenant.version).unwrap_or(i64::MAX))
        .execute(tx)
        .await
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Backend;

    #[tokio::test]
    async fn what_is_due_is_found_by_an_index() {
        let store = Backend::Postgres.database().open().await;
        let mut tx = store.db.control(Purpose::Read).await.expect("a transaction");
        // Small tables are read whole, whatever their indexes.
        sql("SET LOCAL enable_seqscan = off").execute(&mut tx).await.expect("a setting");
        for (statement, index) in [
            (
                "EXPLAIN SELECT id FROM tenant WHERE due_at <= 1 ORDER BY due_at LIMIT 9",
                "tenant_by_due",
            ),
            (
                "EXPLAIN SELECT id FROM tenant WHERE status = 'trial' AND trial_ends_at <= 1
                 ORDER BY trial_ends_at LIMIT 9",
                "tenant_by_trial_end",
            ),
            (
                "EXPLAIN SELECT id FROM tenant WHERE status = 'past_due' AND grace_ends_at <= 1
                 ORDER BY grace_ends_at LIMIT 9",
                "tenant_by_grace_end",
            ),
        ] {
            let plan: Vec<(String,)> = sql(statement).all(&mut tx).await.expect("a plan");
            let by_index = |(line,): &(String,)| line.contains(&format!("using {index}"));
            assert!(plan.iter().any(by_index), "{statement}: {plan:?}");
        }
    }
}
