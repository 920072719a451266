//! What time alone changes: trials and graces that are over, overrides and changes of plan
//! that are due.
//!
//! Run every second. The edge looks at trial and grace by itself, so a late run admits
//! nobody. Invariant: a tenant that cannot be moved on stops no other, and whoever changed
//! a tenant meanwhile wins: the next run looks again.

use std::sync::Arc;

use model::{
    catalog::Catalog,
    tenant::{Status, SuspendReason},
};
use serde::Deserialize;

use super::JobDeps;
use crate::store::{Actor, ChangeError, Over, StatusChange, Store, StoreError, TenantPatch};

/// How often it looks, in ms: what is due is in force within a second.
pub(super) const EVERY_MS: u64 = 500;
/// Tenants of each kind that one run moves on: a second's work, and a run of a day's trials
/// of 100,000 tenants ends within the minute.
const BATCH: u32 = 100;
/// The plan that goes on after a trial, where trials do not end in a suspension.
const DEVELOPER: &str = "developer";

/// What becomes of a tenant at the end of its trial.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrialEnd {
    /// It is suspended until somebody activates it.
    #[default]
    Suspend,
    /// It goes on, active, on the plan `developer`.
    Developer,
}

/// Who did it, for the audit chain.
const SELF: Actor = Actor::Job("lifecycle");

/// Moves on whom time moves on.
pub(super) async fn run(deps: Arc<JobDeps>) -> Result<(), StoreError> {
    let catalog = Arc::clone(&deps.catalog.borrow());
    pass(&deps.store, &catalog, deps.trial_end).await
}

async fn pass(
    store: &Arc<Store>,
    catalog: &Arc<Catalog>,
    trial_end: TrialEnd,
) -> Result<(), StoreError> {
    let mut outcome = Ok(());
    for overdue in store.overdue(BATCH).await? {
        let patch = patch(overdue.over, trial_end, catalog);
        let patched = store.patch_tenant(&SELF, overdue.tenant, patch, Some(overdue.version)).await;
        outcome = outcome.and(settled(patched.map(drop)));
    }
    for tenant in store.due(BATCH).await? {
        outcome = outcome.and(settled(store.settle(&SELF, tenant, Arc::clone(catalog)).await));
    }
    outcome
}

/// What to change of a tenant whose trial or grace is over.
fn patch(over: Over, trial_end: TrialEnd, catalog: &Catalog) -> TenantPatch {
    let goes_on = trial_end == TrialEnd::Developer && catalog.plans.contains_key(DEVELOPER);
    let suspend = |reason| StatusChange::To(Status::Suspended, Some(reason));
    let (plan, status) = match over {
        Over::Trial if goes_on => {
            (Some(DEVELOPER.to_owned()), StatusChange::To(Status::Active, None))
        }
        Over::Trial => (None, suspend(SuspendReason::TrialExpired)),
        Over::Grace => (None, suspend(SuspendReason::Unpaid)),
    };
    TenantPatch { plan, status: Some(status), ..TenantPatch::default() }
}

