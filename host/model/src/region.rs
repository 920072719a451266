//! Regions and residency groups: where a tenant's requests may go.
//!
//! Declared in `policies/regions.toml`; read on every forwarded request. Invariant: a
//! tenant's region is always a member of its group; nothing a policy says changes the
//! group.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

/// A region and the upstream pools in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Name: `eu-central-1`.
    pub name: Arc<str>,
    /// Upstream pools by name; the one called `default` always exists.
    pub backends: BTreeMap<Box<str>, Arc<Backend>>,
}

/// The name of the pool that serves a region when no policy asks for another.
pub const DEFAULT_BACKEND: &str = "default";

/// One upstream pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Backend {
    /// Name within its region.
    pub name: Box<str>,
    /// Where it listens; never empty.
    pub endpoints: Vec<SocketAddr>,
}

/// The set of regions that a tenant's data may touch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResidencyGroup {
    /// Name: `eu`.
    pub name: Arc<str>,
    /// Members, preferred first; never empty.
    pub regions: Vec<Arc<Region>>,
}

impl ResidencyGroup {
    /// The member called `name`.
    #[must_use]
    pub fn region(&self, name: &str) -> Option<&Arc<Region>> {
        self.regions.iter().find(|region| &*region.name == name)
    }
}
