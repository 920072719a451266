//! `<policy>/policy.toml` with `config.json` beside it: one policy, ready to be bound.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use model::policy::OnFailure;
use sandbox::{Grants, Instances, Limits};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::outbound::check_origin;

use super::{
    Problems,
    rate_limits::{self, RateLimit, RateLimits},
};

/// Requests that one warm instance serves before it is replaced, when a policy asks for
/// reuse: bounds what a leak in a guest can gather.
const REUSE_REQUESTS_MAX: u32 = 1_000;

/// A policy as declared.
#[derive(Clone, Debug)]
pub struct PolicyDeclaration {
    /// Its component.
    pub component: PathBuf,
    /// One line for people.
    pub description: String,
    /// What a failure means unless a chain says otherwise.
    pub on_failure: OnFailure,
    /// Fresh instance per request, or reuse for the same tenant.
    pub instances: Instances,
    /// What it may use.
    pub grants: Grants,
    /// Its budget.
    pub limits: Limits,
    /// The limits that it may count under.
    pub rate_limits: Arc<RateLimits>,
    /// The origins that it may call.
    pub origins: Arc<[Box<str>]>,
    /// Its config, before chains merge theirs over it.
    pub config: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    component: PathBuf,
    description: String,
    #[serde(default)]
    on_failure: OnFailure,
    #[serde(default)]
    instances: InstancesEntry,
    #[serde(default)]
    grants: Vec<String>,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    origins: Vec<Box<str>>,
    #[serde(default)]
    rate_limit: Vec<RateLimit>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum InstancesEntry {
    #[default]
    Fresh,
    Reuse,
}

pub(super) fn load(problems: &mut Problems) -> BTreeMap<String, PolicyDeclaration> {
    let has_policy = |path: &Path| path.join("policy.toml").is_file();
    let mut policies = BTreeMap::new();
    for name in problems.entries("", has_policy) {
        let file = format!("{name}/policy.toml");
        let config = problems.json_if_present(&format!("{name}/config.json")).unwrap_or_default();
        let Some(entry) = problems.toml::<File>(&file) else { continue };
        let component = problems.path(&name).join(&entry.component);
        if !component.is_file() {
            let reason =
                format!("{} is missing; build it with `make plugins`", component.display());
            problems.add(&file, "component".into(), reason);
        }
        let instances = match entry.instances {
            InstancesEntry::Fresh => Instances::Fresh,
            InstancesEntry::Reuse => Instances::Reuse { requests_max: REUSE_REQUESTS_MAX },
        };
        for (at, origin) in entry.origins.iter().enumerate() {
            if let Err(reason) = check_origin(origin) {
                problems.add(&file, format!("origins[{at}]"), reason);
            }
        }
        let rate_limits = rate_limits::read(problems, &file, &entry.rate_limit);
        let grants = Grants::from_names(entry.grants.iter().map(String::as_str));
        let grants = grants.unwrap_or_else(|error| {
            problems.add(&file, "grants".into(), error.to_string());
            Grants::NONE
        });
        policies.insert(
            name,
            PolicyDeclaration {
                component,
                description: entry.description,
                on_failure: entry.on_failure,
                instances,
                grants,
                limits: entry.limits,
                rate_limits: Arc::new(rate_limits),
                origins: entry.origins.into(),
                config,
            },
        );
    }
    policies
}
