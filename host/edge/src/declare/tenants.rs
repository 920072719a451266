//! `tenants/<slug>.toml`: what a single tenant has beside, or in place of, its plan's.

use std::{collections::BTreeMap, path::Path};

use model::{plan::ChainLink, rate::Rate, tenant::Slug};
use serde::Deserialize;

use super::{Problems, TenantRateLimit};

/// What is declared for one tenant.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TenantDeclaration {
    /// Links that its chain adds or changes.
    pub chain: Vec<ChainLink>,
    /// Its rate, in place of its plan's.
    pub rate: Option<Rate>,
    /// Rates of policies' limits, in place of those that the policies declare.
    pub rate_limit: Vec<TenantRateLimit>,
}

pub(super) fn load(problems: &mut Problems) -> BTreeMap<String, TenantDeclaration> {
    let is_toml = |path: &Path| path.extension().is_some_and(|e| e == "toml");
    let mut tenants = BTreeMap::new();
    for name in problems.entries("tenants", is_toml) {
        let file = format!("tenants/{name}");
        let slug = name.trim_end_matches(".toml");
        if let Err(error) = slug.parse::<Slug>() {
            problems.add(&file, "file name".into(), format!("is no slug: {error}"));
        }
        if let Some(read) = problems.toml(&file) {
            tenants.insert(slug.to_owned(), read);
        }
    }
    tenants
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenants_rate_is_read_and_a_bad_one_is_named_with_its_bounds() {
        let dir = tempfile::tempdir().expect("a folder");
        let write = |text| {
            std::fs::create_dir_all(dir.path().join("tenants")).expect("a folder");
            std::fs::write(dir.path().join("tenants/acme.toml"), text).expect("a file");
            let mut problems = Problems::new(dir.path());
            let tenants = load(&mut problems);
            problems.into_result(tenants)
        };
        let read = write("[rate]\nper_second = 5\nburst = 9\n").expect("no problem");
        assert_eq!(read["acme"].rate, Rate::new(5, 9));
        let found = write("[rate]\nper_second = 5\nburst = 0\n").expect_err("a problem");
        assert_eq!(found[0].key, "rate.burst");
        assert!(found[0].reason.contains("from 1 to 1000000"), "{}", found[0].reason);
    }
}
