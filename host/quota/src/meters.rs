//! The meters of a process, one per tenant that is in use.
//!
//! Looked into once per tenant and snapshot. A meter that nobody has any more, because its
//! tenant was deleted or moved to another entry, is dropped when the number has doubled
//! since the last look. Invariant: while anybody has a tenant's meter (a snapshot, a request
//! in flight, the keeper), whoever asks gets the same one.

use std::{collections::HashMap, sync::Arc};

use model::tenant::TenantId;

use crate::meter::{Shared, TenantMeter};

/// Meters below which nothing is dropped: some 400 KB.
const KEPT_MIN: usize = 1_024;

/// All of them.
#[derive(Default)]
pub(crate) struct Meters {
    all: HashMap<TenantId, Arc<TenantMeter>>,
    /// At so many they are looked through.
    full_at: usize,
}

impl Meters {
    pub(crate) fn find(&self, tenant: TenantId) -> Option<Arc<TenantMeter>> {
        self.all.get(&tenant).map(Arc::clone)
    }

    /// The tenant's meter, made when it has none.
    pub(crate) fn of(&mut self, tenant: TenantId, shared: &Arc<Shared>) -> Arc<TenantMeter> {
        if self.all.len() >= self.full_at.max(KEPT_MIN) && !self.all.contains_key(&tenant) {
            self.forget_unused(shared);
        }
        let new = || TenantMeter::new(tenant, Arc::clone(shared));
        Arc::clone(self.all.entry(tenant).or_insert_with(new))
    }

    /// Every meter of the map, in no order.
    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<TenantMeter>> {
        self.all.values()
    }

    /// Drops the meters that only this map has. Others get one only from it, or from
    /// somebody who has it: with the map held, what is unused stays so.
    fn forget_unused(&mut self, shared: &Shared) {
        let now = shared.clock.now();
        self.all.retain(|_, meter| Arc::strong_count(meter) > 1 || meter.is_needed(now));
        self.full_at = self.all.len() * 2;
    }
}
