//! Bound policies, one per (version, config, budget, grants, flags, limits): what did not change
//! keeps its warm instances across reloads. Invariant: only snapshots (and the chains of
//! plans in force) keep a binding alive, so that nothing unused holds slots of the sandbox.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Weak},
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

/// Names of bindings below which none is looked for that nobody uses any more.
const SWEEP_MIN: usize = 64;

/// The bindings in use.
#[derive(Debug)]
pub(super) struct Bindings {
    sandbox: Arc<Sandbox>,
    by_key: HashMap<Key, Weak<dyn Plugin>>,
    /// Those that the build under way made: its snapshot is not there yet to hold them.
    new: Vec<Arc<dyn Plugin>>,
    /// At how many the unused ones are looked for.
    sweep_at: usize,
    /// By tenant, policy and reason of its bindings that failed.
    failed: HashMap<String, Failures>,
    /// The tenant that chains are made for, and how it failed the last time.
    current: (String, Failures),
}

type Failures = HashSet<(String, String)>;

impl Bindings {
    /// None yet.
    pub(super) fn new(sandbox: Arc<Sandbox>) -> Self {
        Self {
            sandbox,
            by_key: HashMap::new(),
            new: Vec::new(),
            sweep_at: SWEEP_MIN,
            failed: HashMap::new(),
            current: Default::default(),
        }
    }

    /// The binding of these parts; makes it, running `configure`, when it is new.
    pub(super) async fn bind(&mut self, parts: Parts<'_>) -> Result<Arc<dyn Plugin>, String> {
        let key = key_of(&parts);
        if let Some(plugin) = self.by_key.get(&key).and_then(Weak::upgrade) {
            return Ok(plugin);
        }
        let bound = self.sandbox.bind(parts.version, parts.spec).await;
        let plugin = bound.map_err(|error| error.to_string())?;
        self.by_key.insert(key, Arc::downgrade(&plugin));
        self.new.push(Arc::clone(&plugin));
        Ok(plugin)
    }

    /// Begins the chain of a tenant: what fails is news if it did not fail the last time.
    pub(super) fn asked_for(&mut self, tenant: &str) {
        let before = self.failed.remove(tenant).unwrap_or_default();
        self.current = (tenant.to_owned(), before);
    }

    /// Notes that a policy of that tenant cannot be bound; logs it when that is news.
    pub(super) fn failed(&mut self, policy: &str, reason: &str) {
        let (tenant, before) = &self.current;
        let failure = (policy.to_owned(), reason.to_owned());
        if !before.contains(&failure) {
            tracing::error!(tenant, policy, reason, "policy cannot be bound; its calls will fail");
        }
        self.failed.entry(tenant.clone()).or_default().insert(failure);
    }

    /// Ends a build: what no snapshot holds from now on goes when the last request that runs
    /// it ends. Its name is forgotten once there may be as many such as others, so that a
    /// change of one tenant need not look at all of them.
    pub(super) fn settle(&mut self) {
        self.new.clear();
        if self.by_key.len() >= self.sweep_at {
            self.by_key.retain(|_, plugin| plugin.strong_count() > 0);
            self.sweep_at = SWEEP_MIN.max(2 * self.by_key.len());
        }
    }

    /// Forgets how tenants failed that are not there any more.
    pub(super) fn forget_tenants(&mut self, is_there: impl Fn(&str) -> bool) {
        self.failed.retain(|tenant, _| is_there(tenant));
    }
}

fn key_of(parts: &Parts<'_>) -> Key {
    let spec = &parts.spec;
    let mut hash = Sha256::new();
    hash.update(parts.version.digest());
    hash.update(parts.flags_digest);
    hash.update(format!(
        "{}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n",
        spec.policy, spec.limits, spec.grants, spec.instances, spec.rate_limits, spec.origins
    ));
    hash.update(serde_json::to_vec(&spec.config).unwrap_or_default());
    hash.finalize().into()
}
