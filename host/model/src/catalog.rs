//! What the declarations of `policies/` currently offer, and how their last load went.
//!
//! Filled by the edge on every reload, read by the control API: which plans and
//! residency groups a tenant may name, and what an operator sees of the policies.
//!
//! Invariant: it describes the snapshot in force, never a refused one.

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;

use crate::{clock::UnixMs, plan::Plan, policy::OnFailure, quota::Quotas, tenant::Tenant};

/// What tenants may be given.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// Plans by name.
    pub plans: BTreeMap<String, Arc<Plan>>,
    /// The version of each plan's content; a content that is not recorded yet has none.
    pub plan_versions: BTreeMap<String, u64>,
    /// Names of each residency group's regions, preferred first.
    pub groups: BTreeMap<String, Vec<String>>,
}

impl Catalog {
    /// The quotas in force for a tenant; `None` when its plan is not declared.
    #[must_use]
    pub fn quotas_of(&self, tenant: &Tenant) -> Option<Quotas> {
        self.plans.get(&tenant.plan).map(|plan| tenant.effective_quotas(&plan.quotas))
    }
}

/// How the declarations in force came to be, and why newer ones did not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReloadStatus {
    /// Version of the snapshot in force.
    pub snapshot_version: u64,
    /// When it was built.
    pub loaded_at: UnixMs,
    /// The last refused load, unless a later one succeeded.
    pub last_error: Option<ReloadError>,
    /// The policies in force, by name.
    pub policies: Vec<PolicyStatus>,
}

/// A load that was refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReloadError {
    /// When.
    pub at: UnixMs,
    /// Everything that is wrong.
    pub problems: Vec<ReloadProblem>,
}

/// One thing that is wrong with a declaration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReloadProblem {
    /// File, relative to the policies folder.
    pub file: String,
    /// Key inside it, empty for the file as a whole.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

/// A policy in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyStatus {
    /// Name of its folder.
    pub name: String,
    /// First 12 hex digits of the component's SHA-256.
    pub version: String,
    /// What its failure means.
    pub on_failure: OnFailure,
    /// How instances are used: `fresh` per request, or `reused` by the same tenant.
    pub instances: String,
    /// Plans whose chains hold it.
    pub plans: Vec<String>,
}
