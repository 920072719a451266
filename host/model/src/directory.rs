//! What the control plane publishes: tenants with their keys and secrets.
//!
//! The edge joins it with the declarations of `policies/` into a [`crate::snapshot`].

use std::{collections::BTreeMap, sync::Arc};

use crate::{key::ApiKey, plugin::PluginRecord, secret::Secret, tenant::Tenant};

/// A tenant with what belongs to it alone.
#[derive(Clone, Debug)]
pub struct TenantRecord {
    /// The tenant.
    pub tenant: Tenant,
    /// Secrets that its policy configs may refer to.
    pub secrets: BTreeMap<String, Secret>,
}

/// All tenants of the installation, immutable.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    /// Rises with every published change.
    pub version: u64,
    /// Every tenant that is not a forgotten tombstone.
    pub tenants: Vec<Arc<TenantRecord>>,
    /// Every live data-plane key.
    pub keys: Vec<Arc<ApiKey>>,
    /// Every plugin that is on and has an active version, in the order of scope and name;
    /// the same allocation while none changes.
    pub plugins: Arc<Vec<Arc<PluginRecord>>>,
}
