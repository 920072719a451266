//! Other terms of pools and other members: what `control` does in `store/pools/tokens.rs`.
//!
//! Invariants: what a member used stays with the pool that it was drawn from, when the member
//! leaves; to the pool that it comes into it is new, and out of all pools everything counts.
//! Whatever is open below a change starts closing.

use model::{clock::Clock as _, ledger::WindowKey, quota::Metric, tenant::TenantId};

use super::{Books, Row};
use crate::simulation::population::Terms;

impl Books {
    /// Other totals and shares.
    pub(in crate::simulation) fn settle(&mut self, terms: &Terms) {
        self.terms = terms.clone();
        let tied: Vec<TenantId> = terms.tenants().filter(|one| terms.tie(*one)).collect();
        self.close_all(&tied);
    }

    /// A tenant without children comes, goes, or moves from one pool to another.
    pub(in crate::simulation) fn moved(&mut self, tenant: TenantId, terms: &Terms) {
        let (from, into) = (self.terms.owner_of(tenant), terms.owner_of(tenant));
        self.terms = terms.clone();
        if from == into {
            return;
        }
        let now = self.clock.now();
        let keys = self.windows.keys();
        let live = keys.filter(|key| key.tenant == tenant && key.window.end > now);
        for key in live.copied().collect::<Vec<WindowKey>>() {
            self.pass(&key, from, into);
        }
        self.close_all(&[tenant]);
    }

    fn pass(&mut self, key: &WindowKey, from: Option<TenantId>, into: Option<TenantId>) {
        let Some(row) = self.windows.get_mut(key) else { return };
        let used = row.held().saturating_sub(row.base);
        (row.pooled, row.pool_dry) = (false, None);
        (row.base, row.since) = if into.is_some() { (row.held(), row.latest) } else { (0, 0) };
        if let Some(owner) = from.filter(|_| self.rules.pools_carry) {
            let pool = WindowKey { tenant: owner, ..*key };
            self.windows.entry(pool).or_default().carried += used;
        }
    }

    /// Starts closing whatever is open of these, and has everybody look again.
    fn close_all(&mut self, tenants: &[TenantId]) {
        self.settled = true;
        let (clock, now) = (self.clock.elapsed(), self.clock.now());
        let live = |(key, _): &(&WindowKey, &mut Row)| {
            tenants.contains(&key.tenant) && key.window.end > now
        };
        for (_, row) in self.windows.iter_mut().filter(live) {
            row.epochs.values_mut().for_each(|epoch| epoch.close(clock));
            row.bounds.floor = row.bounds.floor.max(row.bounds.latest);
        }
        for metric in Metric::CONSUMABLE {
            *self.freed.entry(metric).or_default() += 1;
        }
    }
}
