//! Loaded component versions, one per digest: an unchanged file is not compiled again.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::Arc,
};

use model::catalog::ReloadProblem;
use sandbox::{Sandbox, Version};
use sha2::{Digest, Sha256};

use crate::declare::PolicyDeclaration;

type Key = [u8; 32];

/// At which version each policy stands.
#[derive(Debug, Default)]
pub(super) struct Standing(HashMap<String, Key>);

/// The versions in use.
#[derive(Debug)]
pub(super) struct Versions {
    sandbox: Arc<Sandbox>,
    by_digest: HashMap<Key, Arc<Version>>,
    by_policy: HashMap<String, Key>,
}

impl Versions {
    /// None yet.
    pub(super) fn new(sandbox: Arc<Sandbox>) -> Self {
        Self { sandbox, by_digest: HashMap::new(), by_policy: HashMap::new() }
    }

    /// The version that a policy stands at.
    pub(super) fn of(&self, policy: &str) -> Option<&Arc<Version>> {
        self.by_digest.get(self.by_policy.get(policy)?)
    }

    /// Loads the component of every policy; compiles the ones not seen before, off the
    /// async threads. Changes nothing: [`Versions::stand`] does.
    pub(super) async fn load_all(
        &mut self,
        policies: &BTreeMap<String, PolicyDeclaration>,
    ) -> Result<Standing, Vec<ReloadProblem>> {
        let mut problems = Vec::new();
        let mut by_policy = HashMap::new();
        for (name, policy) in policies {
            match self.load(&policy.component).await {
                Ok(key) => {
                    by_policy.insert(name.clone(), key);
                }
                Err(reason) => problems.push(ReloadProblem {
                    file: format!("{name}/policy.toml"),
                    key: "component".into(),
                    reason: format!("{}: {reason}", policy.component.display()),
                }),
            }
        }
        if problems.is_empty() { Ok(Standing(by_policy)) } else { Err(problems) }
    }

    /// Puts the policies at these versions; gives back where they stood.
    pub(super) fn stand(&mut self, at: Standing) -> Standing {
        Standing(std::mem::replace(&mut self.by_policy, at.0))
    }

    /// Drops the versions that no policy stands at any more.
    pub(super) fn forget_unused(&mut self) {
        let used: Vec<Key> = self.by_policy.values().copied().collect();
        self.by_digest.retain(|key, _| used.contains(key));
    }

    async fn load(&mut self, path: &Path) -> Result<Key, String> {
        let sandbox = Arc::clone(&self.sandbox);
        let path = path.to_owned();
        let known: Vec<Key> = self.by_digest.keys().copied().collect();
        let work = move || -> Result<(Key, Option<Arc<Version>>), String> {
            let bytes = std::fs::read(&path).map_err(|error| error.to_string())?;
            let key: Key = Sha256::digest(&bytes).into();
            if known.contains(&key) {
                return Ok((key, None));
            }
            let version = sandbox.load(&bytes).map_err(|error| error.to_string())?;
            Ok((key, Some(version)))
        };
        let (key, version) =
            tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())??;
        if let Some(version) = version {
            self.by_digest.insert(key, version);
        }
        Ok(key)
    }
}
