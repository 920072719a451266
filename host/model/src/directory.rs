//! What the control plane publishes: tenants with their keys and secrets.
//!
//! The edge joins it with the declarations of `policies/` into a [`crate::snapshot`].
//! Invariant: a published directory never changes; the next one shares with it every
//! tenant that is the same.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    key::ApiKey,
    plugin::PluginRecord,
    pool::Places,
    secret::Secret,
    shards::{Keyed, Shards},
    tenant::{Tenant, TenantId},
};

/// A tenant with what belongs to it alone.
#[derive(Clone, Debug)]
pub struct TenantRecord {
    /// The tenant.
    pub tenant: Tenant,
    /// Secrets that its policy configs may refer to.
    pub secrets: BTreeMap<String, Secret>,
    /// Where it stands in pools of tokens.
    pub pools: Places,
}

/// A tenant of the directory.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The tenant.
    pub record: Arc<TenantRecord>,
    /// Its live data-plane keys.
    pub keys: Arc<[Arc<ApiKey>]>,
}

impl Keyed for Listed {
    type Key = TenantId;

    fn key(&self) -> &TenantId {
        &self.record.tenant.id
    }

    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.record, &other.record) && Arc::ptr_eq(&self.keys, &other.keys)
    }
}

/// All tenants of the installation, immutable.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    /// Rises with every published change.
    pub version: u64,
    /// Every tenant that is not a forgotten tombstone.
    pub tenants: Shards<Listed>,
    /// Every plugin that is on and has an active version, in the order of scope and name;
    /// the same allocation while none changes.
    pub plugins: Arc<Vec<Arc<PluginRecord>>>,
}

impl Directory {
    /// The tenant of an id.
    #[must_use]
    pub fn record(&self, id: TenantId) -> Option<&Arc<TenantRecord>> {
        self.tenants.find(&id).map(|listed| &listed.record)
    }

    /// Every tenant, in no order.
    pub fn records(&self) -> impl Iterator<Item = &Arc<TenantRecord>> {
        self.tenants.iter().map(|listed| &listed.record)
    }

    /// Every live data-plane key, in no order.
    pub fn keys(&self) -> impl Iterator<Item = &Arc<ApiKey>> {
        self.tenants.iter().flat_map(|listed| listed.keys.iter())
    }
}
