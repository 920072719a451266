//! What one worker keeps: calls running per tenant, and idle instances.
//!
//! Invariant: `idle_count` is the number of instances in `idle`; a tenant without running
//! calls has no entry.

use std::collections::HashMap;

use model::tenant::TenantId;
use smallvec::SmallVec;

use super::Owner;
use crate::instance::Live;

/// Milliseconds between two sweeps for instances that were idle too long.
const SWEEP_MS: u64 = 1_000;

#[derive(Debug)]
struct Idle {
    live: Box<Live>,
    since_ms: u64,
}

/// One worker's share.
#[derive(Debug, Default)]
pub(super) struct Worker {
    calls: HashMap<TenantId, u32>,
    idle: HashMap<Owner, SmallVec<[Idle; 1]>>,
    idle_count: usize,
    swept_ms: u64,
}

impl Worker {
    /// Counts a call in, unless the tenant has `max` of them.
    pub(super) fn enter(&mut self, tenant: TenantId, max: u32) -> bool {
        let calls = self.calls.entry(tenant).or_default();
        let free = *calls < max;
        *calls += u32::from(free);
        free
    }

    /// Counts a call out.
    pub(super) fn leave(&mut self, tenant: TenantId) {
        if let Some(calls) = self.calls.get_mut(&tenant) {
            *calls = calls.saturating_sub(1);
            if *calls == 0 {
                self.calls.remove(&tenant);
            }
        }
    }

    /// The owner's instance that was used last: the warmest.
    pub(super) fn take(&mut self, owner: &Owner) -> Option<Box<Live>> {
        let kept = self.idle.get_mut(owner)?;
        let live = kept.pop();
        if kept.is_empty() {
            self.idle.remove(owner);
        }
        self.idle_count -= usize::from(live.is_some());
        live.map(|idle| idle.live)
    }

    /// Keeps an instance; gives back the one that had to go for it.
    #[must_use]
    pub(super) fn keep(
        &mut self,
        owner: Owner,
        live: Box<Live>,
        now_ms: u64,
        max: usize,
    ) -> Option<Box<Live>> {
        if max == 0 {
            return Some(live);
        }
        let evicted = if self.idle_count >= max { self.evict_oldest() } else { None };
        self.idle.entry(owner).or_default().push(Idle { live, since_ms: now_ms });
        self.idle_count += 1;
        evicted
    }

    /// Takes out the instance that was idle longest.
    pub(super) fn evict_oldest(&mut self) -> Option<Box<Live>> {
        let oldest = |kept: &SmallVec<[Idle; 1]>| kept.first().map(|idle| idle.since_ms);
        let owner = *self.idle.iter().min_by_key(|(_, kept)| oldest(kept))?.0;
        let kept = self.idle.get_mut(&owner)?;
        let idle = kept.remove(0);
        if kept.is_empty() {
            self.idle.remove(&owner);
        }
        self.idle_count -= 1;
        Some(idle.live)
    }

    /// Takes out what was idle too long; looks at most once a second.
    #[must_use]
    pub(super) fn sweep(&mut self, now_ms: u64, idle_ms_max: u64) -> Vec<Live> {
        let mut expired = Vec::new();
        if now_ms.saturating_sub(self.swept_ms) < SWEEP_MS {
            return expired;
        }
        self.swept_ms = now_ms;
        for kept in self.idle.values_mut() {
            // Oldest first, so the expired ones are a prefix.
            let count = kept
                .iter()
                .take_while(|idle| now_ms.saturating_sub(idle.since_ms) > idle_ms_max)
                .count();
            expired.extend(kept.drain(..count).map(|idle| *idle.live));
        }
        self.idle.retain(|_, kept| !kept.is_empty());
        self.idle_count -= expired.len();
        expired
    }

    /// Takes out every instance of the owners that match.
    #[must_use]
    pub(super) fn remove_where(&mut self, matches: impl Fn(&Owner) -> bool) -> Vec<Live> {
        let mut removed = Vec::new();
        self.idle.retain(|owner, kept| {
            let goes = matches(owner);
            if goes {
                removed.extend(kept.drain(..).map(|idle| *idle.live));
            }
            !goes
        });
        self.idle_count -= removed.len();
        removed
    }
}
