//! Joins the control plane's directory with the declarations of `policies/` into the
//! snapshot that the data plane serves from.
//!
//! One task ([`task::run`]) owns it; nothing else writes a snapshot. Invariant: a reload is taken whole
//! or not at all. A change of the declarations that does not hold leaves the last
//! snapshot in force and is reported by file, key and reason; a change of the directory
//! never fails for one tenant's fault: that tenant's policy then fails by its rule. What a
//! change of the directory costs depends on the tenants it changes, not on all there are.

mod bindings;
mod chains;
mod entries;
pub(crate) mod merge;
mod metrics;
mod plugins;
mod prepare;
pub mod task;
#[cfg(test)]
mod tests;
mod unavailable;
mod versions;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use model::{
    catalog::{Catalog, PolicyStatus, ReloadError, ReloadProblem, ReloadStatus},
    clock::{Clock, SystemClock},
    directory::{Directory, TenantRecord},
    plugin::PluginScope,
    snapshot::{Served, Snapshot},
    tenant::TenantId,
};
use sandbox::{Sandbox, SandboxConfig};
use tokio::sync::watch;

use crate::{declare::Declarations, plugins::Loader};

use self::{
    bindings::Bindings,
    chains::{Chains, PlanChains},
    entries::{Families, Join},
    plugins::Uploaded,
    versions::Versions,
};
pub use self::{
    metrics::SnapshotMetrics,
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
    /// Chains of plans, of the declarations in force.
    plan_chains: PlanChains,
    directory: Arc<Directory>,
    families: Families,
    /// The snapshot in force.
    snapshot: Arc<Snapshot>,
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
        let _all_are_joined_below = uploaded.changed();
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
            plan_chains: PlanChains::new(),
            families: Families::of(&directory),
            directory,
            snapshot: Arc::default(),
            status: ReloadStatus::default(),
        };
        let built = publisher.build().await?;
        publisher.publish_all(built);
        publisher.tell_unloaded();
        Ok(publisher)
    }

    /// Publishes declarations that were prepared. On a problem everything stays as it was.
    pub async fn take(&mut self, prepared: Result<Prepared, Vec<ReloadProblem>>) {
        match self.replace(prepared).await {
            Ok(()) => tracing::info!(snapshot = self.snapshot.version, "policies reloaded"),
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
        match self.build().await {
            Ok(built) => {
                self.status.last_error = None;
                self.publish_all(built);
                Ok(())
            }
            Err(problems) => {
                self.declared = declared_before;
                self.versions = versions_before;
                self.bindings.settle();
                Err(problems)
            }
        }
    }

    /// Takes a new directory: publishes the tenants that it changes, with those below them
    /// and those whose uploaded plugins it changes.
    pub async fn directory_changed(&mut self, directory: Arc<Directory>) {
        let changes = directory.tenants.changes_since(&self.directory.tenants);
        let touched = self.families.take(&changes, &self.directory);
        self.directory = directory;
        self.uploaded.follow(&self.directory).await;
        let gone: Vec<TenantId> =
            changes.gone.iter().map(|listed| listed.record.tenant.id).collect();
        self.rejoin(touched, &gone).await;
    }

    /// Takes the version of a plugin that was loaded beside.
    pub async fn loaded(&mut self, load: Load) {
        self.uploaded.take(load);
        self.rejoin(BTreeSet::new(), &[]).await;
        self.tell_unloaded();
    }

    /// Where [`Publisher::loaded`] is told from; once.
    pub(super) fn loads(&mut self) -> Option<Loads> {
        self.loads.take()
    }

    /// Joins these tenants anew, and those that uploaded plugins changed for.
    async fn rejoin(&mut self, mut touched: BTreeSet<TenantId>, gone: &[TenantId]) {
        for scope in self.uploaded.changed() {
            let plan = match &scope {
                PluginScope::Tenant(id) => {
                    touched.insert(*id);
                    continue;
                }
                PluginScope::Plan(plan) => Some(&**plan),
                PluginScope::Platform => None,
            };
            self.plan_chains.retain(|name, _| plan.is_some_and(|plan| plan != name));
            let of_plan =
                |record: &&Arc<TenantRecord>| plan.is_none_or(|plan| record.tenant.plan == plan);
            touched.extend(self.directory.records().filter(of_plan).map(|it| it.tenant.id));
        }
        let (bindings, by_plan) = (&mut self.bindings, &mut self.plan_chains);
        let mut chains =
            Chains::new(&self.declared, &self.versions, &self.uploaded, bindings, by_plan);
        let join =
            Join { directory: &self.directory, declared: &self.declared, last: &self.snapshot };
        let put = join.some(&touched, &mut chains).await;
        let snapshot = self.snapshot.with(self.snapshot.version + 1, put, gone);
        self.publish(snapshot);
        self.bindings.settle();
    }

    /// Shows the operator which versions could not be loaded; they were logged before.
    fn tell_unloaded(&mut self) {
        let problems = self.uploaded.problems();
        if !problems.is_empty() {
            self.status.last_error = Some(ReloadError { at: self.clock.now(), problems });
            self.channels.reload.send_replace(Arc::new(self.status.clone()));
        }
    }

    /// The folders outside `policies/` whose changes call for a reload.
    #[must_use]
    pub fn component_folders(&self) -> Vec<PathBuf> {
        self.declared.component_folders(&self.dir)
    }

    /// Joins everything anew. Changes nothing that is in force.
    async fn build(&mut self) -> Result<Built, Vec<ReloadProblem>> {
        let mut plan_chains = PlanChains::new();
        let (bindings, by_plan) = (&mut self.bindings, &mut plan_chains);
        let mut chains =
            Chains::new(&self.declared, &self.versions, &self.uploaded, bindings, by_plan);
        chains.check_declared().await;
        let join =
            Join { directory: &self.directory, declared: &self.declared, last: &self.snapshot };
        let served = join.all(&mut chains).await;
        let policies = chains.finish()?;
        Ok(Built { served: served?, policies, plan_chains })
    }

    /// Puts in force what was joined from the declarations as they now are.
    fn publish_all(&mut self, built: Built) {
        self.plan_chains = built.plan_chains;
        self.status.policies = built.policies;
        let groups = self.declared.groups.iter().map(|(name, group)| {
            (name.clone(), group.regions.iter().map(|region| region.name.to_string()).collect())
        });
        let catalog = Catalog {
            plans: self.declared.plans.clone(),
            groups: groups.collect(),
            ..Catalog::default()
        };
        self.channels.catalog.send_replace(Arc::new(catalog));
        let next = Snapshot::new(
            self.snapshot.version + 1,
            &self.base_domain,
            self.declared.plans.clone(),
            self.declared.routes.clone(),
            built.served,
        );
        self.publish(next.flagged(Some(Arc::clone(&self.declared.flags) as _)));
        let snapshot = Arc::clone(&self.snapshot);
        self.bindings.forget_tenants(|slug| snapshot.tenant_by_slug(slug).is_some());
        self.bindings.settle();
    }

    /// Puts a snapshot of the directory in force.
    fn publish(&mut self, snapshot: Snapshot) {
        self.snapshot = Arc::new(snapshot);
        self.status.snapshot_version = self.snapshot.version;
        self.status.loaded_at = self.clock.now();
        self.channels.snapshot.send_replace(Arc::clone(&self.snapshot));
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

struct Built {
    served: Vec<Served>,
    policies: Vec<PolicyStatus>,
    plan_chains: PlanChains,
}
