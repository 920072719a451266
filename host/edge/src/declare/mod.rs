//! The declarations of `policies/`: plans, regions, routes, flags, flags_digest, policies and what
//! single tenants have of their own.
//!
//! Read by the publisher at start, on a file change and on SIGHUP. Invariant: either all
//! of it is valid, or the whole change is refused with every problem named by file, key
//! and reason. To add a kind of declaration, give it a file here and a field in
//! [`Declarations`].

mod files;
mod plans;
mod policies;
mod rate_limits;
mod regions;
mod routes;
mod tenants;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use model::{plan::ChainLink, plan::Plan, region::ResidencyGroup, route::RouteTable};
use sandbox::flags::Flags;
use sha2::{Digest, Sha256};

pub use files::{Problem, Problems};
pub use policies::PolicyDeclaration;
pub use rate_limits::{RateLimits, TenantRateLimit};
pub use tenants::TenantDeclaration;

/// Everything that was declared, valid.
#[derive(Debug)]
pub struct Declarations {
    /// Plans by name.
    pub plans: BTreeMap<String, Arc<Plan>>,
    /// Residency groups by name.
    pub groups: BTreeMap<String, Arc<ResidencyGroup>>,
    /// Route classes.
    pub routes: RouteTable,
    /// Feature flags.
    pub flags: Arc<Flags>,
    /// SHA-256 of their text.
    pub flags_digest: [u8; 32],
    /// Policies by name.
    pub policies: BTreeMap<String, PolicyDeclaration>,
    /// What single tenants have beside their plans', by slug.
    pub tenants: BTreeMap<String, TenantDeclaration>,
}

impl Declarations {
    /// Reads the folder. Blocks on the file system.
    ///
    /// # Errors
    /// Every problem of every file.
    pub fn load(dir: &Path) -> Result<Self, Vec<Problem>> {
        let mut problems = Problems::new(dir);
        let plans = plans::load(&mut problems);
        let groups = regions::load(&mut problems);
        let routes = routes::load(&mut problems);
        let (flags, flags_digest) = load_flags(&mut problems);
        let policies = policies::load(&mut problems);
        let tenants = tenants::load(&mut problems);
        let declared = Self { plans, groups, routes, flags, flags_digest, policies, tenants };
        declared.check_links(&mut problems);
        rate_limits::check(&declared, &mut problems);
        problems.into_result(declared)
    }

    /// The folders outside `dir` whose changes concern these declarations: where the
    /// components are. One spelling each, because a file watch knows folders by inode.
    #[must_use]
    pub fn component_folders(&self, dir: &Path) -> Vec<PathBuf> {
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        let mut folders: Vec<PathBuf> = self
            .policies
            .values()
            .filter_map(|policy| policy.component.parent()?.canonicalize().ok())
            .filter(|folder| !folder.starts_with(&dir))
            .collect();
        folders.sort();
        folders.dedup();
        folders
    }

    /// Every link of every chain names a declared policy.
    fn check_links(&self, problems: &mut Problems) {
        let mut repeated: Vec<(String, String, String)> = Vec::new();
        let known: Vec<&str> = self.policies.keys().map(String::as_str).collect();
        let mut check = |file: &str, key: String, link: &ChainLink| {
            if !self.policies.contains_key(&link.policy) {
                let reason =
                    format!("no policy `{}`; there are: {}", link.policy, known.join(", "));
                problems.add(file, key, reason);
            }
        };
        let mut twice = |file: &str, place: &str, links: &[ChainLink]| {
            for (i, link) in links.iter().enumerate() {
                if links.iter().take(i).any(|before| before.policy == link.policy) {
                    let reason = format!("`{}` stands in this chain already", link.policy);
                    repeated.push((file.to_owned(), format!("{place}chain[{i}].policy"), reason));
                }
            }
        };
        for plan in self.plans.values() {
            twice("plans.toml", &format!("plan `{}`.", plan.name), &plan.chain);
        }
        for (slug, tenant) in &self.tenants {
            twice(&format!("tenants/{slug}.toml"), "", &tenant.chain);
        }
        for plan in self.plans.values() {
            for (i, link) in plan.chain.iter().enumerate() {
                check("plans.toml", format!("plan `{}`.chain[{i}].policy", plan.name), link);
            }
        }
        for (slug, tenant) in &self.tenants {
            for (i, link) in tenant.chain.iter().enumerate() {
                check(&format!("tenants/{slug}.toml"), format!("chain[{i}].policy"), link);
            }
        }
        for (file, key, reason) in repeated {
            problems.add(&file, key, reason);
        }
    }
}

fn load_flags(problems: &mut Problems) -> (Arc<Flags>, [u8; 32]) {
    let file = "flags.json";
    let text = problems.text_if_present(file);
    let flags = text.as_deref().map_or_else(|| Ok(Flags::default()), Flags::parse);
    let flags = flags.unwrap_or_else(|error| {
        problems.add(file, "flags".into(), error.to_string());
        Flags::default()
    });
    (Arc::new(flags), Sha256::digest(text.unwrap_or_default()).into())
}
