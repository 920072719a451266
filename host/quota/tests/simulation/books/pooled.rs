//! Pools in the authority's account: what `control` does in `store/authority/pooled.rs`.
//!
//! Invariant, checked after every debit by sums of its own: nothing that opens brings what was
//! drawn from a pool above its total, or into what is guaranteed to another.

use std::collections::BTreeSet;

use model::{
    ledger::{EpochRef, Fence, OpenRequest, WindowKey},
    pool::Family,
    quota::Metric,
    tenant::TenantId,
};

use super::{Books, Epoch, Phase, Row};

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
        let top = self.terms.top_of(tenant);
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
            remaining: if self.rules.pools { family.room(tenant, plan) } else { limit },
            sizing: limit / (drawing as u64).max(1),
            wants_others: family.leaves_share(tenant),
        }))
    }

    /// Everybody with what is granted in a window, and was not before they came into their pools.
    pub(super) fn family(&self, key: &WindowKey) -> Family {
        let WindowKey { metric, window, .. } = *key;
        self.terms.family_of(metric, |tenant| {
            let row = self.windows.get(&WindowKey { tenant, metric, window });
            row.map_or((0, 0), |row| (row.held().saturating_sub(row.base), row.carried))
        })
    }

    /// What an account had before it came into its pool, and what others took of its own pool
    /// who are no members any more.
    pub(in crate::simulation) fn apart(&self, key: &WindowKey) -> (u64, u64) {
        self.windows.get(key).map_or((0, 0), |row| (row.base, row.carried))
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

    /// Whether the pools above an account have what is granted of them, now that it was granted
    /// a tranche. By the tranches that were drawn from each, not by the sums that grant.
    pub(super) fn check_pools(&self, key: &WindowKey) {
        let WindowKey { metric, window, .. } = *key;
        let family = self.family(key);
        for (owner, total) in self.terms.pools_above(key.tenant, metric) {
            let drawn = self.drawn_from(owner, key);
            if drawn > total {
                self.truth.fail(format_args!("{drawn} drawn from a pool of {total}: {key:?}"));
            }
            // Under other terms than at first, what is guaranteed may have been used before.
            let (_, carried) = self.apart(&WindowKey { tenant: owner, metric, window });
            let committed = family.committed(owner) + carried;
            if !self.settled && committed > total {
                self.truth.fail(format_args!("{committed} committed of a pool of {total}"));
            }
        }
    }

    /// What was drawn from a pool in a window, by whomever, and did not come back. What came
    /// back late was of some epoch: of those that were drawn from this pool, if possible.
    fn drawn_from(&self, owner: TenantId, key: &WindowKey) -> u64 {
        let same = |of: &WindowKey| (of.metric, of.window) == (key.metric, key.window);
        let of = |row: &Row| {
            let drawn = row.epochs.values().filter(|epoch| epoch.pools.contains(&owner));
            let held = |epoch: &Epoch| match epoch.phase {
                Phase::Reconciled => epoch.spent().min(epoch.tranche),
                Phase::Open | Phase::Closing => epoch.tranche,
            };
            drawn.map(held).sum::<u64>().saturating_sub(row.late.values().sum())
        };
        self.windows.iter().filter(|(of, _)| same(of)).map(|(_, row)| of(row)).sum()
    }
}
