//! `plans.toml`.

use std::{collections::BTreeMap, sync::Arc};

use model::{loss::OnLoss, plan::Plan, quota::Metric};
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
        for metric in Metric::CONSUMABLE {
            if let OnLoss::Overdraft(tokens) = plan.on_authority_loss.of(metric)
                && u64::from(tokens.get()) > plan.quotas.of(metric)
            {
                let key = format!("plan[{i}].on_authority_loss.{}.overdraft", metric.as_str());
                let quota = metric.quota_name();
                let reason =
                    format!("each edge keeps so many of the quota: at most {quota} of the plan");
                problems.add(FILE, key, reason);
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
    use model::{loss::OnStorageLoss, rate::Rate};

    use super::*;

    const QUOTAS: &str = "[[plan]]\nname = \"team\"\n[plan.quotas]\nmax_users = 1\n\
        max_projects = 1\nmax_api_calls_per_month = 100\nmax_storage_mb = 1\n\
        max_ai_requests_per_day = 10\nmax_concurrent_sessions = 1\n";

    /// What a `plans.toml` of one plan with `more` says, or the keys and reasons against it.
    fn team(more: &str) -> Result<Arc<Plan>, Vec<(String, String)>> {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join(FILE), format!("{QUOTAS}{more}")).expect("a file");
        let mut problems = Problems::new(dir.path());
        let plans = load(&mut problems);
        problems
            .into_result(())
            .map(|()| Arc::clone(&plans["team"]))
            .map_err(|found| found.into_iter().map(|one| (one.key, one.reason)).collect())
    }

    fn keys(found: &[(String, String)]) -> Vec<&str> {
        found.iter().map(|(key, _)| key.as_str()).collect()
    }

    #[test]
    fn a_quota_of_a_trial_has_a_quotas_name() {
        let plan = team("[plan.trial_quotas]\nmax_projects = 7\n").expect("a plan");
        assert_eq!(plan.trial_quotas["max_projects"], 7);
        let found = team("[plan.trial_quotas]\nusers = 3\n").expect_err("a problem");
        assert_eq!(keys(&found), ["plan[0].trial_quotas.users"]);
    }

    #[test]
    fn a_rate_and_the_rules_for_a_lost_authority_are_read() {
        let plan = team(
            "[plan.rate]\nper_second = 50\nburst = 100\n[plan.on_authority_loss]\n\
             api_calls = \"allow\"\nstorage = \"allow\"\n",
        );
        let plan = plan.expect("a plan");
        assert_eq!(plan.rate, Rate::new(50, 100));
        assert_eq!(plan.on_authority_loss.of(Metric::ApiCalls), OnLoss::Allow);
        assert_eq!(plan.on_authority_loss.of(Metric::AiRequests), OnLoss::Deny);
        assert_eq!(plan.on_authority_loss.storage, OnStorageLoss::Allow);
    }

    #[test]
    fn each_bad_rule_is_named_by_its_key_with_the_fix() {
        let found = team(
            "[plan.rate]\nper_second = 0\nburst = 1\n[plan.on_authority_loss]\n\
             api_calls = { overdraft = 0 }\nai_requests = \"open\"\n\
             storage = { overdraft = 1 }\n",
        )
        .expect_err("problems");
        let loss = "plan[0].on_authority_loss";
        for (key, part) in [
            ("plan[0].rate.per_second".to_owned(), "from 1 to 1000000"),
            (format!("{loss}.api_calls"), "nonzero"),
            (format!("{loss}.ai_requests"), "expected one of `deny`, `overdraft`, `allow`"),
            (format!("{loss}.storage"), "expected `deny` or `allow`"),
        ] {
            let said = found.iter().find(|(said, _)| said.starts_with(&key));
            assert!(said.is_some_and(|(_, reason)| reason.contains(part)), "{key}: {found:?}");
        }
    }

    #[test]
    fn an_overdraft_is_part_of_the_quota() {
        let plan = team("[plan.on_authority_loss]\napi_calls = { overdraft = 100 }\n");
        let rule = plan.expect("a plan").on_authority_loss.of(Metric::ApiCalls);
        assert_eq!(rule, OnLoss::Overdraft(100.try_into().expect("not zero")));
        let found = team("[plan.on_authority_loss]\napi_calls = { overdraft = 101 }\n");
        let found = found.expect_err("a problem");
        assert_eq!(keys(&found), ["plan[0].on_authority_loss.api_calls.overdraft"]);
        assert!(found[0].1.contains("max_api_calls_per_month"), "{}", found[0].1);
    }
}
