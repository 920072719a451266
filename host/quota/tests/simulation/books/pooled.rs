//! Pools in the authority's account: what `control` does in `store/authority/pooled.rs` and
//! `store/pools/tokens.rs`.
//!
//! Invariant, checked after every debit by sums of its own: nothing that opens brings what a
//! pool's members hold above its total, or into what is guaranteed to another.

use std::collections::BTreeSet;

use model::{
    ledger::{EpochRef, Fence, OpenRequest, WindowKey},
    pool::Family,
    quota::Metric,
};

use super::{Books, Epoch, Phase};
use crate::simulation::population::Terms;

/// What an account may be granted.
pub(super) struct Room {
    pub(super) limit: u64,
    pub(super) remaining: u64,
    pub(super) sizing: u64,
    pub(super) wants_others: bool,
}

impl Books {
    /// What pools leave of an account that stands in some; `None` when the caller does not
    /// know them as they are. An account without pools has no room of its own.
    pub(super) fn room(&self, request: &OpenRequest) -> Option<Option<Room>> {
        let OpenRequest { key, limit, above, .. } = *request;
        let tenant = key.tenant;
        if !self.terms.tie(tenant) {
            return above.is_none().then_some(None);
        }
        let top = self.terms.top();
        let plan = match above {
            Some(above) if above.tenant == top && tenant != top => above.limit,
            None if tenant == top => limit,
            _ => return None,
        };
        let family = self.family(&key);
        let limit = family.limit(tenant, plan);
        let drawing = family.membership(tenant).map_or(1, |held| family.active_in(held.owner));
        Some(Some(Room {
            limit,
            remaining: family.room(tenant, plan),
            sizing: limit / (drawing as u64).max(1),
            wants_others: family.leaves_share(tenant),
        }))
    }

    /// The family of an account with what is granted in its window.
    fn family(&self, key: &WindowKey) -> Family {
        let WindowKey { metric, window, .. } = *key;
        self.terms.family_of(metric, |tenant| {
            let row = self.windows.get(&WindowKey { tenant, metric, window });
            row.map_or(0, |row| row.granted - row.credited)
        })
    }

    /// Notes that a tranche was drawn, or that there was none to draw.
    pub(super) fn note(&mut self, key: &WindowKey, is_dry: bool) {
        let freed = self.freed(key.metric);
        let dry = is_dry.then_some(freed);
        let row = self.windows.entry(*key).or_default();
        (row.pooled, row.pool_dry) = (true, dry);
    }

    pub(super) fn freed(&self, metric: Metric) -> u64 {
        self.freed.get(&metric).copied().unwrap_or(0)
    }

    /// Tells those that found nothing that there may be something.
    pub(super) fn free(&mut self, key: &WindowKey) {
        if self.windows.get(key).is_some_and(|row| row.pooled) {
            *self.freed.entry(key.metric).or_default() += 1;
        }
    }

    /// Whether the reports say how much of an epoch is left.
    fn counts_by_reports(&self, epoch: &Epoch) -> bool {
        let ended = |ordinal: usize| self.holders[ordinal].ended;
        match epoch.fence {
            _ if epoch.phase == Phase::Reconciled => false,
            Fence::Holder(holder) => self.alive(holder).is_some(),
            Fence::Redis(_) => {
                !epoch.reports.iter().any(|((of, _), one)| !one.sealed && ended(*of))
            }
        }
    }

    /// Tranches of others in the family of which tokens are left.
    pub(super) fn parked(&self, key: &WindowKey) -> Vec<EpochRef> {
        let WindowKey { tenant, metric, window } = *key;
        let others = self.epochs().filter(|(of, _)| {
            of.key.tenant != tenant
                && (of.key.metric, of.key.window) == (metric, window)
                && self.windows.get(&of.key).is_some_and(|row| row.pooled)
        });
        others
            .filter(|(_, epoch)| epoch.spent() < epoch.tranche && self.counts_by_reports(epoch))
            .map(|(of, _)| of)
            .collect()
    }

    /// Starts closing them.
    pub(super) fn release(&mut self, key: &WindowKey) {
        let parked = self.parked(key);
        let keys: BTreeSet<WindowKey> = parked.iter().map(|of| of.key).collect();
        self.close(&keys.into_iter().collect::<Vec<_>>());
        let now = self.clock.elapsed();
        for of in &parked {
            let epoch = self.windows.get_mut(&of.key).and_then(|row| row.epochs.get_mut(&of.epoch));
            if let Some(epoch) = epoch.filter(|epoch| !epoch.is_shared()) {
                epoch.close(now);
            }
        }
    }

    /// Other terms: whatever is open starts closing.
    pub(in crate::simulation) fn settle(&mut self, terms: &Terms) {
        self.terms = terms.clone();
        self.settled = true;
        let (clock, now) = (self.clock.elapsed(), model::clock::Clock::now(&self.clock));
        for (key, row) in &mut self.windows {
            if self.terms.tie(key.tenant) && key.window.end > now {
                row.epochs.values_mut().for_each(|epoch| epoch.close(clock));
                row.bounds.floor = row.bounds.floor.max(row.bounds.latest);
            }
        }
        for metric in Metric::CONSUMABLE {
            *self.freed.entry(metric).or_default() += 1;
        }
    }

    /// Whether the pools above an account have what is granted of them, now that it was granted
    /// a tranche. By plain sums, not by the rule that grants.
    pub(super) fn check_pools(&self, key: &WindowKey) {
        let family = self.family(key);
        for (owner, total) in self.terms.pools_above(key.tenant, key.metric) {
            let used = family.used_below(owner);
            if used > total {
                self.truth.fail(format_args!("{used} granted of a pool of {total}: {key:?}"));
            }
            // Under other terms than at first, what is guaranteed may have been used before.
            let committed = family.committed(owner);
            if !self.settled && committed > total {
                self.truth.fail(format_args!("{committed} committed of a pool of {total}"));
            }
        }
    }
}
