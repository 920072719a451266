//! The uploaded plugins that are in force: for each that the directory names, the version
//! that is loaded.
//!
//! A version that has to be compiled is loaded beside the publisher, which hears of it by
//! [`Loads`]; until then, and where it cannot be loaded, the one before stays in force.
//! Invariant: nothing here waits for a compiler but [`Uploaded::load_all`], which runs
//! before anything listens.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use model::{
    catalog::ReloadProblem,
    directory::Directory,
    plugin::{ComponentDigest, PluginName, PluginRecord, PluginScope},
    tenant::TenantId,
};
use sandbox::Version;
use tokio::sync::mpsc;

use crate::plugins::{LoadFailure, Loader};

/// How long after a store that did not answer it is asked again, in ms.
const RETRY_MS: u64 = 2_000;

type Key = (PluginScope, PluginName);

/// A record with the version that it names.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    pub(super) record: Arc<PluginRecord>,
    pub(super) version: Arc<Version>,
}

/// How the load of a version ended.
#[derive(Debug)]
pub struct Load {
    record: Arc<PluginRecord>,
    outcome: Result<Arc<Version>, LoadFailure>,
}

/// Where loads that are over are told.
pub type Loads = mpsc::UnboundedReceiver<Load>;

/// The plugins in force.
#[derive(Debug)]
pub(super) struct Uploaded {
    loader: Option<Arc<Loader>>,
    wanted: Arc<Vec<Arc<PluginRecord>>>,
    in_force: BTreeMap<Key, Loaded>,
    loading: HashSet<ComponentDigest>,
    failed: HashMap<ComponentDigest, String>,
    /// Whose plugins are others since [`Uploaded::changed`] was last asked.
    changed: BTreeSet<PluginScope>,
    // As many as there are plugins at the most: one a digest is under way.
    over: mpsc::UnboundedSender<Load>,
    by_tenant: HashMap<TenantId, Vec<Loaded>>,
    by_plan: HashMap<Box<str>, Vec<Loaded>>,
    platform: Vec<Loaded>,
}

impl Uploaded {
    /// None yet; without a loader there never are any.
    pub(super) fn new(loader: Option<Arc<Loader>>) -> (Self, Loads) {
        let (over, loads) = mpsc::unbounded_channel();
        let none = Self {
            loader,
            wanted: Arc::default(),
            in_force: BTreeMap::new(),
            loading: HashSet::new(),
            failed: HashMap::new(),
            changed: BTreeSet::new(),
            over,
            by_tenant: HashMap::new(),
            by_plan: HashMap::new(),
            platform: Vec::new(),
        };
        (none, loads)
    }

    /// Follows a directory: what is loaded or on disk is in force at once, what is not is
    /// asked for.
    pub(super) async fn follow(&mut self, directory: &Directory) {
        let Some(loader) = self.loader.clone() else { return };
        if Arc::ptr_eq(&self.wanted, &directory.plugins) {
            return;
        }
        self.wanted = Arc::clone(&directory.plugins);
        for record in self.missing() {
            if let Some(version) = loader.cached(record.component, record.size).await {
                self.enforce(record, version);
            } else if !self.failed.contains_key(&record.component)
                && self.loading.insert(record.component)
            {
                tokio::spawn(load(Arc::clone(&loader), record, self.over.clone()));
            }
        }
        self.settle();
    }

    /// The same, and waits for every version: before a start there is none to keep.
    pub(super) async fn load_all(&mut self, directory: &Directory) {
        let Some(loader) = self.loader.clone() else { return };
        self.wanted = Arc::clone(&directory.plugins);
        for record in self.missing() {
            let outcome = loader.load(&record).await;
            self.ended(Load { record, outcome });
        }
        self.settle();
    }

    /// Takes a load that is over: its version is in force if it is still wanted.
    pub(super) fn take(&mut self, load: Load) {
        self.loading.remove(&load.record.component);
        let digest = load.record.component;
        let outcome = load.outcome;
        for record in self.missing() {
            if record.component == digest {
                self.ended(Load { record, outcome: outcome.clone() });
            }
        }
        self.settle();
    }

