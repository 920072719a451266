//! The tenants of a snapshot: each joined with its plan, group, chain and ancestors.
//!
//! After a change of the directory only the tenants that changed are joined anew, and
//! those below them; after a reload all are. Either way an entry whose parts are the same
//! is kept as it is, with its meter. Invariant: both ways lead to the same entries.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use model::{
    catalog::ReloadProblem,
    directory::{Directory, Listed, TenantRecord},
    pool::{self, Drawn},
    quota::Metric,
    shards::Changes,
    snapshot::{Served, Snapshot, TenantEntry},
    tenant::{FAMILY_DEPTH_MAX, Status, TenantId},
};

use crate::declare::Declarations;

use super::chains::Chains;

/// Tenants that are joined before other tasks get their turn: about a millisecond.
const TENANTS_PER_TURN: usize = 1_024;

/// What tenants are joined from.
pub(super) struct Join<'a> {
    /// The tenants.
    pub directory: &'a Directory,
    /// The declarations.
    pub declared: &'a Declarations,
    /// The snapshot before.
    pub last: &'a Snapshot,
}

impl<'a> Join<'a> {
    /// Every tenant, or what is missing of the declarations.
    pub(super) async fn all(
        &self,
        chains: &mut Chains<'a>,
    ) -> Result<Vec<Served>, Vec<ReloadProblem>> {
        let (mut served, mut problems) = (Vec::with_capacity(self.directory.tenants.len()), vec![]);
        for (done, listed) in self.directory.tenants.iter().enumerate() {
            give_way(done).await;
            match self.entry(&listed.record, chains).await {
                Ok(entry) => served.push(of(entry, listed)),
                // A tombstone does not hold its plan or group in the declarations.
                Err(_) if listed.record.tenant.status == Status::Erased => {}
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() { Ok(served) } else { Err(problems) }
    }

    /// These tenants, as far as they are there. One whose plan or group is gone stays under
    /// the ones that it had, and is left out if it had none.
    pub(super) async fn some(
        &self,
        tenants: &BTreeSet<TenantId>,
        chains: &mut Chains<'a>,
    ) -> Vec<Served> {
        let mut served = Vec::with_capacity(tenants.len());
        let found = tenants.iter().filter_map(|id| self.directory.tenants.find(id));
        for (done, listed) in found.enumerate() {
            give_way(done).await;
            let entry = match self.entry(&listed.record, chains).await {
                Ok(entry) => Some(entry),
                Err(problem) => self.kept(&listed.record, &problem),
            };
            served.extend(entry.map(|entry| of(entry, listed)));
        }
        served
    }

    /// A tenant whose plan or group is gone: its record and status as they are now, under
    /// the plan and group that it had.
    fn kept(
        &self,
        record: &Arc<TenantRecord>,
        problem: &ReloadProblem,
    ) -> Option<Arc<TenantEntry>> {
        let last = self.last.tenant(record.tenant.id);
        let (tenant, reason) = (record.tenant.slug.as_str(), problem.reason.as_str());
        if record.tenant.status != Status::Erased {
            tracing::error!(tenant, reason, kept = last.is_some(), "tenant out of step");
        }
        let last = last?;
        let entry = TenantEntry::new(
            Arc::clone(record),
            Arc::clone(&last.plan),
            Arc::clone(&last.group),
            Arc::clone(&last.home),
            Arc::clone(&last.chain),
            ancestors(record, self.directory),
        );
        Some(Arc::new(entry.under(last.rate).in_pools(last.drawn)))
    }

    async fn entry(
        &self,
        record: &Arc<TenantRecord>,
        chains: &mut Chains<'a>,
    ) -> Result<Arc<TenantEntry>, ReloadProblem> {
        let (tenant, declared) = (&record.tenant, self.declared);
        let missing = |file: &str, what: &str, name: &str| ReloadProblem {
            file: file.into(),
            key: what.into(),
            reason: format!("`{name}` is gone, but tenant `{}` still has it", tenant.slug),
        };
        let plan = declared
            .plans
            .get(&tenant.plan)
            .ok_or_else(|| missing("plans.toml", "plan", &tenant.plan))?;
        let group = declared
            .groups
            .get(&tenant.data_residency)
            .ok_or_else(|| missing("regions.toml", "group", &tenant.data_residency))?;
        // A home that is no longer declared is as one that is down: the group's others serve.
        let home = tenant.home_region.as_deref().and_then(|home| group.region(home));
        let home = home
            .or_else(|| group.regions.first())
            .ok_or_else(|| missing("regions.toml", "group.regions", &tenant.data_residency))?;
        let chain = chains.of(plan, record).await;
        let ancestors = ancestors(record, self.directory);
        let drawn = drawn(record, &ancestors, declared);
        let own_rate = declared.tenants.get(tenant.slug.as_str()).and_then(|own| own.rate);
        if let Some(last) = self.last.tenant(tenant.id)
            && Arc::ptr_eq(&last.record, record)
            && Arc::ptr_eq(&last.plan, plan)
            && Arc::ptr_eq(&last.group, group)
            && last.chain.is_same(&chain)
            && last.rate == own_rate.or(plan.rate)
            && last.drawn == drawn
            && last.ancestors.len() == ancestors.len()
            && last.ancestors.iter().zip(&ancestors).all(|(a, b)| Arc::ptr_eq(a, b))
        {
            return Ok(Arc::clone(last));
        }
        let entry = TenantEntry::new(
            Arc::clone(record),
            Arc::clone(plan),
            Arc::clone(group),
            Arc::clone(home),
            chain,
            ancestors,
        );
        Ok(Arc::new(entry.under(own_rate).in_pools(drawn)))
    }
}

fn of(entry: Arc<TenantEntry>, listed: &Listed) -> Served {
    Served { entry, keys: Arc::clone(&listed.keys) }
}

async fn give_way(done: usize) {
    if done.is_multiple_of(TENANTS_PER_TURN) {
        tokio::task::yield_now().await;
    }
}

/// What the pools above a tenant allow. A plan of the top that is gone bounds nothing here:
/// the pool was within it when it was set.
fn drawn(
    record: &TenantRecord,
    ancestors: &[Arc<TenantRecord>],
    declared: &Declarations,
) -> [Option<Drawn>; Metric::CONSUMABLE.len()] {
    Metric::CONSUMABLE.map(|metric| {
        pool::drawn(metric, record, ancestors, |top| {
            let plan = declared.plans.get(&top.tenant.plan);
            plan.map_or(u64::MAX, |plan| plan.quotas_of(&top.tenant).of(metric))
        })
    })
}

/// The parents of a tenant upwards; a path that is too long is cut.
fn ancestors(record: &TenantRecord, directory: &Directory) -> Vec<Arc<TenantRecord>> {
    let mut path = Vec::new();
    let mut next = record.tenant.parent;
    while let Some(parent) = next.and_then(|id| directory.record(id))
        && path.len() < FAMILY_DEPTH_MAX as usize
    {
        path.push(Arc::clone(parent));
        next = parent.tenant.parent;
    }
    path
}

/// Who is below whom.
#[derive(Debug, Default)]
pub(super) struct Families {
    children: HashMap<TenantId, BTreeSet<TenantId>>,
}

impl Families {
    /// Those of a directory.
    pub(super) fn of(directory: &Directory) -> Self {
        let mut families = Self::default();
        directory.records().for_each(|record| families.join(record));
        families
    }

    /// Takes a change of the directory that was `before`; which tenants have to be joined
    /// anew: the ones that changed, and the ones below them.
    pub(super) fn take(
        &mut self,
        changes: &Changes<Listed>,
        before: &Directory,
    ) -> BTreeSet<TenantId> {
        let mut touched = BTreeSet::new();
        for listed in changes.put.iter().chain(&changes.gone) {
            let id = listed.record.tenant.id;
            before.record(id).into_iter().for_each(|record| self.leave(record));
            touched.insert(id);
        }
        changes.put.iter().for_each(|listed| self.join(&listed.record));
        let mut above: Vec<TenantId> = touched.iter().copied().collect();
        while let Some(id) = above.pop() {
            let below = self.children.get(&id).into_iter().flatten();
            above.extend(below.filter(|below| touched.insert(**below)));
        }
        touched
    }

    fn join(&mut self, record: &TenantRecord) {
        if let Some(parent) = record.tenant.parent {
            self.children.entry(parent).or_default().insert(record.tenant.id);
        }
    }

    fn leave(&mut self, record: &TenantRecord) {
        let Some(parent) = record.tenant.parent else { return };
        let Some(children) = self.children.get_mut(&parent) else { return };
        children.remove(&record.tenant.id);
        if children.is_empty() {
            self.children.remove(&parent);
        }
    }
}
