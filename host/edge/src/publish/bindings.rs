//! Bound policies, one per (version, config, budget, grants, flags, limits): what did not change
//! keeps its warm instances across reloads.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use model::policy::Plugin;
use sandbox::{BindingSpec, Sandbox, Version};
use sha2::{Digest, Sha256};

type Key = [u8; 32];

/// What a binding is made of.
pub(super) struct Parts<'a> {
    /// Its code.
    pub version: &'a Arc<Version>,
    /// What it gets: the config merged, secrets resolved.
    pub spec: BindingSpec,
    /// Digest of the flag definitions' text.
    pub flags_digest: Key,
}

/// The bindings in use.
#[derive(Debug)]
pub(super) struct Bindings {
    sandbox: Arc<Sandbox>,
    by_key: HashMap<Key, Bound>,
    /// Tenant, policy and reason of bindings that failed, logged once each.
    failed: HashSet<(String, String, String)>,
    failed_before: HashSet<(String, String, String)>,
}

#[derive(Debug)]
struct Bound {
    plugin: Arc<dyn Plugin>,
    used: bool,
}

impl Bindings {
    /// None yet.
    pub(super) fn new(sandbox: Arc<Sandbox>) -> Self {
        let (failed, failed_before) = (HashSet::new(), HashSet::new());
        Self { sandbox, by_key: HashMap::new(), failed, failed_before }
    }

    /// The binding of these parts; makes it, running `configure`, when it is new.
    pub(super) async fn bind(&mut self, parts: Parts<'_>) -> Result<Arc<dyn Plugin>, String> {
        let key = key_of(&parts);
        if let Some(bound) = self.by_key.get_mut(&key) {
            bound.used = true;
            return Ok(Arc::clone(&bound.plugin));
        }
        let bound = self.sandbox.bind(parts.version, parts.spec).await;
        let plugin = bound.map_err(|error| error.to_string())?;
        self.by_key.insert(key, Bound { plugin: Arc::clone(&plugin), used: true });
        Ok(plugin)
    }

    /// Notes that one tenant's policy cannot be bound; logs it when that is news.
    pub(super) fn failed(&mut self, tenant: &str, policy: &str, reason: &str) {
        let failure = (tenant.to_owned(), policy.to_owned(), reason.to_owned());
        if !self.failed_before.contains(&failure) && !self.failed.contains(&failure) {
            tracing::error!(tenant, policy, reason, "policy cannot be bound; its calls will fail");
        }
        self.failed.insert(failure);
    }

    /// Drops what was not asked for since the last call.
    pub(super) fn forget_unused(&mut self) {
        self.failed_before = std::mem::take(&mut self.failed);
        self.by_key.retain(|_, bound| std::mem::take(&mut bound.used));
    }
}

fn key_of(parts: &Parts<'_>) -> Key {
    let spec = &parts.spec;
    let mut hash = Sha256::new();
    hash.update(parts.version.digest());
    hash.update(parts.flags_digest);
    hash.update(format!(
        "{}\n{:?}\n{:?}\n{:?}\n{:?}\n",
        spec.policy, spec.limits, spec.grants, spec.instances, spec.rate_limits
    ));
    hash.update(serde_json::to_vec(&spec.config).unwrap_or_default());
    hash.finalize().into()
}
