//! The chain of a tenant: its plan's links with its own merged over them, bound.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use model::{
    catalog::{PolicyStatus, ReloadProblem},
    directory::TenantRecord,
    plan::{ChainLink, Plan},
    policy::{Chain, Policy},
    secret,
};
use serde_json::{Map, Value};

use crate::declare::Declarations;

use super::{
    Strictness,
    bindings::{Bindings, Parts},
    merge::merge,
    unavailable::Unavailable,
    versions::Versions,
};

/// Makes chains for one snapshot; tenants of a plan without a link of their own share
/// one.
pub(super) struct Chains<'a> {
    declared: &'a Declarations,
    versions: &'a Versions,
    bindings: &'a mut Bindings,
    strictness: Strictness,
    by_plan: HashMap<&'a str, Arc<Chain>>,
    problems: Vec<ReloadProblem>,
}

impl<'a> Chains<'a> {
    /// For one build.
    pub(super) fn new(
        declared: &'a Declarations,
        versions: &'a Versions,
        bindings: &'a mut Bindings,
        strictness: Strictness,
    ) -> Self {
        let (by_plan, problems) = (HashMap::new(), Vec::new());
        Self { declared, versions, bindings, strictness, by_plan, problems }
    }

    /// The chain of a tenant.
    pub(super) async fn of(&mut self, plan: &'a Plan, record: &TenantRecord) -> Arc<Chain> {
        let own = self.declared.tenants.get(record.tenant.slug.as_str());
        if own.is_none()
            && let Some(chain) = self.by_plan.get(plan.name.as_str())
        {
            return Arc::clone(chain);
        }
        let mut refers_to_secrets = false;
        let mut policies = Vec::new();
        for link in effective_links(&plan.chain, own.map(Vec::as_slice)) {
            let Some((policy, referred)) = self.bind(&link, plan, record).await else { continue };
            refers_to_secrets |= referred;
            policies.push(policy);
        }
        let chain = Arc::new(Chain::new(policies));
        if own.is_none() && !refers_to_secrets {
            self.by_plan.insert(&plan.name, Arc::clone(&chain));
        }
        chain
    }

    /// The status of every policy, or the problems met.
    pub(super) fn finish(self) -> Result<Vec<PolicyStatus>, Vec<ReloadProblem>> {
        if !self.problems.is_empty() {
            return Err(self.problems);
        }
        let status = |(name, policy): (&String, &crate::declare::PolicyDeclaration)| PolicyStatus {
            name: name.clone(),
            version: self
                .versions
                .of(name)
                .map(|v| v.short_digest().to_string())
                .unwrap_or_default(),
            on_failure: policy.on_failure,
            instances: match policy.instances {
                sandbox::Instances::Fresh => "fresh".into(),
                sandbox::Instances::Reuse { .. } => "reused".into(),
            },
            plans: plans_with(name, self.declared),
        };
        Ok(self.declared.policies.iter().map(status).collect())
    }

    async fn bind(
        &mut self,
        link: &ChainLink,
        plan: &Plan,
        record: &TenantRecord,
    ) -> Option<(Policy, bool)> {
        let (name, policy) = self.declared.policies.get_key_value(&link.policy)?;
        let version = self.versions.of(name)?;
        let mut config = policy.config.clone();
        merge(&mut config, &link.config);
        let (bound, referred) = match resolve(config, record) {
            Ok((config, referred)) => {
                let parts = Parts {
                    policy: name,
                    declared: policy,
                    version,
                    config,
                    flags: &self.declared.flags,
                    flags_digest: self.declared.flags_digest,
                };
                (self.bindings.bind(parts).await, referred)
            }
            Err(missing) => (Err(format!("the tenant has no secret `{missing}`")), true),
        };
        let slug = record.tenant.slug.as_str();
        let plugin = match (bound, self.strictness) {
            (Ok(plugin), _) => plugin,
            (Err(reason), Strictness::Declarations) if !referred => {
                self.problems.push(problem(name, slug, plan, self.declared, reason));
                return None;
            }
            (Err(reason), _) => {
                self.bindings.failed(slug, name, &reason);
                Arc::new(Unavailable { reason })
            }
        };
        let on_failure = link.on_failure.unwrap_or(policy.on_failure);
        let (name, version) = (name.as_str().into(), version.short_digest().into());
        Some((Policy { name, version, on_failure, plugin }, referred))
    }
}

