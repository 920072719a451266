//! `[[rate_limit]]` of a policy, and of a tenant in its place: what the policy may count
//! under.
//!
//! Invariant: a policy's limit is there for every tenant or for none; a tenant changes the
//! rate of one, and adds none.

use std::{collections::BTreeMap, sync::Arc};

use model::rate::Rate;
use serde::Deserialize;

use super::{Declarations, PolicyDeclaration, Problems, TenantDeclaration};

/// Longest name of a limit, in characters.
const NAME_CHARS_MAX: usize = 64;

/// Rates by the name of their limit.
pub type RateLimits = BTreeMap<Box<str>, Rate>;

/// One limit of a policy.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Entry")]
pub(super) struct RateLimit {
    name: String,
    rate: Rate,
}

/// Another rate for one tenant.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "TenantEntry")]
pub struct TenantRateLimit {
    /// Of which policy.
    pub policy: String,
    /// Its limit.
    pub name: String,
    /// The rate in its place.
    pub rate: Rate,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    per_second: u32,
    burst: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantEntry {
    policy: String,
    name: String,
    per_second: u32,
    burst: u32,
}

const FIGURES: &str = "per_second and burst must be whole numbers from 1 to 1000000";

impl TryFrom<Entry> for RateLimit {
    type Error = &'static str;

    fn try_from(entry: Entry) -> Result<Self, &'static str> {
        let rate = Rate::new(entry.per_second, entry.burst).ok_or(FIGURES)?;
        Ok(Self { name: entry.name, rate })
    }
}

impl TryFrom<TenantEntry> for TenantRateLimit {
    type Error = &'static str;

    fn try_from(entry: TenantEntry) -> Result<Self, &'static str> {
        let rate = Rate::new(entry.per_second, entry.burst).ok_or(FIGURES)?;
        Ok(Self { policy: entry.policy, name: entry.name, rate })
    }
}

impl PolicyDeclaration {
    /// Its limits with a tenant's rates in their place.
    pub fn rate_limits_of(&self, policy: &str, own: Option<&TenantDeclaration>) -> Arc<RateLimits> {
        let own = own.map_or(&[] as &[_], |own| &own.rate_limit);
        let mut own = own.iter().filter(|limit| limit.policy == policy).peekable();
        if own.peek().is_none() {
            return Arc::clone(&self.rate_limits);
        }
        let mut limits = RateLimits::clone(&self.rate_limits);
        for limit in own {
            if let Some(rate) = limits.get_mut(limit.name.as_str()) {
                *rate = limit.rate;
            }
        }
        Arc::new(limits)
    }
}

/// A policy's limits by name.
pub(super) fn read(problems: &mut Problems, file: &str, entries: &[RateLimit]) -> RateLimits {
    let mut limits = RateLimits::new();
    for (i, RateLimit { name, rate }) in entries.iter().enumerate() {
        let key = || format!("rate_limit[{i}].name");
        let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.bytes().all(word) {
            let reason = format!("must have 1 to {NAME_CHARS_MAX} characters of a-z, 0-9 and '-'");
            problems.add(file, key(), reason);
        }
        if limits.insert(name.as_str().into(), *rate).is_some() {
            problems.add(file, key(), format!("`{name}` is declared twice"));
        }
    }
    limits
}

/// Every tenant's rate is of a limit that is there.
pub(super) fn check(declared: &Declarations, problems: &mut Problems) {
    for (slug, tenant) in &declared.tenants {
        for (i, limit) in tenant.rate_limit.iter().enumerate() {
            let file = format!("tenants/{slug}.toml");
            let TenantRateLimit { policy, name, .. } = limit;
            let Some(known) = declared.policies.get(policy) else {
                let key = format!("rate_limit[{i}].policy");
                problems.add(&file, key, format!("there is no policy `{policy}`"));
                continue;
            };
            if !known.rate_limits.contains_key(name.as_str()) {
                let names: Vec<_> = known.rate_limits.keys().map(|name| &**name).collect();
                let reason =
                    format!("`{policy}` declares no limit `{name}`; it has: {}", names.join(", "));
                problems.add(&file, format!("rate_limit[{i}].name"), reason);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    fn write(dir: &Path, policy: &str, tenant: &str) {
        for folder in ["tenants", "count"] {
            fs::create_dir_all(dir.join(folder)).expect("a folder");
        }
        fs::write(dir.join("count/count.wasm"), "").expect("a file");
        let head = "component = \"count.wasm\"\ndescription = \"Counts\"\n";
        fs::write(dir.join("count/policy.toml"), format!("{head}{policy}")).expect("a file");
        fs::write(dir.join("tenants/acme.toml"), tenant).expect("a file");
    }

    /// What is declared of `count` for acme, or the keys of what is wrong with that.
    fn limits(policy: &str, tenant: &str) -> Result<Arc<RateLimits>, Vec<(String, String)>> {
        let dir = tempfile::tempdir().expect("a folder");
        write(dir.path(), policy, tenant);
        // The other files are missing, which is not this test's business.
        let found = match Declarations::load(dir.path()) {
            Ok(_) => Vec::new(),
            Err(found) => found,
        };
        let of_limits = |key: &str| key.starts_with("rate_limit");
        let bad: Vec<_> = found
            .into_iter()
            .filter(|problem| of_limits(&problem.key))
            .map(|problem| (problem.key, problem.reason))
            .collect();
        if !bad.is_empty() {
            return Err(bad);
        }
        let mut problems = Problems::new(dir.path());
        let policies = super::super::policies::load(&mut problems);
        let tenants = super::super::tenants::load(&mut problems);
        Ok(policies["count"].rate_limits_of("count", tenants.get("acme")))
    }

    const LOGIN: &str = "[[rate_limit]]\nname = \"login\"\nper_second = 1\nburst = 5\n";

    #[test]
    fn a_tenants_rate_stands_in_the_place_of_the_policys() {
        let plain = limits(LOGIN, "").expect("limits");
        assert_eq!(plain.get("login").copied(), Rate::new(1, 5));
        let own =
            "[[rate_limit]]\npolicy = \"count\"\nname = \"login\"\nper_second = 9\nburst = 8\n";
        let own = limits(LOGIN, own).expect("limits");
        assert_eq!((own.len(), own.get("login").copied()), (1, Rate::new(9, 8)));
    }

    #[test]
    fn every_bad_limit_is_named_with_the_fix() {
        let keys = |found: Result<Arc<RateLimits>, Vec<(String, String)>>| {
            found.expect_err("a problem").into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        let twice = limits(&format!("{LOGIN}{LOGIN}"), "");
        assert_eq!(keys(twice), ["rate_limit[1].name"]);
        let named = LOGIN.replace("login", "Log in");
        assert_eq!(keys(limits(&named, "")), ["rate_limit[0].name"]);
        let zero = limits(&LOGIN.replace("burst = 5", "burst = 0"), "").expect_err("a problem");
        assert!(zero[0].1.contains("from 1 to 1000000"), "{zero:?}");
        for (policy, name, key) in [("none", "login", "policy"), ("count", "other", "name")] {
            let own = format!(
                "[[rate_limit]]\npolicy = \"{policy}\"\nname = \"{name}\"\nper_second = 1\nburst = 1\n"
            );
            let found = limits(LOGIN, &own);
            assert_eq!(keys(found), [format!("rate_limit[0].{key}")]);
        }
    }
}
