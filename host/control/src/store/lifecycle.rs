//! Changes of status: which are allowed, and what else they change.
//!
//! Called within the transaction of a patch. Invariant: nothing here admits a tenant that
//! the edge would refuse a moment later, and erasure is not a status that one sets.

use model::{
    clock::UnixMs,
    tenant::{Status, SuspendReason, Tenant},
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
