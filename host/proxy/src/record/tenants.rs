//! Numbers by tenant: the busiest ones by name, everybody else together.
//!
//! Workers pour their counts in at their ticks; a scrape reads, and elects the tenants
//! that have a series of their own when the last election is a minute old. What leaves is
//! added to `other`, so the sum over all tenants is the number of requests at any time
//! (and `other` jumps at an election). Invariant: the number of series is bounded,
//! however many tenants and routes there are.

mod collect;
mod seats;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use model::{clock::Clock, tenant::TenantId};

use self::seats::Seats;
use super::SECONDS_BOUNDS;
use crate::config::MetricsConfig;
pub(super) use collect::Collected;

/// Milliseconds between elections (60,000): a series that comes and goes faster is of no
/// use to anybody who plots it.
const ELECTION_MS: u64 = 60_000;
/// Series of requests at most (12,000): some 1.2 MB of a page. Beyond it a new pair of
/// tenant and route is counted under the route `other`.
const SERIES_MAX: usize = 12_000;

/// The tenants that have no series of their own; the routes beyond [`SERIES_MAX`].
const OTHER: &str = "other";
/// Requests that never had a tenant.
const NOBODY: &str = "none";

/// Whose numbers a series has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Who {
    Tenant(TenantId),
    Other,
    Nobody,
}

/// Whose, on which route, with which status class.
type SeriesKey = (Who, Option<Arc<str>>, u16);

/// Times in buckets, not cumulative.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Times {
    buckets: [u64; SECONDS_BOUNDS.len()],
    count: u64,
    sum: f64,
}

impl Times {
    pub(super) fn observe(&mut self, seconds: f64) {
        self.count += 1;
        self.sum += seconds;
        let fits = SECONDS_BOUNDS.iter().zip(&mut self.buckets);
        if let Some((_, bucket)) = fits.into_iter().find(|(bound, _)| seconds <= **bound) {
            *bucket += 1;
        }
    }

    fn add(&mut self, more: &Self) {
        self.count += more.count;
        self.sum += more.sum;
        self.buckets.iter_mut().zip(&more.buckets).for_each(|(bucket, more)| *bucket += more);
    }
}

/// The numbers of all workers.
pub(crate) struct TenantSeries {
    table: Mutex<Table>,
    clock: Arc<dyn Clock>,
}

impl TenantSeries {
    pub(crate) fn new(config: &MetricsConfig, clock: Arc<dyn Clock>) -> Arc<Self> {
        let seats = Seats::new(config, clock.monotonic_ms());
        let table = Table { seats, requests: HashMap::new(), seconds: HashMap::new() };
        Arc::new(Self { table: Mutex::new(table), clock })
    }

    /// The tenants that have series of their own now.
    pub(crate) fn elected(&self) -> Vec<TenantId> {
        self.table().seats.ids().collect()
    }

    pub(super) fn try_table(&self) -> Option<MutexGuard<'_, Table>> {
        self.table.try_lock().ok()
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The numbers, and who is shown by name.
pub(super) struct Table {
    seats: Seats,
    requests: HashMap<SeriesKey, u64>,
    seconds: HashMap<Who, Times>,
}

impl Table {
    /// Adds requests of a tenant (id and slug), or of nobody.
    pub(super) fn add(
        &mut self,
        tenant: Option<(TenantId, &str)>,
        route: Option<&Arc<str>>,
        class: u16,
        count: u64,
    ) {
        let who = match tenant {
            Some((id, slug)) => self.seats.count(id, slug, count),
            None => Who::Nobody,
        };
        self.put(who, route, class, count);
    }

    fn put(&mut self, who: Who, route: Option<&Arc<str>>, class: u16, count: u64) {
        let full = self.requests.len() >= SERIES_MAX;
        let key = (who, route.cloned(), class);
        let key = match full && !self.requests.contains_key(&key) {
            true => (who, Some(OTHER.into()), class),
            false => key,
        };
        *self.requests.entry(key).or_default() += count;
    }

    /// Adds times of a tenant whose requests were added just before.
    pub(super) fn observe(&mut self, tenant: Option<(TenantId, &str)>, times: &Times) {
        let who = tenant.map_or(Who::Nobody, |(id, _)| self.seats.of(id));
        self.seconds.entry(who).or_default().add(times);
    }

    /// Elects anew when it is time; who loses a seat joins the others.
    fn settle(&mut self, now_ms: u64) {
        for gone in self.seats.elect_when_due(now_ms) {
            let gone = Who::Tenant(gone);
            let left = self.requests.extract_if(|(who, ..), _| *who == gone);
            let left: Vec<_> = left.collect();
            for ((_, route, class), count) in left {
                self.put(Who::Other, route.as_ref(), class, count);
            }
            if let Some(times) = self.seconds.remove(&gone) {
                self.seconds.entry(Who::Other).or_default().add(&times);
            }
        }
    }

    fn label(&self, who: Who) -> &str {
        match who {
            Who::Tenant(id) => self.seats.slug(id).unwrap_or(OTHER),
            Who::Other => OTHER,
            Who::Nobody => NOBODY,
        }
    }
}

#[cfg(test)]
mod tests;
