//! The tenants of a snapshot. Between reloads an entry whose parts did not change is kept
//! as it is, with its meter.

use std::{collections::HashMap, sync::Arc};

use model::{
    catalog::ReloadProblem,
    directory::{Directory, TenantRecord},
    pool::{self, Drawn},
    quota::Metric,
    snapshot::TenantEntry,
    tenant::{Status, TenantId},
};

use crate::declare::Declarations;

use super::{Strictness, chains::Chains};

/// Depth of the organisation tree; a longer path of parents is cut here.
const DEPTH_MAX: usize = 8;
/// Tenants that are joined before other tasks get their turn: about a millisecond.
const TENANTS_PER_TURN: usize = 1_024;

/// The entries of the last snapshot.
#[derive(Debug, Default)]
pub(super) struct Entries {
    last: HashMap<TenantId, Arc<TenantEntry>>,
}

impl Entries {
    /// Entries for every tenant of the directory.
    pub(super) async fn build<'a>(
        &mut self,
        directory: &Directory,
        declared: &'a Declarations,
        chains: &mut Chains<'a>,
        strictness: Strictness,
    ) -> Result<Vec<Arc<TenantEntry>>, Vec<ReloadProblem>> {
        let by_id: HashMap<TenantId, &Arc<TenantRecord>> =
            directory.tenants.iter().map(|record| (record.tenant.id, record)).collect();
        let mut problems = Vec::new();
        let mut entries = HashMap::with_capacity(by_id.len());
        for (done, record) in directory.tenants.iter().enumerate() {
            if done % TENANTS_PER_TURN == 0 {
                tokio::task::yield_now().await;
            }
            match self.entry(record, &by_id, declared, chains).await {
                Ok(entry) => {
                    entries.insert(record.tenant.id, entry);
                }
                // A tombstone does not hold its plan or group in the declarations.
                Err(_) if record.tenant.status == Status::Erased => {}
                Err(problem) if strictness == Strictness::Declarations => problems.push(problem),
                Err(problem) => {
                    let kept = self.kept(record, &by_id);
                    let tenant = record.tenant.slug.as_str();
                    let reason = problem.reason.as_str();
                    tracing::error!(tenant, reason, kept = kept.is_some(), "tenant out of step");
                    entries.extend(kept.map(|entry| (record.tenant.id, entry)));
                }
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        self.last = entries;
        Ok(self.last.values().cloned().collect())
    }

    /// A tenant whose plan or group is gone: its record and status as they are now, under
    /// the plan and group that it had.
    fn kept(
        &self,
        record: &Arc<TenantRecord>,
        by_id: &HashMap<TenantId, &Arc<TenantRecord>>,
    ) -> Option<Arc<TenantEntry>> {
        let last = self.last.get(&record.tenant.id)?;
        let entry = TenantEntry::new(
            Arc::clone(record),
            Arc::clone(&last.plan),
            Arc::clone(&last.group),
            Arc::clone(&last.home),
            Arc::clone(&last.chain),
            ancestors(record, by_id),
        );
        Some(Arc::new(entry.under(last.rate).in_pools(last.drawn)))
    }

    async fn entry<'a>(
        &self,
        record: &Arc<TenantRecord>,
        by_id: &HashMap<TenantId, &Arc<TenantRecord>>,
        declared: &'a Declarations,
        chains: &mut Chains<'a>,
    ) -> Result<Arc<TenantEntry>, ReloadProblem> {
        let tenant = &record.tenant;
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
        let home = group
            .regions
            .first()
            .ok_or_else(|| missing("regions.toml", "group.regions", &tenant.data_residency))?;
        let chain = chains.of(plan, record).await;
        let ancestors = ancestors(record, by_id);
        let drawn = drawn(record, &ancestors, declared);
        let own_rate = declared.tenants.get(tenant.slug.as_str()).and_then(|own| own.rate);
        if let Some(last) = self.last.get(&tenant.id)
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

fn ancestors(
    record: &TenantRecord,
    by_id: &HashMap<TenantId, &Arc<TenantRecord>>,
) -> Vec<Arc<TenantRecord>> {
    let mut path = Vec::new();
    let mut next = record.tenant.parent;
    while let Some(parent) = next.and_then(|id| by_id.get(&id))
        && path.len() < DEPTH_MAX
    {
        path.push(Arc::clone(parent));
        next = parent.tenant.parent;
    }
    path
}
