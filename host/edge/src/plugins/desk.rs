//! Where the control plane has plugins looked at: signature, manifest, compilation, probe.
//!
//! Invariant: one candidate of a scope at a time; the second is told to come back, so that
//! nobody's uploads take the compiler from others.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use model::{
    BoxFuture,
    plugin::{
        Admitted, Candidate, ComponentDigest, Inspector, PluginRecord, PluginScope, PluginTerms,
        Refusal, Rehearsed,
    },
    policy::Hooks,
    snapshot::Snapshot,
};
use sandbox::Version;
use tokio::sync::watch;

use super::{Loader, Signers, limits, probe};

/// Bytes of initial memory up to which a fresh instance is reset by memset.
const SMALL_MEMORY_BYTES: u64 = 256 << 10;

/// Looks at plugins with the sandbox of this edge.
#[derive(Clone, Debug)]
pub struct Desk(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    loader: Arc<Loader>,
    signers: Signers,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    busy: Mutex<HashSet<PluginScope>>,
}

/// A scope's turn; given back when dropped.
struct Turn<'a>(&'a Inner, PluginScope);

impl Desk {
    /// Over the versions of `loader`, for the tenants of `snapshots`.
    #[must_use]
    pub fn new(
        loader: Arc<Loader>,
        signers: Signers,
        snapshots: watch::Receiver<Arc<Snapshot>>,
    ) -> Self {
        Self(Arc::new(Inner { loader, signers, snapshots, busy: Mutex::default() }))
    }
}

impl Inspector for Desk {
    fn admit(&self, candidate: Candidate) -> BoxFuture<'static, Result<Admitted, Refusal>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.admit(candidate).await })
    }

    fn rehearse(
        &self,
        record: PluginRecord,
        terms: PluginTerms,
    ) -> BoxFuture<'static, Result<Rehearsed, Refusal>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let loaded = inner.loader.load(&record).await;
            let version = loaded.map_err(|failure| {
                let refusal = Refusal::new("plugin-does-not-load", failure.reason);
                Refusal { status: if failure.passing { 503 } else { 422 }, ..refusal }
            })?;
            inner.probe(&version, record, terms).await
        })
    }
}

impl Inner {
    async fn admit(&self, candidate: Candidate) -> Result<Admitted, Refusal> {
        let Candidate { scope, name, component, manifest, settings, signature, terms } = candidate;
        limits::check(&manifest, &terms)?;
        self.signers.check(&component, signature.as_deref())?;
        let _turn = self.turn(scope.clone())?;
        let digest = ComponentDigest::of(&component);
        let size = component.len() as u64;
        let version = self.loader.compile(component).await?;
        let record =
            PluginRecord { scope, name, number: 0, component: digest, size, manifest, settings };
        let mut probe = self.probe(&version, record, terms).await?;
        let memory_bytes = version.initial_memory_bytes();
        if memory_bytes > SMALL_MEMORY_BYTES {
            probe.log.push(format!(
                "it starts with {} KiB of memory: above {} KiB a fresh instance costs more",
                memory_bytes >> 10,
                SMALL_MEMORY_BYTES >> 10
            ));
        }
        Ok(Admitted { hooks: names(version.hooks()), memory_bytes, probe })
    }

    async fn probe(
        &self,
        version: &Arc<Version>,
        record: PluginRecord,
        terms: PluginTerms,
    ) -> Result<Rehearsed, Refusal> {
        let snapshot = Arc::clone(&self.snapshots.borrow());
        let tenant = match &record.scope {
            PluginScope::Tenant(id) => snapshot.tenant(*id).cloned(),
            PluginScope::Platform | PluginScope::Plan(_) => None,
        };
        probe::run(Arc::clone(self.loader.sandbox()), Arc::clone(version), record, terms, tenant)
            .await
    }

    fn turn(&self, scope: PluginScope) -> Result<Turn<'_>, Refusal> {
        if self.busy().insert(scope.clone()) {
            return Ok(Turn(self, scope));
        }
        let detail = "Another upload is being looked at; try again when it is done.";
        Err(Refusal { status: 429, ..Refusal::new("plugin-upload-running", detail) })
    }

    fn busy(&self) -> MutexGuard<'_, HashSet<PluginScope>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.busy().remove(&self.1);
    }
}

fn names(hooks: Hooks) -> Vec<&'static str> {
    [
        (hooks.request, "request-hook"),
        (hooks.request_body, "request-body-hook"),
        (hooks.response, "response-hook"),
    ]
    .into_iter()
    .filter_map(|(has, name)| has.then_some(name))
    .collect()
}
