//! Changes of status: which are allowed, and what else they change.
//!
//! Called within the transaction of a patch, whoever asks for it; the lifecycle job finds
//! by [`Store::overdue`] whom time moves on. Invariant: nothing here admits a tenant that
//! the edge would refuse a moment later, and erasure is not a status that one sets.

use model::{
    clock::UnixMs,
    tenant::{Status, SuspendReason, Tenant, TenantId},
};
use uuid::Uuid;

use super::{
    Store, StoreError,
    db::{Purpose, sql},
    rows::stored,
};

/// Days that a past-due tenant is still served: two weeks to pay an open invoice.
pub const GRACE_DAYS: u64 = 14;
const DAY_MS: u64 = 86_400_000;

/// What a caller wants of a tenant's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusChange {
    /// Exactly this status; a reason counts for `suspended` only.
    To(Status, Option<SuspendReason>),
    /// Out of suspension, to what it was: `trial` while the trial lasts, else `active`.
    Resume,
}

/// A refused change of status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a tenant that is {} may not become {}", from.as_str(), to.map_or("resumed", Status::as_str))]
pub struct InvalidTransition {
    /// The status it has.
    pub from: Status,
    /// The status asked for; `None` for a resume.
    pub to: Option<Status>,
    /// What it may become now.
    pub allowed: Vec<Status>,
}

/// A tenant that may no longer be what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overdue {
    pub(crate) tenant: TenantId,
    /// The version that it was found at.
    pub(crate) version: u64,
    pub(crate) over: Over,
}

/// What is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    Trial,
    Grace,
}

impl Store {
    /// Up to `limit` tenants whose trial is over and as many whose grace is, those that
    /// are overdue longest first.
    pub(crate) async fn overdue(&self, limit: u32) -> Result<Vec<Overdue>, StoreError> {
        let mut tx = self.db.control(Purpose::Read).await?;
        let rows = sql("SELECT id, version, 'trial' FROM (
                 SELECT id, version FROM tenant WHERE status = 'trial' AND trial_ends_at <= $1
                 ORDER BY trial_ends_at LIMIT $2) AS trials
             UNION ALL
             SELECT id, version, 'grace' FROM (
                 SELECT id, version FROM tenant WHERE status = 'past_due' AND grace_ends_at <= $1
                 ORDER BY grace_ends_at LIMIT $2) AS graces")
        .bind(stored(self.clock.now()))
        .bind(i64::from(limit))
        .all::<(Uuid, i64, String), _>(&mut tx)
        .await;
        let overdue = |(id, version, over): (Uuid, i64, String)| Overdue {
            tenant: TenantId(id),
            version: u64::try_from(version).unwrap_or(0),
            over: if over == "trial" { Over::Trial } else { Over::Grace },
        };
        Ok(tx.end(rows).await?.into_iter().map(overdue).collect())
    }
}

/// Applies a change of status. Asking for the status it has already changes nothing, but
/// the reason of a suspension.
pub(super) fn apply(
    tenant: &mut Tenant,
    change: StatusChange,
    now: UnixMs,
) -> Result<(), InvalidTransition> {
    let allowed = allowed(tenant, now);
    let (to, reason) = match change {
        StatusChange::To(to, reason) => (to, reason),
        StatusChange::Resume => match (tenant.status, tenant.trial_ends_at) {
            (Status::Suspended, Some(end)) if now < end => (Status::Trial, None),
            (Status::Suspended, None) => (Status::Active, None),
            (Status::Trial | Status::Active | Status::PastDue, _) => return Ok(()),
            _ => return Err(InvalidTransition { from: tenant.status, to: None, allowed }),
        },
    };
    if to == tenant.status {
        tenant.suspend_reason = reason.or(tenant.suspend_reason);
        return Ok(());
    }
    if !allowed.contains(&to) {
        return Err(InvalidTransition { from: tenant.status, to: Some(to), allowed });
    }
    tenant.status = to;
    tenant.suspend_reason =
        (to == Status::Suspended).then(|| reason.unwrap_or(SuspendReason::Operator));
    tenant.grace_ends_at = (to == Status::PastDue).then(|| now.plus_ms(GRACE_DAYS * DAY_MS));
    if to == Status::Active {
        tenant.trial_ends_at = None;
    }
    Ok(())
}

/// What a tenant may become by a patch: the model's transitions without erasure, which is
/// a request of its own, and without a trial that is over.
fn allowed(tenant: &Tenant, now: UnixMs) -> Vec<Status> {
    let trial_lasts = tenant.trial_ends_at.is_some_and(|end| now < end);
    let settable = |status: &Status| match status {
        Status::Erasing | Status::Erased => false,
        Status::Trial => trial_lasts,
        Status::Provisioning | Status::Active | Status::PastDue | Status::Suspended => true,
    };
    tenant.status.may_become().iter().copied().filter(settable).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tenant(status: Status) -> Tenant {
        let suspended = status == Status::Suspended;
        Tenant {
            id: model::tenant::TenantId(uuid::Uuid::nil()),
            slug: "acme".parse().expect("a slug"),
            organization_name: String::new(),
            display_name: String::new(),
            admin_email: String::new(),
            plan: String::new(),
            data_residency: String::new(),
            home_region: None,
            gdpr: Default::default(),
            parent: None,
            status,
            suspend_reason: suspended.then_some(SuspendReason::Operator),
            trial_ends_at: Some(UnixMs(100)),
            grace_ends_at: None,
            custom_domains: Vec::new(),
            quota_overrides: std::collections::BTreeMap::new(),
            dated_quotas: std::collections::BTreeMap::new(),
            quota_anchor: Default::default(),
            attributes: std::collections::BTreeMap::new(),
            created_at: UnixMs(0),
            version: 1,
        }
    }

    proptest! {
        #[test]
        fn every_step_is_one_of_the_models_and_keeps_the_status_consistent(
            from in 0_usize..7, to in 0_usize..8, now in 0_u64..200,
        ) {
            let before = tenant(Status::ALL[from]);
            let mut after = before.clone();
            let change = Status::ALL
                .get(to)
                .map_or(StatusChange::Resume, |to| StatusChange::To(*to, None));
            let outcome = apply(&mut after, change, UnixMs(now));
            if outcome.is_err() {
                prop_assert_eq!(&after, &before);
            } else if after.status != before.status {
                prop_assert!(before.status.may_become().contains(&after.status));
            }
            if outcome.is_ok() {
                prop_assert_eq!(after.status == Status::Suspended, after.suspend_reason.is_some());
            }
            let erases = matches!(after.status, Status::Erasing | Status::Erased);
            prop_assert!(!erases || after == before, "a patch never erases");
        }
    }

    #[test]
    fn a_trial_that_is_over_is_not_entered_again() {
        let mut over = tenant(Status::Suspended);
        let refused = apply(&mut over, StatusChange::To(Status::Trial, None), UnixMs(100));
        assert_eq!(refused.expect_err("a refusal").allowed, [Status::Active]);
        apply(&mut over, StatusChange::To(Status::Trial, None), UnixMs(99)).expect("still on");
    }
}
