//! Families as the published directory knows them: who lies below whom.
//!
//! Asked on every API request of a parent's token, so it is answered from memory, at most a
//! moment behind the database. Invariant: a walk upwards ends after
//! [`FAMILY_DEPTH_MAX`] levels, whatever the directory says.

use model::{
    directory::Directory,
    tenant::{FAMILY_DEPTH_MAX, TenantId},
};

use super::Store;

impl Store {
    /// Whether `id` is `root` or lies below it.
    #[must_use]
    pub fn is_in_subtree(&self, root: TenantId, id: TenantId) -> bool {
        let directory = self.published.directory().borrow();
        let mut at = Some(id);
        for _ in 0..FAMILY_DEPTH_MAX {
            match at {
                Some(here) if here == root => return true,
                Some(here) => at = parent(&directory, here),
                None => return false,
            }
        }
        false
    }
}

fn parent(directory: &Directory, id: TenantId) -> Option<TenantId> {
    let at = directory.tenants.binary_search_by_key(&id, |record| record.tenant.id).ok()?;
    directory.tenants.get(at)?.tenant.parent
}
