//! `tenants/<slug>.toml`: what a single tenant's chain adds to its plan's.

use std::{collections::BTreeMap, path::Path};

use model::{plan::ChainLink, tenant::Slug};
use serde::Deserialize;

use super::Problems;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    chain: Vec<ChainLink>,
}

pub(super) fn load(problems: &mut Problems) -> BTreeMap<String, Vec<ChainLink>> {
    let is_toml = |path: &Path| path.extension().is_some_and(|e| e == "toml");
    let mut tenants = BTreeMap::new();
    for name in problems.entries("tenants", is_toml) {
        let file = format!("tenants/{name}");
        let slug = name.trim_end_matches(".toml");
        if let Err(error) = slug.parse::<Slug>() {
            problems.add(&file, "file name".into(), format!("is no slug: {error}"));
        }
        if let Some(read) = problems.toml::<File>(&file) {
            tenants.insert(slug.to_owned(), read.chain);
        }
    }
    tenants
}
