//! `plans.toml`.

use std::{collections::BTreeMap, sync::Arc};

use model::plan::Plan;
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
        if plans.insert(name.clone(), Arc::new(plan)).is_some() {
            problems.add(FILE, format!("plan[{i}].name"), format!("`{name}` is declared twice"));
        }
    }
    plans
}
