//! Versions by their digest: in memory, else from the disk, else compiled.
//!
//! Shared by the desk and the publisher, so that what the one compiled the other finds.
//! Invariant: at most as many children compile at once as the operator allows, and a
//! version stays in memory only while somebody runs it or it was wanted just now.

use std::{
    collections::{HashMap, VecDeque},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use anyhow::Result;
use bytes::Bytes;
use control::Store;
use model::plugin::{ComponentDigest, PluginRecord, Refusal};
use sandbox::{Sandbox, Version};
use tokio::sync::Semaphore;

use super::{
    cache::Cache,
    child::{self, ChildLimits, sentence},
};

/// Versions that are kept although nobody runs them yet: those that were uploaded or
/// tried last, on their way to be active.
const RECENT_MAX: usize = 16;

/// Why a version that the directory names is not in force here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadFailure {
    /// In a sentence.
    pub reason: String,
    /// Whether another try may go better: the database was away.
    pub passing: bool,
}

/// Loads versions.
#[derive(Debug)]
pub struct Loader {
    sandbox: Arc<Sandbox>,
    store: Arc<Store>,
    cache: Arc<Cache>,
    limits: ChildLimits,
    compilers: Semaphore,
    versions: Mutex<Versions>,
}

#[derive(Debug, Default)]
struct Versions {
    loaded: HashMap<ComponentDigest, Weak<Version>>,
    recent: VecDeque<Arc<Version>>,
}

impl Loader {
    /// Over a folder for the artefacts, of `cache_bytes_max` bytes at the most.
    ///
    /// # Errors
    /// The folder or its key cannot be made.
    pub fn open(
        sandbox: Arc<Sandbox>,
        store: Arc<Store>,
        folder: PathBuf,
        cache_bytes_max: u64,
        (limits, compilers): (ChildLimits, usize),
    ) -> Result<Arc<Self>> {
        let cache = Arc::new(Cache::open(folder, sandbox.fingerprint(), cache_bytes_max)?);
        let compilers = Semaphore::new(compilers);
        let versions = Mutex::default();
        Ok(Arc::new(Self { sandbox, store, cache, limits, compilers, versions }))
    }

    pub(super) fn sandbox(&self) -> &Arc<Sandbox> {
        &self.sandbox
    }

    /// The version of a component, if that takes no compiling.
    pub async fn cached(&self, component: ComponentDigest, size: u64) -> Option<Arc<Version>> {
        if let Some(held) = self.held(component) {
            return Some(held);
        }
        let (cache, sandbox) = (Arc::clone(&self.cache), Arc::clone(&self.sandbox));
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let load = tokio::task::spawn_blocking(move || cache.load(&sandbox, component, size));
        let version = load.await.ok().flatten()?;
        self.hold(component, &version);
        Some(version)
    }

    /// The version that a record names; compiled from the store's file when it has to be.
    ///
    /// # Errors
    /// Why it cannot be loaded.
    pub async fn load(&self, record: &PluginRecord) -> Result<Arc<Version>, LoadFailure> {
        if let Some(version) = self.cached(record.component, record.size).await {
            return Ok(version);
        }
        let failure = |reason: &str, passing| LoadFailure { reason: reason.to_owned(), passing };
        let fetched = self.store.plugin_component(&record.scope, record.component).await;
        let bytes = match fetched {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Err(failure("Its component is gone from the store.", false)),
            Err(error) => {
                tracing::warn!(%error, "a plugin's component could not be fetched");
                return Err(failure("The store did not answer.", true));
            }
        };
        if ComponentDigest::of(&bytes) != record.component {
            return Err(failure("Its component in the store is not what its digest says.", false));
        }
        let compiled = self.compile(bytes).await;
        compiled.map_err(|refusal| failure(&refusal.detail, refusal.status == 503))
    }

    /// The version of a file.
    pub(super) async fn compile(&self, component: Bytes) -> Result<Arc<Version>, Refusal> {
        let (digest, size) = (ComponentDigest::of(&component), component.len());
        let _turn = self.compilers.acquire().await;
        // Perhaps whoever had the turn before compiled the same.
        if let Some(version) = self.cached(digest, size as u64).await {
            return Ok(version);
        }
        let code = child::compile(component, &self.limits).await?;
        let (cache, sandbox) = (Arc::clone(&self.cache), Arc::clone(&self.sandbox));
        let keep = move || cache.keep(&sandbox, digest, size, &code);
        let kept = tokio::task::spawn_blocking(keep).await.map_err(|error| {
            tracing::error!(%error, "a plugin's load died");
            Refusal::new("plugin-invalid", "It could not be loaded.")
        })?;
        let version =
            kept.map_err(|error| Refusal::new(error.code(), sentence(&error.to_string())))?;
        self.hold(digest, &version);
        Ok(version)
    }

    fn held(&self, component: ComponentDigest) -> Option<Arc<Version>> {
        self.versions().loaded.get(&component).and_then(Weak::upgrade)
    }

    fn hold(&self, component: ComponentDigest, version: &Arc<Version>) {
        let mut versions = self.versions();
        versions.loaded.retain(|_, version| version.strong_count() > 0);
        versions.loaded.insert(component, Arc::downgrade(version));
        versions.recent.retain(|recent| !Arc::ptr_eq(recent, version));
        versions.recent.push_back(Arc::clone(version));
        if versions.recent.len() > RECENT_MAX {
            versions.recent.pop_front();
        }
    }

    fn versions(&self) -> MutexGuard<'_, Versions> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
