//! One worker's counts by tenant since its last tick.
//!
//! Counting is two look-ups in the worker's own maps: no lock, no clone of a name, and no
//! allocation once the maps have grown to a tick's worth of tenants. Invariant: what was
//! counted reaches the table exactly once, at a tick or when the worker ends.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use model::{route::Route, snapshot::TenantEntry, tenant::TenantId};

use super::tenants::{Table, TenantSeries, Times};

/// What is counted together: a tenant (`None`: the request was nobody's), a route by its
/// address, a status class.
type Key = (Option<TenantId>, *const Route, u16);

/// A worker's counts.
#[derive(Default)]
pub(crate) struct Tally(RefCell<Counts>);

#[derive(Default)]
struct Counts {
    requests: HashMap<Key, Counted>,
    seconds: HashMap<Option<TenantId>, Timed>,
}

/// A count with what names it; holding the route keeps its address its own.
struct Counted {
    entry: Option<Arc<TenantEntry>>,
    route: Option<Arc<Route>>,
    count: u64,
}

struct Timed {
    entry: Option<Arc<TenantEntry>>,
    times: Times,
}

impl Tally {
    /// Counts one request.
    pub(super) fn count(
        &self,
        entry: Option<&Arc<TenantEntry>>,
        route: Option<&Arc<Route>>,
        class: u16,
        seconds: f64,
    ) {
        let mut counts = self.0.borrow_mut();
        let tenant = entry.map(|entry| entry.id());
        let key = (tenant, route.map_or(std::ptr::null(), Arc::as_ptr), class);
        let new = || Counted { entry: entry.cloned(), route: route.cloned(), count: 0 };
        counts.requests.entry(key).or_insert_with(new).count += 1;
        let new = || Timed { entry: entry.cloned(), times: Times::default() };
        counts.seconds.entry(tenant).or_insert_with(new).times.observe(seconds);
    }

    /// Hands the counts on, unless somebody else has the table: then at the next tick.
    pub(crate) fn flush(&self, series: &TenantSeries) {
        if self.0.borrow().requests.is_empty() {
            return;
        }
        if let Some(table) = series.try_table() {
            self.pour(table);
        }
    }

    /// The same, waiting for the table: nothing is counted afterwards.
    pub(crate) fn finish(&self, series: &TenantSeries) {
        self.pour(series.table());
    }

    fn pour(&self, mut table: impl std::ops::DerefMut<Target = Table>) {
        let mut counts = self.0.borrow_mut();
        // Draining keeps the room.
        for ((_, _, class), counted) in counts.requests.drain() {
            let route = counted.route.as_ref().map(|route| &route.name);
            table.add(named(&counted.entry), route, class, counted.count);
        }
        for (_, timed) in counts.seconds.drain() {
            table.observe(named(&timed.entry), &timed.times);
        }
    }
}

fn named(entry: &Option<Arc<TenantEntry>>) -> Option<(TenantId, &str)> {
    entry.as_ref().map(|entry| (entry.id(), entry.record.tenant.slug.as_str()))
}
