//! `plans.toml`.

use std::{collections::BTreeMap, sync::Arc};

use model::{plan::Plan, quota::Metric};
use serde::Deserialize;

use super::Problems;

const FILE: &str = "plans.toml";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    plan: Vec<Plan>,
}

pub(super) fn load(problems: &mut Problems) -> BTreeMap<String, Arc<Plan>> {
    let mut plans = BTreeMap::new();
    for (i, plan) in problems.toml::<File>(FILE).into_iter().flat_map(|file| file.plan).enumerate()
    {
        let name = plan.name.clone();
        let named_well = !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !named_well {
            problems.add(FILE, format!("plan[{i}].name"), "may hold only a-z, 0-9 and '-'");
        }
        for quota in plan.trial_quotas.keys() {
            if !Metric::ALL.iter().any(|metric| metric.quota_name() == quota) {
                let reason = "is no quota; the names are those of [plan.quotas]";
                problems.add(FILE, format!("plan[{i}].trial_quotas.{quota}"), reason);
            }
        }
        if plans.insert(name.clone(), Arc::new(plan)).is_some() {
            problems.add(FILE, format!("plan[{i}].name"), format!("`{name}` is declared twice"));
        }
    }
    plans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_of_a_trial_has_a_quotas_name() {
        let dir = tempfile::tempdir().expect("a folder");
        let text = "[[plan]]\nname = \"team\"\n[plan.quotas]\nmax_users = 1\nmax_projects = 1\n\
            max_api_calls_per_month = 1\nmax_storage_mb = 1\nmax_ai_requests_per_day = 1\n\
            max_concurrent_sessions = 1\n[plan.trial_quotas]\nmax_projects = 7\nusers = 3\n";
        std::fs::write(dir.path().join(FILE), text).expect("a file");
        let mut problems = Problems::new(dir.path());
        let plans = load(&mut problems);
        assert_eq!(plans["team"].trial_quotas["max_projects"], 7);
        let found = problems.into_result(()).expect_err("a problem");
        let keys: Vec<_> = found.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(keys, ["plan[0].trial_quotas.users"]);
    }
}
