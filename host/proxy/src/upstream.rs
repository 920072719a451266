//! Step 8: which region and which endpoint.
//!
//! Invariant: the region is a member of the tenant's residency group, by construction:
//! nothing else is reachable from here, whatever a policy asked for. Choosing another
//! region when the home region fails belongs here too.

use std::{net::SocketAddr, sync::Arc};

use model::{
    policy::Target,
    region::{Backend, DEFAULT_BACKEND, Region},
    snapshot::TenantEntry,
};

use crate::{exchange::Exchange, rescue::Reason};

/// Where the request goes.
pub(crate) struct Upstream {
    pub(crate) region: Arc<Region>,
    pub(crate) backend: Arc<Backend>,
    pub(crate) endpoint: SocketAddr,
}

impl Upstream {
    /// Region and backend, as response hooks see them.
    pub(crate) fn name(&self) -> (Arc<str>, Box<str>) {
        (Arc::clone(&self.region.name), self.backend.name.clone())
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

/// Step 8 of the walk: home region unless a policy asked otherwise, endpoints in turn.
///
/// # Errors
/// The region has no endpoint.
pub(crate) fn choose(
    exchange: &mut Exchange,
    entry: &TenantEntry,
    target: Option<&Target>,
) -> Result<Upstream, Reason> {
    let (region, backend) = resolve(entry, target).ok_or(Reason::UpstreamBusy)?;
    let endpoint = match backend.endpoints.as_slice() {
        [] => return Err(Reason::UpstreamBusy),
        [only] => *only,
        several => {
            let turn = exchange.pinned.turn(&backend) % several.len();
            *several.get(turn).ok_or(Reason::UpstreamBusy)?
        }
    };
    exchange.record.region(&region);
    Ok(Upstream { region, backend, endpoint })
}
