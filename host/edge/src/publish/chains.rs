//! The chain of a tenant: its plan's links with its own merged over them, bound.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use model::{
    catalog::{PolicyStatus, ReloadProblem},
    directory::TenantRecord,
    plan::{ChainLink, Plan},
    plugin::{PluginScope, PluginTerms},
    policy::{Chain, Plugin, Policy},
    secret::{self, Secret},
};
use sandbox::BindingSpec;
use serde_json::{Map, Value};

use crate::{
    declare::{Declarations, TenantDeclaration},
    plugins::spec_of,
};

use super::{
    bindings::{Bindings, Parts},
    merge::merge,
    plugins::{Loaded, Uploaded},
    unavailable::Unavailable,
    versions::Versions,
};

/// The chains of plans, which tenants without a link of their own share.
pub(super) type PlanChains = HashMap<String, Arc<Chain>>;

/// Makes chains for one snapshot.
pub(super) struct Chains<'a> {
    declared: &'a Declarations,
    versions: &'a Versions,
    uploaded: &'a Uploaded,
    bindings: &'a mut Bindings,
    by_plan: &'a mut PlanChains,
    problems: Vec<ReloadProblem>,
}

impl<'a> Chains<'a> {
    /// For one build. `by_plan` holds what was made from the same declarations before.
    pub(super) fn new(
        declared: &'a Declarations,
        versions: &'a Versions,
        uploaded: &'a Uploaded,
        bindings: &'a mut Bindings,
        by_plan: &'a mut PlanChains,
    ) -> Self {
        Self { declared, versions, uploaded, bindings, by_plan, problems: Vec::new() }
    }

    /// The chain of a tenant.
    pub(super) async fn of(&mut self, plan: &Plan, record: &TenantRecord) -> Arc<Chain> {
        self.bindings.asked_for(record.tenant.slug.as_str());
        let own = self.declared.tenants.get(record.tenant.slug.as_str());
        let own = own.filter(|own| !own.chain.is_empty() || !own.rate_limit.is_empty());
        let uploads = self.uploaded.of_tenant(record.tenant.id);
        let like_its_plan = own.is_none() && uploads.is_empty();
        if like_its_plan && let Some(chain) = self.by_plan.get(plan.name.as_str()) {
            return Arc::clone(chain);
        }
        let mut refers_to_secrets = false;
        let mut policies = Vec::new();
        // A tenant's own come first: the operator has the last word.
        for upload in uploads {
            policies.push(self.upload(upload, &plan.plugins, record).await.0);
        }
        let mut operators = Vec::new();
        for link in effective_links(&plan.chain, own.map(|own| own.chain.as_slice())) {
            let (policy, referred) = self.link(&link, record).await;
            refers_to_secrets |= referred;
            operators.push((link.order, policy));
        }
        let uploaded = self.uploaded;
        for upload in uploaded.of_operator(&plan.name) {
            let (policy, referred) = self.upload(upload, &plan.plugins, record).await;
            refers_to_secrets |= referred;
            operators.push((upload.record.settings.order, policy));
        }
        operators.sort_by(|(a, one), (b, other)| (a, &one.name).cmp(&(b, &other.name)));
        policies.extend(operators.into_iter().map(|(_, policy)| policy));
        let chain = Arc::new(Chain::new(policies));
        if like_its_plan && !refers_to_secrets {
            self.by_plan.insert(plan.name.clone(), Arc::clone(&chain));
        }
        chain
    }

