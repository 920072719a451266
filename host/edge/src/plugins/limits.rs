//! What a version may use and do: the defaults, its plan's terms over them, its own wishes
//! below those.

use std::sync::Arc;

use model::{
    plugin::{Budget, InstancesWish, Manifest, PluginRecord, PluginTerms, Refusal},
    problem::FieldError,
};
use sandbox::{BindingSpec, Capability, Grants, Instances, Limits, flags::Flags};
use serde_json::{Map, Value};

/// Requests that one instance serves where a manifest asks for reuse, as for the policies
/// of `policies/`.
const REUSE_REQUESTS_MAX: u32 = 1_000;

/// The binding of a record, with its config's secrets resolved.
#[must_use]
pub fn spec_of(
    record: &PluginRecord,
    terms: &PluginTerms,
    config: Map<String, Value>,
    flags: &Arc<Flags>,
) -> BindingSpec {
    BindingSpec {
        policy: record.policy_name().into(),
        config: Value::Object(config),
        grants: grants(&record.manifest, terms),
        limits: within(&within(&Limits::default(), &terms.limits), &record.manifest.limits),
        instances: match record.manifest.instances {
            InstancesWish::Fresh => Instances::Fresh,
            InstancesWish::Reuse => Instances::Reuse { requests_max: REUSE_REQUESTS_MAX },
        },
        flags: Arc::clone(flags),
        rate_limits: Arc::default(),
        origins: record.manifest.origins.iter().map(|origin| origin.as_str().into()).collect(),
    }
}

/// Refuses a manifest that asks for more than the plan allows, or for what there is not.
pub(super) fn check(manifest: &Manifest, terms: &PluginTerms) -> Result<(), Refusal> {
    let mut errors = Vec::new();
    for (at, name) in manifest.capabilities.iter().enumerate() {
        let field = format!("manifest.capabilities[{at}]");
        if let Err(unknown) = name.parse::<Capability>() {
            errors.push(FieldError { field, detail: unknown.to_string() });
        } else if !allowed(name, terms) {
            let detail = "is not among the capabilities of the plan".to_owned();
            errors.push(FieldError { field, detail });
        }
    }
    let most = within(&Limits::default(), &terms.limits);
    for (key, wanted) in manifest.limits.iter() {
        let most = value_of(&most, key);
        if wanted > most {
            let detail = format!("may be {most} at most by the plan; a plugin may only lower it");
            errors.push(FieldError { field: format!("manifest.limits.{key}"), detail });
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    let detail = "Its manifest asks for more than its plan allows.";
    Err(Refusal { errors, ..Refusal::new("plugin-manifest", detail) })
}

/// What both the manifest and the plan name; what a plan took away since is gone.
fn grants(manifest: &Manifest, terms: &PluginTerms) -> Grants {
    let named = manifest.capabilities.iter().filter(|name| allowed(name, terms));
    named.filter_map(|name| name.parse::<Capability>().ok()).collect()
}

fn allowed(name: &str, terms: &PluginTerms) -> bool {
    terms.capabilities.as_ref().is_none_or(|allowed| allowed.iter().any(|one| one == name))
}

macro_rules! keys {
    ($($key:ident),* $(,)?) => {
        /// The limits with every key that a budget says.
        fn within(limits: &Limits, budget: &Budget) -> Limits {
            let mut limits = limits.clone();
            $(if let Some(value) = budget.$key {
                limits.$key = value.try_into().unwrap_or(limits.$key);
            })*
            limits
        }

        /// The value of a key.
        fn value_of(limits: &Limits, key: &str) -> u64 {
            match key {
                $(stringify!($key) => u64::try_from(limits.$key).unwrap_or(u64::MAX),)*
                _ => 0,
            }
        }
    };
}

keys! {
    deadline_ms, wall_ms, memory_bytes, host_calls, body_bytes, response_body_bytes, fields,
    edit_bytes, log_lines, log_bytes, outbound_calls, outbound_bytes,
    outbound_ms, keyvalue_bytes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_raises_or_lowers_and_a_plugin_only_lowers() {
        let limits =
            Budget { deadline_ms: Some(80), memory_bytes: Some(1 << 20), ..Budget::default() };
        let terms = PluginTerms { limits, ..PluginTerms::default() };
        let asks = |deadline_ms, memory_bytes| Manifest {
            limits: Budget { deadline_ms, memory_bytes, ..Budget::default() },
            ..Manifest::default()
        };
        assert_eq!(check(&asks(Some(80), Some(1 << 20)), &terms), Ok(()));
        let refused = check(&asks(Some(81), Some(2 << 20)), &terms).expect_err("too much");
        let fields: Vec<_> = refused.errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, ["manifest.limits.deadline_ms", "manifest.limits.memory_bytes"]);
        let own = within(&within(&Limits::default(), &terms.limits), &asks(Some(5), None).limits);
        assert_eq!((own.deadline_ms, own.memory_bytes), (5, 1 << 20));
    }

    #[test]
    fn every_key_of_a_budget_is_one_of_the_limits() {
        for key in Budget::KEYS {
            assert!(value_of(&Limits::default(), key) > 0, "{key}");
        }
    }

    #[test]
    fn a_capability_is_granted_when_manifest_and_plan_name_it() {
        let manifest = Manifest {
            capabilities: vec!["keyvalue".into(), "telemetry".into()],
            ..Manifest::default()
        };
        let terms =
            PluginTerms { capabilities: Some(vec!["telemetry".into()]), ..PluginTerms::default() };
        let refused = check(&manifest, &terms).expect_err("too much");
        assert_eq!(refused.errors[0].field, "manifest.capabilities[0]");
        let granted = grants(&manifest, &terms);
        assert!(granted.has(Capability::Telemetry) && !granted.has(Capability::Keyvalue));
        let unknown = Manifest { capabilities: vec!["clock".into()], ..Manifest::default() };
        assert!(check(&unknown, &PluginTerms::default()).is_err());
    }
}