/// Whoever was quicker is right.
fn settled(outcome: Result<(), ChangeError>) -> Result<(), StoreError> {
    match outcome {
        Err(ChangeError::Store(error)) => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use model::{
        clock::Clock,
        tenant::{Tenant, TenantId},
    };
    use serde_json::json;

    use super::*;
    use crate::testing::{Backend, Control, acme, id_of, on_both, tenant};

    const DAY_MS: u64 = 86_400_000;
    const TRIAL_MS: u64 = model::tenant::TRIAL_DAYS * DAY_MS;

    async fn run(control: &Control, trial_end: TrialEnd) {
        let catalog = Arc::clone(&control.catalog.borrow());
        pass(&control.store, &catalog, trial_end).await.expect("a run");
    }

    /// The tenant as the data plane gets it.
    fn published(control: &Control, id: TenantId) -> Tenant {
        let directory = control.store.directory();
        let directory = directory.borrow();
        directory.record(id).expect("a tenant").tenant.clone()
    }

    on_both![
        a_trial_that_is_over_is_suspended_to_the_millisecond,
        a_trial_goes_on_as_developer_where_that_is_configured,
        a_past_due_tenant_is_suspended_after_its_grace,
        a_run_with_nothing_to_do_publishes_nothing,
        a_change_of_plan_and_an_override_come_into_force,
        more_than_a_batch_takes_several_runs,
    ];

    async fn a_trial_that_is_over_is_suspended_to_the_millisecond(on: Backend) {
        let control = Control::start(on).await;
        let id = id_of(&control.create(&acme()).await);
        control.clock.advance_ms(TRIAL_MS - 1);
        run(&control, TrialEnd::Suspend).await;
        assert_eq!(published(&control, id).status, Status::Trial);
        control.clock.advance_ms(1);
        run(&control, TrialEnd::Suspend).await;
        let over = published(&control, id);
        assert_eq!(over.status, Status::Suspended);
        assert_eq!(over.suspend_reason, Some(SuspendReason::TrialExpired));
        let version = over.version;
        run(&control, TrialEnd::Suspend).await;
        assert_eq!(published(&control, id).version, version, "once");
        let path = format!("/api/v1/admin/tenants/{id}");
        let paid = control.json("PATCH", &path, &json!({"status": "active"})).await;
        assert_eq!(paid.status, 200, "{}", paid.text);
        run(&control, TrialEnd::Suspend).await;
        assert_eq!(published(&control, id).status, Status::Active, "and not again");
    }

    async fn a_trial_goes_on_as_developer_where_that_is_configured(on: Backend) {
        let control = Control::start(on).await;
        let first = id_of(&control.create(&acme()).await);
        control.clock.advance_ms(TRIAL_MS);
        run(&control, TrialEnd::Developer).await;
        let goes_on = published(&control, first);
        assert_eq!((goes_on.status, goes_on.plan.as_str()), (Status::Active, "developer"));
        assert_eq!(goes_on.admission(control.clock.now()), Ok(()));
        // Without such a plan there is nothing to go on with.
        control.catalog.send_modify(|catalog| {
            let mut fewer = Catalog::clone(catalog);
            fewer.plans.remove(DEVELOPER);
            *catalog = Arc::new(fewer);
        });
        let second = id_of(&control.create(&tenant("second")).await);
        control.clock.advance_ms(TRIAL_MS);
        run(&control, TrialEnd::Developer).await;
        assert_eq!(published(&control, second).status, Status::Suspended);
    }

    async fn a_past_due_tenant_is_suspended_after_its_grace(on: Backend) {
        let control = Control::start(on).await;
        let created = control.create(&acme()).await;
        control.patch(&created, &json!({"status": "active"})).await;
        control.patch(&created, &json!({"status": "past_due"})).await;
        control.clock.advance_ms(crate::store::GRACE_DAYS * DAY_MS - 1);
        run(&control, TrialEnd::Developer).await;
        assert_eq!(published(&control, id_of(&created)).status, Status::PastDue);
        control.clock.advance_ms(1);
        run(&control, TrialEnd::Developer).await;
        let over = published(&control, id_of(&created));
        assert_eq!(over.suspend_reason, Some(SuspendReason::Unpaid));
        assert_eq!(over.plan, "enterprise");
    }

    async fn a_run_with_nothing_to_do_publishes_nothing(on: Backend) {
        let control = Control::start(on).await;
        control.create(&acme()).await;
        let version = control.store.directory().borrow().version;
        run(&control, TrialEnd::Suspend).await;
        assert_eq!(control.store.directory().borrow().version, version);
    }

    async fn a_change_of_plan_and_an_override_come_into_force(on: Backend) {
        let control = Control::start(on).await;
        let id = id_of(&control.create(&acme()).await);
        let at = control.clock.now().plus_ms(DAY_MS);
        control
            .store
            .schedule_plan_change(&Actor::Operator, id, "team".to_owned(), at)
            .await
            .expect("a change");
        let more = model::overrides::QuotaOverride {
            metric: model::quota::Metric::Users,
            value: 7,
            effective_from: at,
            effective_until: None,
            reason: "a deal".to_owned(),
        };
        control.store.set_overrides(&Actor::Operator, id, vec![more], None).await.expect("a list");
        let quotas = || {
            let quotas = control.catalog.borrow().quotas_of(&published(&control, id));
            let quotas = quotas.expect("a plan");
            (quotas.max_projects, quotas.max_users)
        };
        run(&control, TrialEnd::Suspend).await;
        assert_eq!(quotas(), (999_999, 999_999));
        control.clock.advance_ms(DAY_MS);
        run(&control, TrialEnd::Suspend).await;
        assert_eq!(quotas(), (50, 7));
    }

    async fn more_than_a_batch_takes_several_runs(on: Backend) {
        let control = Control::start(on).await;
        for number in 0..=BATCH {
            control.create(&tenant(&format!("t{number}"))).await;
        }
        control.clock.advance_ms(TRIAL_MS);
        let suspended = || {
            let directory = control.store.directory();
            let directory = directory.borrow();
            let suspended = |tenant: &Tenant| tenant.status == Status::Suspended;
            directory.records().filter(|record| suspended(&record.tenant)).count()
        };
        run(&control, TrialEnd::Suspend).await;
        assert_eq!(suspended(), BATCH as usize);
        run(&control, TrialEnd::Suspend).await;
        assert_eq!(suspended(), BATCH as usize + 1);
    }
}