    fn ended(&mut self, load: Load) {
        let Load { record, outcome } = load;
        match outcome {
            Ok(version) => self.enforce(record, version),
            Err(failure) => {
                let before = self.in_force.get(&key(&record)).map(|held| held.record.number);
                tracing::error!(
                    plugin = record.policy_name(),
                    version = record.number,
                    kept = before,
                    reason = failure.reason,
                    "a plugin's version cannot be loaded; the one before stays in force"
                );
                self.failed.insert(record.component, failure.reason);
            }
        }
    }

    /// What is wanted, and not in force as wanted.
    fn missing(&self) -> Vec<Arc<PluginRecord>> {
        let in_force = |record: &&Arc<PluginRecord>| {
            self.in_force.get(&key(record)).is_some_and(|held| held.record == **record)
        };
        self.wanted.iter().filter(|record| !in_force(record)).cloned().collect()
    }

    fn enforce(&mut self, record: Arc<PluginRecord>, version: Arc<Version>) {
        self.failed.remove(&record.component);
        self.changed.insert(record.scope.clone());
        self.in_force.insert(key(&record), Loaded { record, version });
    }

    /// Drops what is no longer wanted, and sorts the rest by whose it is.
    fn settle(&mut self) {
        let wanted: HashSet<Key> = self.wanted.iter().map(|record| key(record)).collect();
        let gone = self.in_force.keys().filter(|key| !wanted.contains(*key));
        self.changed.extend(gone.map(|(scope, _)| scope.clone()));
        self.in_force.retain(|key, _| wanted.contains(key));
        let digests: HashSet<_> = self.wanted.iter().map(|record| record.component).collect();
        self.failed.retain(|digest, _| digests.contains(digest));
        self.by_tenant.clear();
        self.by_plan.clear();
        self.platform.clear();
        let mut ordered: Vec<_> = self.in_force.values().cloned().collect();
        ordered.sort_by_key(|loaded| loaded.record.settings.order);
        for loaded in ordered {
            match loaded.record.scope.clone() {
                PluginScope::Tenant(id) => self.by_tenant.entry(id).or_default().push(loaded),
                PluginScope::Plan(plan) => self.by_plan.entry(plan).or_default().push(loaded),
                PluginScope::Platform => self.platform.push(loaded),
            }
        }
    }

    /// Whose plugins are others since the last time.
    pub(super) fn changed(&mut self) -> BTreeSet<PluginScope> {
        std::mem::take(&mut self.changed)
    }

    /// A tenant's own, in their order.
    pub(super) fn of_tenant(&self, tenant: TenantId) -> &[Loaded] {
        self.by_tenant.get(&tenant).map(Vec::as_slice).unwrap_or_default()
    }

    /// The operator's for tenants of a plan.
    pub(super) fn of_operator(&self, plan: &str) -> impl Iterator<Item = &Loaded> {
        self.platform.iter().chain(self.by_plan.get(plan).into_iter().flatten())
    }

    /// The versions that are wanted and could not be loaded.
    pub(super) fn problems(&self) -> Vec<ReloadProblem> {
        let failed = |record: &Arc<PluginRecord>| {
            self.failed.get(&record.component).map(|reason| ReloadProblem {
                file: "plugins".into(),
                key: format!("{} version {}", record.policy_name(), record.number),
                reason: reason.clone(),
            })
        };
        self.wanted.iter().filter_map(failed).collect()
    }
}

/// Loads a version. While only the store is away, it is asked again.
async fn load(loader: Arc<Loader>, record: Arc<PluginRecord>, over: mpsc::UnboundedSender<Load>) {
    loop {
        let outcome = loader.load(&record).await;
        if outcome.as_ref().is_err_and(|failure| failure.passing) && !over.is_closed() {
            tokio::time::sleep(Duration::from_millis(RETRY_MS)).await;
            continue;
        }
        // Nobody listens once the program ends.
        let _ended = over.send(Load { record, outcome });
        return;
    }
}

fn key(record: &PluginRecord) -> Key {
    (record.scope.clone(), record.name.clone())
}
