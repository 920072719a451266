//! Quotas of a tenant with dates: set as a whole list, in force by themselves.
//!
//! What is in force is kept on the tenant ([`super::due`] keeps it so), because every
//! process that reads the directory must see the same. Invariant: a list and what is in
//! force of it are written in one change.

use std::{collections::BTreeMap, sync::Arc};

use model::{
    clock::UnixMs,
    overrides::{self, QuotaOverride},
    quota::Metric,
    tenant::{Tenant, TenantId},
};
use serde_json::{Value, json};

use super::{
    Actor, ChangeError, Store, StoreError,
    audit::Act,
    change::{Change, detached},
    db::{OneTenant, Purpose, TenantTx, sql},
    due,
    rows::{self, Span, stored},
};

/// A tenant with its dated overrides, in the order of their beginning.
#[derive(Clone, Debug, PartialEq)]
pub struct Overridden {
    /// The tenant.
    pub tenant: Tenant,
    /// Past ones too, until the list is set anew.
    pub overrides: Vec<QuotaOverride>,
}

impl Store {
    /// A tenant's dated overrides; `None` without such a tenant.
    ///
    /// # Errors
    /// The store failed.
    pub async fn overrides(&self, tenant: TenantId) -> Result<Option<Overridden>, StoreError> {
        let mut tx = self.db.tenant(tenant, Purpose::Read).await?;
        let found = read(&mut tx).await;
        tx.end(found).await
    }

    /// Sets the dated overrides of a tenant, in place of all that it has. With `expected`,
    /// only of that version of the tenant.
    ///
    /// # Errors
    /// No such tenant, another version, or the store failed.
    pub async fn set_overrides(
        self: &Arc<Self>,
        by: &Actor,
        tenant: TenantId,
        overrides: Vec<QuotaOverride>,
        expected: Option<u64>,
    ) -> Result<Overridden, ChangeError> {
        let (store, act) = (Arc::clone(self), Act::new(by, "overrides.replace", ""));
        detached(async move {
            let mut change = Change::of(&store, tenant, act).await?;
            let outcome = set(&mut change, overrides, expected, store.clock.now()).await;
            change.end(outcome).await
        })
        .await
    }
}

async fn read(tx: &mut TenantTx) -> Result<Option<Overridden>, StoreError> {
    let tenant = rows::tenants(tx, Span::one(tx.tenant())).await?.into_iter().next();
    let overrides = all(tx).await?;
    Ok(tenant.map(|tenant| Overridden { tenant, overrides }))
}

async fn set(
    change: &mut Change<OneTenant>,
    overrides: Vec<QuotaOverride>,
    expected: Option<u64>,
    now: UnixMs,
) -> Result<Overridden, ChangeError> {
    let tx = &mut change.tx;
    let held = read(tx).await?.ok_or(ChangeError::NotFound)?;
    let mut tenant = held.tenant;
    if expected.is_some_and(|version| version != tenant.version) {
        return Err(ChangeError::VersionMismatch { current: tenant.version });
    }
    replace(tx, &overrides).await?;
    tenant.dated_quotas = overrides::in_force(&overrides, now);
    tenant.version += 1;
    let due_at = due::next(tx, &overrides, now).await?;
    due::write(tx, &tenant, due_at).await?;
    let overrides = all(tx).await?;
    change.describe(Some(&shown(&held.overrides)), Some(&shown(&overrides)));
    change.publish().await?;
    Ok(Overridden { tenant, overrides })
}

/// For the audit chain: a member a metric.
fn shown(overrides: &[QuotaOverride]) -> BTreeMap<&'static str, Vec<Value>> {
    let mut by_metric = BTreeMap::<_, Vec<_>>::new();
    for dated in overrides {
        let QuotaOverride { metric, value, effective_from, effective_until, reason } = dated;
        let (from, until) = (effective_from.0, effective_until.map(|until| until.0));
        let shown = json!({"value": value, "from": from, "until": until, "reason": reason});
        by_metric.entry(metric.quota_name()).or_default().push(shown);
    }
    by_metric
}

