//! Compiled components, one per digest: an unchanged file is not compiled again.
//!
//! Used by [`super::prepare`], beside the publisher. Invariant: a version is remembered
//! only while somebody holds it, so what a refused reload compiled goes with it.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::{Arc, Weak},
};

use model::catalog::ReloadProblem;
use sandbox::{Sandbox, Version};
use sha2::{Digest, Sha256};

use crate::declare::PolicyDeclaration;

type Key = [u8; 32];

/// At which version each policy stands.
#[derive(Debug, Default)]
pub(super) struct Versions(HashMap<String, Arc<Version>>);

impl Versions {
    /// The version that a policy stands at.
    pub(super) fn of(&self, policy: &str) -> Option<&Arc<Version>> {
        self.0.get(policy)
    }
}

/// Loads components.
#[derive(Debug)]
pub(super) struct Loader {
    sandbox: Arc<Sandbox>,
    loaded: HashMap<Key, Weak<Version>>,
}

impl Loader {
    /// Knows none yet.
    pub(super) fn new(sandbox: Arc<Sandbox>) -> Self {
        Self { sandbox, loaded: HashMap::new() }
    }

    /// Loads the component of every policy; compiles the ones that nobody holds, off the
    /// async threads.
    pub(super) async fn load_all(
        &mut self,
        policies: &BTreeMap<String, PolicyDeclaration>,
    ) -> Result<Versions, Vec<ReloadProblem>> {
        let mut problems = Vec::new();
        let mut versions = HashMap::new();
        for (name, policy) in policies {
            match self.load(&policy.component).await {
                Ok(version) => drop(versions.insert(name.clone(), version)),
                Err(reason) => problems.push(ReloadProblem {
                    file: format!("{name}/policy.toml"),
                    key: "component".into(),
                    reason: format!("{}: {reason}", policy.component.display()),
                }),
            }
        }
        self.loaded.retain(|_, version| version.strong_count() > 0);
        if problems.is_empty() { Ok(Versions(versions)) } else { Err(problems) }
    }

    async fn load(&mut self, path: &Path) -> Result<Arc<Version>, String> {
        let sandbox = Arc::clone(&self.sandbox);
        let path = path.to_owned();
        let loaded = self.loaded.clone();
        let work = move || -> Result<(Key, Arc<Version>), String> {
            let bytes = std::fs::read(&path).map_err(|error| error.to_string())?;
            let key: Key = Sha256::digest(&bytes).into();
            if let Some(version) = loaded.get(&key).and_then(Weak::upgrade) {
                return Ok((key, version));
            }
            let version = sandbox.load(&bytes).map_err(|error| error.to_string())?;
            Ok((key, version))
        };
        let (key, version) =
            tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())??;
        self.loaded.insert(key, Arc::downgrade(&version));
        Ok(version)
    }
}
