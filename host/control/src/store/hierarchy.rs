//! Families: who is whose parent, kept as a closure table, and changed by moves.
//!
//! Authorization asks [`Store::is_in_subtree`] of the published directory, in memory and as
//! fresh as the directory; lists and trees come from the closure table. Invariants: the
//! closure equals what following parents gives; no cycle; at most
//! [`FAMILY_DEPTH_MAX`] levels. All three are kept by whoever creates or moves a tenant,
//! one change of the directory at a time.

pub(super) mod closure;
mod moves;
mod read;
#[cfg(test)]
mod tests;

use model::{
    directory::{Directory, TenantRecord},
    tenant::{FAMILY_DEPTH_MAX, Status, Tenant, TenantId},
};

pub use self::{
    moves::MoveError,
    read::{ChildPage, Family, Member},
};
use super::Store;

impl Store {
    /// Whether `id` is `root` or one of its descendants, as published: a few steps in
    /// memory. False for a tenant that the directory does not know.
    #[must_use]
    pub fn is_in_subtree(&self, root: TenantId, id: TenantId) -> bool {
        let directory = self.published.directory().borrow();
        line(&directory, Some(id)).any(|tenant| tenant.id == root)
    }

    /// The status in effect for a tenant, as published: its own, or a suspension or erasure
    /// of an ancestor.
    #[must_use]
    pub fn effective_status(&self, tenant: &Tenant) -> Status {
        let directory = self.published.directory().borrow();
        tenant.status.effective(line(&directory, tenant.parent).map(|ancestor| ancestor.status))
    }
}

/// A tenant and its ancestors, upwards.
fn line(directory: &Directory, from: Option<TenantId>) -> impl Iterator<Item = &Tenant> {
    records(directory, from).map(|record| &record.tenant)
}

/// The same with what belongs to them.
pub(super) fn records(
    directory: &Directory,
    from: Option<TenantId>,
) -> impl Iterator<Item = &TenantRecord> {
    let mut next = from;
    let step = move || {
        let record = directory.record(next?)?;
        next = record.tenant.parent;
        Some(&**record)
    };
    // While another process's change arrives, two records may not fit: never walk for ever.
    std::iter::from_fn(step).take(FAMILY_DEPTH_MAX as usize)
}