async fn replace(tx: &mut TenantTx, overrides: &[QuotaOverride]) -> Result<(), StoreError> {
    let tenant = tx.tenant();
    sql("DELETE FROM quota_override WHERE tenant_id = $1").bind(tenant.0).execute(tx).await?;
    for dated in overrides {
        sql("INSERT INTO quota_override
                 (tenant_id, metric, effective_from, effective_until, value, reason)
             VALUES ($1, $2, $3, $4, $5, $6)")
        .bind(tenant.0)
        .bind(dated.metric.as_str())
        .bind(stored(dated.effective_from))
        .bind(dated.effective_until.map(stored))
        .bind(i64::try_from(dated.value).unwrap_or(i64::MAX))
        .bind(&dated.reason)
        .execute(tx)
        .await?;
    }
    Ok(())
}

/// The dated overrides of the transaction's tenant.
pub(super) async fn all(tx: &mut TenantTx) -> Result<Vec<QuotaOverride>, StoreError> {
    let rows: Vec<(String, i64, Option<i64>, i64, String)> =
        sql("SELECT metric, effective_from, effective_until, value, reason FROM quota_override
             WHERE tenant_id = $1 ORDER BY effective_from, metric")
        .bind(tx.tenant().0)
        .all(tx)
        .await?;
    let decode = |(metric, from, until, value, reason): (String, i64, Option<i64>, i64, String)| {
        Ok(QuotaOverride {
            metric: Metric::from_name(&metric)
                .ok_or_else(|| StoreError::Decode(format!("override of {metric:?}")))?,
            value: u64::try_from(value).unwrap_or(0),
            effective_from: rows::instant(from),
            effective_until: until.map(rows::instant),
            reason,
        })
    };
    rows.into_iter().map(decode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Backend, Control, NEW_YEAR, acme, id_of, on_both};

    const HOUR_MS: u64 = 3_600_000;

    fn dated(value: u64, from_h: u64, until_h: Option<u64>) -> QuotaOverride {
        QuotaOverride {
            metric: Metric::ApiCalls,
            value,
            effective_from: NEW_YEAR.plus_ms(from_h * HOUR_MS),
            effective_until: until_h.map(|h| NEW_YEAR.plus_ms(h * HOUR_MS)),
            reason: "a campaign".to_owned(),
        }
    }

    /// The quota of API calls as the data plane gets it.
    fn published(control: &Control) -> u64 {
        let directory = control.store.directory();
        let record = Arc::clone(directory.borrow().records().next().expect("a tenant"));
        let quotas = control.catalog.borrow().quotas_of(&record.tenant);
        quotas.expect("a plan").max_api_calls_per_month
    }

    on_both![
        what_holds_now_is_published_with_the_list,
        dates_begin_and_end_by_themselves,
        a_list_for_another_version_or_tenant_is_refused,
    ];

    async fn what_holds_now_is_published_with_the_list(on: Backend) {
        let control = Control::start(on).await;
        let id = id_of(&control.create(&acme()).await);
        let list = vec![dated(2, 0, Some(2)), dated(3, 1, None)];
        let set = control
            .store
            .set_overrides(&Actor::Operator, id, list.clone(), Some(1))
            .await
            .expect("a list");
        assert_eq!((set.tenant.version, &set.overrides), (2, &list));
        assert_eq!(published(&control), 2);
        let read = control.store.overrides(id).await.expect("a store").expect("a tenant");
        assert_eq!(read, set);
        let none = control
            .store
            .set_overrides(&Actor::Operator, id, Vec::new(), None)
            .await
            .expect("a list");
        assert_eq!(none.overrides, []);
        assert_eq!(published(&control), 999_999_999, "the plan's again");
        assert_eq!(control.store.due(9).await.expect("a store"), [], "and nothing is due");
    }

    async fn dates_begin_and_end_by_themselves(on: Backend) {
        let control = Control::start(on).await;
        let id = id_of(&control.create(&acme()).await);
        let list = vec![dated(3, 2, Some(4)), dated(2, 1, Some(3)), dated(7, 5, Some(6))];
        control.store.set_overrides(&Actor::Operator, id, list, None).await.expect("a list");
        let plan = 999_999_999;
        let mut seen = vec![published(&control)];
        for _ in 1..=7 {
            control.clock.advance_ms(HOUR_MS);
            for due in control.store.due(9).await.expect("a store") {
                assert_eq!(due, id);
                let catalog = Arc::clone(&control.catalog.borrow());
                control.store.settle(&Actor::Job("test"), due, catalog).await.expect("settled");
            }
            seen.push(published(&control));
        }
        assert_eq!(seen, [plan, 2, 3, 3, plan, 7, plan, plan]);
    }

    async fn a_list_for_another_version_or_tenant_is_refused(on: Backend) {
        let control = Control::start(on).await;
        let id = id_of(&control.create(&acme()).await);
        let set = |id, version| {
            control.store.set_overrides(&Actor::Operator, id, vec![dated(2, 0, None)], version)
        };
        let refused = set(id, Some(7)).await.expect_err("another version");
        assert!(matches!(refused, ChangeError::VersionMismatch { current: 1 }), "{refused}");
        let unknown = TenantId(uuid::Uuid::nil());
        assert!(matches!(set(unknown, None).await, Err(ChangeError::NotFound)));
        assert_eq!(control.store.overrides(unknown).await.expect("a store"), None);
        assert_eq!(published(&control), 999_999_999);
    }
}
