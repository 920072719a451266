//! A plan: quotas, features, the policy chain and what is charged.
//!
//! Declared in `policies/plans.toml`. Read when a snapshot is built; requests see the
//! result through their tenant's entry.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    billing::Price,
    loss::OnAuthorityLoss,
    plugin::PluginTerms,
    policy::OnFailure,
    quota::Quotas,
    rate::Rate,
    tenant::{Status, Tenant},
};

/// A plan as declared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Stable name: `developer`.
    pub name: String,
    /// Quotas with the guide's names.
    pub quotas: Quotas,
    /// Quotas that stand in place of these while a tenant is in its trial, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub trial_quotas: BTreeMap<String, u64>,
    /// Entitlements; an absent feature is false.
    #[serde(default)]
    pub features: BTreeMap<String, bool>,
    /// Whether other plans' refusals may offer this one as an upgrade.
    #[serde(default = "yes")]
    pub offered: bool,
    /// Which upstream outcomes are charged against `api_calls` and `ai_requests`.
    #[serde(default)]
    pub charge_on: ChargeOn,
    /// What happens to a request when nobody can say whether its quota holds one more.
    #[serde(default, skip_serializing_if = "OnAuthorityLoss::is_default")]
    pub on_authority_loss: OnAuthorityLoss,
    /// Requests a second and at once; `None` is no such limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// The policies that run for every tenant of the plan.
    #[serde(default)]
    pub chain: Vec<ChainLink>,
    /// What it costs; `None` is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
    /// What its tenants' plugins may be and use.
    #[serde(default, skip_serializing_if = "PluginTerms::is_default")]
    pub plugins: PluginTerms,
}

impl Plan {
    /// The quotas of a tenant of this plan: those of its trial while it is in one, and its
    /// own over them.
    #[must_use]
    pub fn quotas_of(&self, tenant: &Tenant) -> Quotas {
        let mut quotas = self.quotas;
        if tenant.status == Status::Trial {
            for (name, value) in &self.trial_quotas {
                quotas.set_by_name(name, *value);
            }
        }
        tenant.effective_quotas(&quotas)
    }
}

const fn yes() -> bool {
    true
}

/// Which outcomes keep their token. A refusal by the edge or a policy never does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChargeOn {
    /// 2xx, 3xx and 4xx from the upstream; connect errors, 5xx and timeouts are refunded.
    #[default]
    Answered,
    /// Everything that was forwarded.
    Admission,
}

impl ChargeOn {
    /// Whether a forwarded request is charged; `status` is the upstream's, `None` when it
    /// never answered.
    #[must_use]
    pub fn charges(self, status: Option<http::StatusCode>) -> bool {
        match self {
            Self::Admission => true,
            Self::Answered => status.is_some_and(|status| status.as_u16() < 500),
        }
    }
}

/// One policy in a chain, as declared for a plan or a tenant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainLink {
    /// Name of a folder of `policies/`.
    pub policy: String,
    /// Position; lower runs first. Ties run in the order of their names.
    pub order: i32,
    /// What a failure of the policy means.
    #[serde(default)]
    pub on_failure: Option<OnFailure>,
    /// False takes a plan's policy out of a tenant's chain.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Merged over the policy's own config (RFC 7396).
    #[serde(default)]
    pub config: serde_json::Map<String, serde_json::Value>,
}

/// Plans strictly larger than `plan` in `metric`, smallest first: what a refusal offers.
#[must_use]
pub fn upgrade_options(
    plans: &BTreeMap<String, std::sync::Arc<Plan>>,
    limit: u64,
    metric: crate::quota::Metric,
) -> Vec<String> {
    let mut larger: Vec<_> = plans
        .values()
        .filter(|plan| plan.offered && plan.quotas.of(metric) > limit)
        .map(|plan| (plan.quotas.of(metric), plan.name.clone()))
        .collect();
    larger.sort();
    larger.into_iter().map(|(_, name)| name).collect()
}