/// The plan's links with the tenant's merged over them, in order.
fn effective_links(plan: &[ChainLink], own: Option<&[ChainLink]>) -> Vec<ChainLink> {
    let mut links: BTreeMap<&str, ChainLink> =
        plan.iter().map(|link| (link.policy.as_str(), link.clone())).collect();
    for link in own.unwrap_or_default() {
        match links.get_mut(link.policy.as_str()) {
            Some(base) => {
                base.order = link.order;
                base.enabled = link.enabled;
                base.on_failure = link.on_failure.or(base.on_failure);
                merge(&mut base.config, &link.config);
            }
            None => {
                links.insert(&link.policy, link.clone());
            }
        }
    }
    let mut links: Vec<ChainLink> = links.into_values().filter(|link| link.enabled).collect();
    links.sort_by_key(|link| link.order);
    links
}

fn resolve(
    config: Map<String, Value>,
    record: &TenantRecord,
) -> Result<(Map<String, Value>, bool), String> {
    let mut config = Value::Object(config);
    let referred = secret::resolve_references(&mut config, &record.secrets)?;
    match config {
        Value::Object(config) => Ok((config, referred)),
        other => Err(format!("the whole config, as {other}")),
    }
}

/// Names the file that an operator has to look at.
fn problem(
    policy: &str,
    slug: &str,
    plan: &Plan,
    declared: &Declarations,
    reason: String,
) -> ReloadProblem {
    let links = |links: &[ChainLink]| links.iter().position(|link| link.policy == policy);
    let own = declared.tenants.get(slug).and_then(|own| links(own));
    match (own, links(&plan.chain)) {
        (Some(i), _) => ReloadProblem {
            file: format!("tenants/{slug}.toml"),
            key: format!("chain[{i}].config"),
            reason,
        },
        (None, Some(i)) if plan.chain.get(i).is_some_and(|link| !link.config.is_empty()) => {
            ReloadProblem {
                file: "plans.toml".into(),
                key: format!("plan `{}`.chain[{i}].config", plan.name),
                reason,
            }
        }
        _ => ReloadProblem { file: format!("{policy}/config.json"), key: ".".into(), reason },
    }
}

fn plans_with(policy: &str, declared: &Declarations) -> Vec<String> {
    let has = |plan: &&Arc<Plan>| plan.chain.iter().any(|link| link.policy == policy);
    declared.plans.values().filter(has).map(|plan| plan.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn link(value: Value) -> ChainLink {
        serde_json::from_value(value).expect("a link")
    }

    #[test]
    fn a_tenants_link_merges_over_its_plans_and_order_decides() {
        let plan = [
            link(json!({"policy": "b", "order": 20, "config": {"keep": 1, "drop": 2}})),
            link(json!({"policy": "a", "order": 10, "on_failure": "open"})),
            link(json!({"policy": "c", "order": 30})),
        ];
        let own = [
            link(json!({"policy": "b", "order": 5, "config": {"drop": null, "add": 3}})),
            link(json!({"policy": "c", "order": 30, "enabled": false})),
            link(json!({"policy": "d", "order": 7})),
        ];
        let links = effective_links(&plan, Some(&own));
        let order: Vec<&str> = links.iter().map(|link| link.policy.as_str()).collect();
        assert_eq!(order, ["b", "d", "a"]);
        assert_eq!(Value::Object(links[0].config.clone()), json!({"keep": 1, "add": 3}));
        assert_eq!(links[2].on_failure, Some(model::policy::OnFailure::Open));
    }
}
