//! Step 8: which region and which endpoint, and which next when one fails.
//!
//! Endpoints that fail are ejected for a while ([`endpoint`], [`roster`]), or found down
//! ([`health`]); when a region has
//! none left, the next of the residency group serves. Invariant: every region is a member of
//! the tenant's residency group, by construction: nothing else is reachable from here,
//! whatever fails and whatever a policy asked for.

mod budget;
mod config;
mod endpoint;
mod fleet;
pub(crate) mod health;
mod roster;
pub(crate) mod wire;

use std::{net::SocketAddr, sync::Arc};

use http::StatusCode;
use model::{
    policy::Target,
    region::{Backend, DEFAULT_BACKEND, Region, ResidencyGroup},
    snapshot::TenantEntry,
};
use smallvec::SmallVec;

use self::roster::{Failure, Pick};
pub(crate) use self::{
    budget::Budget,
    endpoint::Busy,
    fleet::{Fleet, Meters},
    roster::Roster,
};
pub use self::{config::UpstreamsConfig, health::HealthConfig};
use crate::{exchange::Exchange, rescue::Reason, worker::Worker};

/// Where the request goes.
pub(crate) struct Upstream {
    pub(crate) region: Arc<Region>,
    pub(crate) backend: Arc<Backend>,
    pick: Pick,
    tried: SmallVec<[SocketAddr; 4]>,
    retries: u32,
    /// Whether another region may serve.
    strays: bool,
}

impl Upstream {
    /// Region and backend, as response hooks see them.
    pub(crate) fn name(&self) -> (Arc<str>, Box<str>) {
        (Arc::clone(&self.region.name), self.backend.name.clone())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.pick.endpoint.address
    }

    /// What counts the request as under way, where there is a choice to make.
    pub(crate) fn busy(&mut self) -> Option<Busy> {
        let counted = self.backend.endpoints.len() > 1;
        let busy = self.pick.busy.take();
        busy.or_else(|| counted.then(|| Busy::at(&self.pick.endpoint)))
    }

    /// The endpoint answered.
    pub(crate) fn answered(&self, exchange: &Exchange, status: StatusCode) {
        if status.is_server_error() {
            self.count(exchange, Failure::Answer);
        } else {
            let now_ms = || exchange.worker.clock.monotonic_ms();
            self.pick.endpoint.succeeded(self.pick.on_trial, now_ms);
        }
    }

    /// The endpoint failed, if that is what the reason says.
    pub(crate) fn failed(&self, exchange: &Exchange, reason: Reason) {
        match reason {
            Reason::ConnectFailed | Reason::ConnectTimeout => {
                self.count(exchange, Failure::Connect);
            }
            Reason::UpstreamClosed | Reason::UpstreamGarbage | Reason::FirstByteTimeout => {
                self.count(exchange, Failure::Answer);
            }
            _ => {}
        }
    }

    fn count(&self, exchange: &Exchange, failure: Failure) {
        let (worker, pick) = (&exchange.worker, &self.pick);
        let roster = exchange.pinned.roster(worker, &self.backend);
        let (config, now_ms) = (&worker.config.upstreams, worker.clock.monotonic_ms());
        if roster.failed(&pick.endpoint, pick.on_trial, failure, config, now_ms) {
            worker.upstreams.ejections.inc();
            let (endpoint, region) = (self.address(), &*self.region.name);
            tracing::warn!(%endpoint, region, "an upstream endpoint is ejected");
        }
    }

    /// Takes the next endpoint after a connection failed; false when there is none to try.
    pub(crate) fn moves_on(
        &mut self,
        exchange: &mut Exchange,
        entry: &TenantEntry,
        reason: Reason,
    ) -> bool {
        let full = reason == Reason::UpstreamBusy;
        if !full && !matches!(reason, Reason::ConnectFailed | Reason::ConnectTimeout) {
            return false;
        }
        self.tried.push(self.address());
        let strays = self.strays && !full;
        let (backend, tried) = (&self.backend, &self.tried);
        let Some((region, backend, pick)) =
            next(exchange, entry, (&self.region, backend), strays, tried)
        else {
            return false;
        };
        if !self.may_retry(&exchange.worker) {
            return false;
        }
        self.arrive(exchange, region, backend, pick);
        true
    }

    /// Takes an endpoint for the second time that a request is sent, another one of the
    /// region if there is; false when it may not be sent again.
    pub(crate) fn again(&mut self, exchange: &mut Exchange, entry: &TenantEntry) -> bool {
        if !self.may_retry(&exchange.worker) {
            return false;
        }
        self.tried.push(self.address());
        let place = (&self.region, &self.backend);
        if let Some((region, backend, pick)) = next(exchange, entry, place, false, &self.tried) {
            self.arrive(exchange, region, backend, pick);
        }
        true
    }

    fn may_retry(&mut self, worker: &Worker) -> bool {
        if self.retries >= worker.config.upstreams.retries_max {
            return false;
        }
        self.retries += 1;
        let allowed = worker.retries.take();
        worker.upstreams.retry(allowed);
        allowed
    }

