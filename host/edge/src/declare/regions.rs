//! `regions.toml`: regions with their upstreams, and the residency groups over them.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use model::region::{Backend, DEFAULT_BACKEND, Region, ResidencyGroup};
use serde::Deserialize;

use super::Problems;

const FILE: &str = "regions.toml";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    region: Vec<RegionEntry>,
    group: Vec<GroupEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RegionEntry {
    name: String,
    upstreams: Vec<SocketAddr>,
    #[serde(default)]
    backends: BTreeMap<String, Vec<SocketAddr>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupEntry {
    name: String,
    regions: Vec<String>,
}

pub(super) fn load(problems: &mut Problems) -> BTreeMap<String, Arc<ResidencyGroup>> {
    let Some(file) = problems.toml::<File>(FILE) else { return BTreeMap::new() };
    let regions = regions(file.region, problems);
    groups(file.group, &regions, problems)
}

fn regions(entries: Vec<RegionEntry>, problems: &mut Problems) -> BTreeMap<String, Arc<Region>> {
    let mut regions = BTreeMap::new();
    for (i, entry) in entries.into_iter().enumerate() {
        let mut pools = entry.backends;
        if pools.insert(DEFAULT_BACKEND.into(), entry.upstreams).is_some() {
            let reason = "`default` is what `upstreams` declares; give this one another name";
            problems.add(FILE, format!("region[{i}].backends.default"), reason);
        }
        for (pool, _) in pools.iter().filter(|(_, endpoints)| endpoints.is_empty()) {
            let key = if pool == DEFAULT_BACKEND {
                "upstreams".into()
            } else {
                format!("backends.{pool}")
            };
            problems.add(FILE, format!("region[{i}].{key}"), "needs at least one address");
        }
        let backends = pools
            .into_iter()
            .map(|(name, endpoints)| {
                let name: Box<str> = name.into();
                (name.clone(), Arc::new(Backend { name, endpoints }))
            })
            .collect();
        let region = Region { name: entry.name.as_str().into(), backends };
        if regions.insert(entry.name.clone(), Arc::new(region)).is_some() {
            let reason = format!("`{}` is declared twice", entry.name);
            problems.add(FILE, format!("region[{i}].name"), reason);
        }
    }
    regions
}

fn groups(
    entries: Vec<GroupEntry>,
    regions: &BTreeMap<String, Arc<Region>>,
    problems: &mut Problems,
) -> BTreeMap<String, Arc<ResidencyGroup>> {
    let mut groups = BTreeMap::new();
    for (i, entry) in entries.into_iter().enumerate() {
        let mut members = Vec::new();
        for (j, name) in entry.regions.iter().enumerate() {
            match regions.get(name) {
                Some(region) => members.push(Arc::clone(region)),
                None => {
                    let key = format!("group[{i}].regions[{j}]");
                    problems.add(FILE, key, format!("no region `{name}` is declared"));
                }
            }
        }
        if entry.regions.is_empty() {
            problems.add(FILE, format!("group[{i}].regions"), "needs at least one region");
        }
        let group = ResidencyGroup { name: entry.name.as_str().into(), regions: members };
        if groups.insert(entry.name.clone(), Arc::new(group)).is_some() {
            let reason = format!("`{}` is declared twice", entry.name);
            problems.add(FILE, format!("group[{i}].name"), reason);
        }
    }
    groups
}
