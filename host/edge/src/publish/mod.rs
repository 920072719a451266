//! Joins the control plane's directory with the declarations of `policies/` into the
//! snapshot that the data plane serves from.
//!
//! One task ([`task::run`]) owns it; nothing else writes a snapshot. Invariant: a reload is taken whole
//! or not at all. A change of the declarations that does not hold leaves the last
//! snapshot in force and is reported by file, key and reason; a change of the directory
//! never fails for one tenant's fault: that tenant's policy then fails by its rule.

mod bindings;
mod chains;
mod entries;
pub(crate) mod merge;
mod plugins;
mod prepare;
pub mod task;
mod unavailable;
mod versions;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use model::{
    catalog::{Catalog, PolicyStatus, ReloadError, ReloadProblem, ReloadStatus},
    clock::{Clock, SystemClock},
    directory::Directory,
    snapshot::Snapshot,
};
use sandbox::{Sandbox, SandboxConfig};
use tokio::sync::watch;

use crate::{declare::Declarations, plugins::Loader};

use self::{bindings::Bindings, entries::Entries, plugins::Uploaded, versions::Versions};
pub use self::{
    plugins::{Load, Loads},
    prepare::{Prepared, Preparer},
};

/// Where published state goes.
#[derive(Debug)]
pub struct Channels {
    /// To the data plane.
    pub snapshot: watch::Sender<Arc<Snapshot>>,
    /// To the control plane: what may be named in a tenant.
    pub catalog: watch::Sender<Arc<Catalog>>,
    /// To the control plane: how the last reload went.
    pub reload: watch::Sender<Arc<ReloadStatus>>,
    /// To the control plane: the version of the directory that the snapshot in force was
    /// built from.
    pub applied: watch::Sender<u64>,
    /// Where the versions of uploaded plugins come from; `None` where there are none.
    pub plugins: Option<Arc<Loader>>,
}

/// Builds and publishes snapshots.
#[derive(Debug)]
pub struct Publisher {
    dir: PathBuf,
    base_domain: String,
    clock: Arc<dyn Clock>,
    channels: Channels,
    declared: Declarations,
    versions: Versions,
    bindings: Bindings,
    uploaded: Uploaded,
    /// Until the task takes it.
    loads: Option<Loads>,
    entries: Entries,
    directory: Arc<Directory>,
    version: u64,
    status: ReloadStatus,
}

impl Publisher {
    /// Publishes the first snapshot, of the declarations prepared from `dir`.
    ///
    /// # Errors
    /// Every problem of the declarations; then nothing is published.
    pub async fn start(
        dir: PathBuf,
        prepared: Prepared,
        base_domain: String,
        sandbox: Arc<Sandbox>,
        clock: Arc<dyn Clock>,
        directory: Arc<Directory>,
        channels: Channels,
    ) -> Result<Self, Vec<ReloadProblem>> {
        let Prepared { declared, versions } = prepared;
        let (mut uploaded, loads) = Uploaded::new(channels.plugins.clone());
        uploaded.load_all(&directory).await;
        let mut publisher = Self {
            dir,
            base_domain,
            clock,
            channels,
            declared,
            versions,
            bindings: Bindings::new(sandbox),
            uploaded,
            loads: Some(loads),
            entries: Entries::default(),
            directory,
            version: 0,
            status: ReloadStatus::default(),
        };
        let built = publisher.build(Strictness::Declarations).await?;
        publisher.publish(built);
        publisher.tell_unloaded();
        Ok(publisher)
    }

    /// Publishes declarations that were prepared. On a problem everything stays as it was.
    pub async fn take(&mut self, prepared: Result<Prepared, Vec<ReloadProblem>>) {
        match self.replace(prepared).await {
            Ok(()) => tracing::info!(snapshot = self.version, "policies reloaded"),
            Err(problems) => self.refuse(problems),
        }
    }

    /// Publishes, or puts everything back to where it stood.
    async fn replace(
        &mut self,
        prepared: Result<Prepared, Vec<ReloadProblem>>,
    ) -> Result<(), Vec<ReloadProblem>> {
        let Prepared { declared, versions } = prepared?;
        let declared_before = std::mem::replace(&mut self.declared, declared);
        let versions_before = std::mem::replace(&mut self.versions, versions);
        match self.build(Strictness::Declarations).await {
            Ok(built) => {
                self.status.last_error = None;
                self.publish(built);
                Ok(())
            }
            Err(problems) => {
                self.declared = declared_before;
                self.versions = versions_before;
                Err(problems)
            }
        }
    }

    /// Takes a new directory.
    pub async fn directory_changed(&mut self, directory: Arc<Directory>) {
        self.directory = directory;
        self.uploaded.follow(&self.directory).await;
        self.rebuild().await;
    }