    fn arrive(
        &mut self,
        exchange: &mut Exchange,
        region: Arc<Region>,
        backend: Arc<Backend>,
        pick: Pick,
    ) {
        if !Arc::ptr_eq(&region, &self.region) {
            exchange.worker.upstreams.failovers.inc();
            exchange.record.region(&region);
        }
        (self.region, self.backend, self.pick) = (region, backend, pick);
    }
}

/// What a target means for a tenant; `None` when it has no such region or backend.
pub(crate) fn resolve(
    entry: &TenantEntry,
    target: Option<&Target>,
) -> Option<(Arc<Region>, Arc<Backend>)> {
    let (region, backend) = match target {
        None => (&entry.home, DEFAULT_BACKEND),
        Some(Target::Region(name)) => (entry.group.region(name)?, DEFAULT_BACKEND),
        Some(Target::Backend(name)) => (&entry.home, &**name),
    };
    let backend = region.backends.get(backend)?;
    Some((Arc::clone(region), Arc::clone(backend)))
}

/// Step 8 of the walk: home region unless a policy asked otherwise.
///
/// # Errors
/// No endpoint takes requests.
pub(crate) fn choose(
    exchange: &mut Exchange,
    entry: &TenantEntry,
    target: Option<&Target>,
) -> Result<Upstream, Reason> {
    exchange.worker.retries.earn();
    let (home, pool) = resolve(entry, target).ok_or(Reason::UpstreamBusy)?;
    let named = matches!(target, Some(Target::Region(_)));
    let strays = exchange.worker.config.upstreams.region_failover && !named;
    let (region, backend, pick) =
        next(exchange, entry, (&home, &pool), strays, &[]).ok_or(Reason::UpstreamBusy)?;
    exchange.record.region(&region);
    if !Arc::ptr_eq(&region, &home) {
        exchange.worker.upstreams.failovers.inc();
    }
    Ok(Upstream { region, backend, pick, tried: SmallVec::new(), retries: 0, strays })
}

/// An endpoint of the pool; else, where that is allowed, of its name in another region.
fn next(
    exchange: &Exchange,
    entry: &TenantEntry,
    (region, backend): (&Arc<Region>, &Arc<Backend>),
    strays: bool,
    tried: &[SocketAddr],
) -> Option<(Arc<Region>, Arc<Backend>, Pick)> {
    if let Some(pick) = pick(exchange, backend, tried) {
        return Some((Arc::clone(region), Arc::clone(backend), pick));
    }
    if !strays {
        return None;
    }
    others(&entry.group, region, &backend.name).find_map(|(region, backend)| {
        let pick = pick(exchange, backend, tried)?;
        Some((Arc::clone(region), Arc::clone(backend), pick))
    })
}

/// The pools of a name in the other regions of the residency group, preferred first.
fn others<'a>(
    group: &'a ResidencyGroup,
    than: &'a Arc<Region>,
    backend: &'a str,
) -> impl Iterator<Item = (&'a Arc<Region>, &'a Arc<Backend>)> {
    let regions = group.regions.iter().filter(|region| region.name != than.name);
    regions.filter_map(move |region| Some((region, region.backends.get(backend)?)))
}

fn pick(exchange: &Exchange, backend: &Arc<Backend>, tried: &[SocketAddr]) -> Option<Pick> {
    let worker = &exchange.worker;
    let random = || {
        let mut bytes = [0; 4];
        worker.random(&mut bytes);
        u32::from_ne_bytes(bytes)
    };
    let now_ms = || worker.clock.monotonic_ms();
    let roster = exchange.pinned.roster(worker, backend);
    roster.pick(&worker.config.upstreams, tried, now_ms, random)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn region(number: usize, pools: &[bool]) -> Arc<Region> {
        let pools = pools.iter().enumerate().filter(|(_, exists)| **exists);
        let backends = pools.map(|(pool, _)| {
            let name: Box<str> = format!("pool-{pool}").into();
            let endpoints = vec![SocketAddr::from(([127, 0, 0, 1], 1))];
            (name.clone(), Arc::new(Backend { name, endpoints }))
        });
        let backends = backends.collect::<BTreeMap<_, _>>();
        Arc::new(Region { name: format!("region-{number}").into(), backends })
    }

    proptest! {
        #[test]
        fn whatever_fails_only_the_residency_group_serves_each_region_once_in_its_order(
            all in prop::collection::vec(prop::collection::vec(any::<bool>(), 3), 1..8),
            members in prop::collection::btree_set(0usize..8, 1..8),
            from in 0usize..8,
            pool in 0usize..3,
        ) {
            let all: Vec<_> = all.iter().enumerate().map(|(i, pools)| region(i, pools)).collect();
            let regions: Vec<_> =
                members.iter().filter_map(|member| all.get(*member).cloned()).collect();
            prop_assume!(!regions.is_empty());
            let home = Arc::clone(&regions[from % regions.len()]);
            let group = ResidencyGroup { name: "group".into(), regions: regions.clone() };
            let pool = format!("pool-{pool}");
            let served: Vec<_> =
                others(&group, &home, &pool).map(|(region, _)| Arc::clone(region)).collect();
            let want: Vec<_> = regions
                .iter()
                .filter(|one| one.name != home.name && one.backends.contains_key(&*pool))
                .cloned()
                .collect();
            prop_assert_eq!(served, want);
        }
    }
}