    /// An uploaded plugin in a tenant's chain; a failing policy where it cannot be bound.
    async fn upload(
        &mut self,
        upload: &Loaded,
        of_plan: &PluginTerms,
        record: &TenantRecord,
    ) -> (Policy, bool) {
        let Loaded { record: plugin, version } = upload;
        let name = plugin.policy_name();
        let of_platform = PluginTerms::default();
        let terms = if plugin.scope == PluginScope::Platform { &of_platform } else { of_plan };
        let bound = match resolve(plugin.settings.config.clone(), &record.secrets) {
            Err(unbound) => Err((unbound.reason, unbound.refers_to_secret)),
            Ok((config, refers)) => {
                let spec = spec_of(plugin, terms, config, &self.declared.flags);
                let flags_digest = self.declared.flags_digest;
                let parts = Parts { version, spec, flags_digest };
                let bound = self.bindings.bind(parts).await;
                bound.map(|plugin| (plugin, refers)).map_err(|reason| (reason, refers))
            }
        };
        let (code, refers): (Arc<dyn Plugin>, bool) = bound.unwrap_or_else(|(reason, refers)| {
            self.bindings.failed(&name, &reason);
            (Arc::new(Unavailable { reason }), refers)
        });
        let policy = Policy {
            name: name.into(),
            version: version.short_digest().into(),
            on_failure: plugin.on_failure(),
            plugin: code,
        };
        (policy, refers)
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

    /// Binds what can be bound without a tenant: the chains of plans, and the links of
    /// single tenants that no plan's config is merged under. Links that refer to secrets
    /// wait for their tenant.
    pub(super) async fn check_declared(&mut self) {
        for (file, key, link) in declared_links(self.declared) {
            let bound = self.bind(link, &BTreeMap::new(), None).await;
            let Err(Unbound { reason, refers_to_secret: false }) = bound else { continue };
            let (file, key) = if link.config.is_empty() {
                (format!("{}/config.json", link.policy), ".".into())
            } else {
                (file, key)
            };
            let problem = ReloadProblem { file, key, reason };
            if !self.problems.contains(&problem) {
                self.problems.push(problem);
            }
        }
    }

    /// A link of one tenant's chain; a failing policy where it cannot be bound.
    async fn link(&mut self, link: &ChainLink, record: &TenantRecord) -> (Policy, bool) {
        let slug = record.tenant.slug.as_str();
        let declared = self.declared.policies.get(&link.policy);
        let default_rule = declared.map(|policy| policy.on_failure).unwrap_or_default();
        let own = self.declared.tenants.get(slug);
        let bound = self.bind(link, &record.secrets, own).await;
        let (plugin, refers): (Arc<dyn Plugin>, bool) = match bound {
            Ok(bound) => bound,
            Err(Unbound { reason, refers_to_secret }) => {
                self.bindings.failed(&link.policy, &reason);
                (Arc::new(Unavailable { reason }), refers_to_secret)
            }
        };
        let version = self.versions.of(&link.policy).map_or("", |version| version.short_digest());
        let policy = Policy {
            name: link.policy.as_str().into(),
            version: version.into(),
            on_failure: link.on_failure.unwrap_or(default_rule),
            plugin,
        };
        (policy, refers)
    }

    /// The plugin of a link, and whether its config refers to secrets.
    async fn bind(
        &mut self,
        link: &ChainLink,
        secrets: &BTreeMap<String, Secret>,
        own: Option<&TenantDeclaration>,
    ) -> Result<(Arc<dyn Plugin>, bool), Unbound> {
        let not_there = || Unbound { reason: "is not loaded".into(), refers_to_secret: false };
        let (name, policy) =
            self.declared.policies.get_key_value(&link.policy).ok_or_else(not_there)?;
        let version = self.versions.of(name).ok_or_else(not_there)?;
        let mut config = policy.config.clone();
        merge(&mut config, &link.config);
        let (config, refers_to_secret) = resolve(config, secrets)?;
        let spec = BindingSpec {
            policy: name.as_str().into(),
            config: Value::Object(config),
            grants: policy.grants,
            limits: policy.limits.clone(),
            instances: policy.instances,
            flags: Arc::clone(&self.declared.flags),
            rate_limits: policy.rate_limits_of(name, own),
            origins: Arc::clone(&policy.origins),
        };
        let parts = Parts { version, spec, flags_digest: self.declared.flags_digest };
        let bound = self.bindings.bind(parts).await;
        let plugin = bound.map_err(|reason| Unbound { reason, refers_to_secret })?;
        Ok((plugin, refers_to_secret))
    }
}

/// Every link that stands for itself, with the file and key of its config.
fn declared_links(declared: &Declarations) -> Vec<(String, String, &ChainLink)> {
    let mut found = Vec::new();
    for plan in declared.plans.values() {
        for (i, link) in plan.chain.iter().enumerate() {
            let key = format!("plan `{}`.chain[{i}].config", plan.name);
            found.push(("plans.toml".to_owned(), key, link));
        }
    }
    let merged_under: Vec<&str> = found
        .iter()
        .filter(|(_, _, link)| !link.config.is_empty())
        .map(|(_, _, link)| link.policy.as_str())
        .collect();
    for (slug, tenant) in &declared.tenants {
        for (i, link) in tenant.chain.iter().enumerate() {
            if !merged_under.contains(&link.policy.as_str()) {
                found.push((format!("tenants/{slug}.toml"), format!("chain[{i}].config"), link));
            }
        }
    }
    found
}

/// Why a link has no plugin.
struct Unbound {
    reason: String,
    refers_to_secret: bool,
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
    secrets: &BTreeMap<String, Secret>,
) -> Result<(Map<String, Value>, bool), Unbound> {
    let unbound = |reason| Unbound { reason, refers_to_secret: true };
    let mut config = Value::Object(config);
    let referred = secret::resolve_references(&mut config, secrets)
        .map_err(|name| unbound(format!("the tenant has no secret `{name}`")))?;
    match config {
        Value::Object(config) => Ok((config, referred)),
        // Never shown: it is the secret's value.
        _ => Err(unbound("the whole config may not be a secret".into())),
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