    /// Takes the version of a plugin that was loaded beside.
    pub async fn loaded(&mut self, load: Load) {
        self.uploaded.take(load);
        self.rebuild().await;
        self.tell_unloaded();
    }

    /// Shows the operator which versions could not be loaded; they were logged before.
    fn tell_unloaded(&mut self) {
        let problems = self.uploaded.problems();
        if !problems.is_empty() {
            self.status.last_error = Some(ReloadError { at: self.clock.now(), problems });
            self.channels.reload.send_replace(Arc::new(self.status.clone()));
        }
    }

    /// Where [`Publisher::loaded`] is told from; once.
    pub(super) fn loads(&mut self) -> Option<Loads> {
        self.loads.take()
    }

    async fn rebuild(&mut self) {
        match self.build(Strictness::Directory).await {
            Ok(built) => self.publish(built),
            Err(problems) => self.refuse(problems),
        }
    }

    /// The folders outside `policies/` whose changes call for a reload.
    #[must_use]
    pub fn component_folders(&self) -> Vec<PathBuf> {
        self.declared.component_folders(&self.dir)
    }

    async fn build(&mut self, strictness: Strictness) -> Result<Built, Vec<ReloadProblem>> {
        let mut chains =
            chains::Chains::new(&self.declared, &self.versions, &self.uploaded, &mut self.bindings);
        if strictness == Strictness::Declarations {
            chains.check_declared().await;
        }
        let entries =
            self.entries.build(&self.directory, &self.declared, &mut chains, strictness).await;
        let policies = chains.finish()?;
        Ok(Built { entries: entries?, policies })
    }

    fn publish(&mut self, built: Built) {
        self.bindings.forget_unused();
        self.version += 1;
        let snapshot = Snapshot::new(
            self.version,
            &self.base_domain,
            self.declared.plans.clone(),
            self.declared.routes.clone(),
            built.entries,
            &self.directory.keys,
        );
        self.status = ReloadStatus {
            snapshot_version: self.version,
            loaded_at: self.clock.now(),
            last_error: self.status.last_error.take(),
            policies: built.policies,
        };
        let groups = self.declared.groups.iter().map(|(name, group)| {
            (name.clone(), group.regions.iter().map(|region| region.name.to_string()).collect())
        });
        let catalog = Catalog {
            plans: self.declared.plans.clone(),
            groups: groups.collect(),
            ..Catalog::default()
        };
        self.channels.catalog.send_replace(Arc::new(catalog));
        self.channels.snapshot.send_replace(Arc::new(snapshot));
        self.channels.applied.send_replace(self.directory.version);
        self.channels.reload.send_replace(Arc::new(self.status.clone()));
    }

    fn refuse(&mut self, problems: Vec<ReloadProblem>) {
        for problem in &problems {
            tracing::error!(
                file = problem.file,
                key = problem.key,
                reason = problem.reason,
                "change of the policies refused; the last good state stays in force"
            );
        }
        self.status.last_error = Some(ReloadError { at: self.clock.now(), problems });
        self.channels.reload.send_replace(Arc::new(self.status.clone()));
    }
}

/// Validates the declarations as a start would, bindings included, without serving.
///
/// # Errors
/// Every problem, one a line.
pub async fn check(dir: &Path, base_domain: &str) -> anyhow::Result<()> {
    let clock = Arc::new(SystemClock::default());
    let sandbox = Sandbox::new(SandboxConfig::default(), Arc::clone(&clock) as _)?;
    let channels = Channels {
        snapshot: watch::Sender::default(),
        catalog: watch::Sender::default(),
        reload: watch::Sender::default(),
        applied: watch::Sender::default(),
        plugins: None,
    };
    let start = async {
        let prepared = Preparer::new(dir.to_owned(), Arc::clone(&sandbox)).prepare().await?;
        let (owned, base_domain) = (dir.to_owned(), base_domain.to_owned());
        Publisher::start(owned, prepared, base_domain, sandbox, clock, Arc::default(), channels)
            .await
    };
    start.await.map(drop).map_err(|problems| anyhow::anyhow!(lines(dir, &problems)))
}

/// Problems for a person, one a line.
#[must_use]
pub fn lines(dir: &Path, problems: &[ReloadProblem]) -> String {
    let line = |problem: &ReloadProblem| {
        format!("{}/{}: {}: {}", dir.display(), problem.file, problem.key, problem.reason)
    };
    problems.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Whose fault a policy that cannot be bound is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// The operator's: the change is refused.
    Declarations,
    /// One tenant's (a secret that is gone): only its policy fails.
    Directory,
}

struct Built {
    entries: Vec<Arc<model::snapshot::TenantEntry>>,
    policies: Vec<PolicyStatus>,
}
