//! A temporary `policies/` folder around one plugin: for its golden cases and its edge.
//!
//! Plans, regions and routes are those that this release ships, with the plugin as the only
//! link of every plan's chain. Invariant: nothing is written outside the temporary folder,
//! which goes with the value.

use std::{net::SocketAddr, path::Path};

use anyhow::{Context, Result, anyhow};
use tempfile::TempDir;
use toml::{Table, Value};

use super::{
    Project, asks, output,
    project::{CASES, CONFIG, FLAGS, MANIFEST, lines},
};

const PLANS: &str = include_str!("../../../../policies/plans.toml");
const REGIONS: &str = include_str!("../../../../policies/regions.toml");
const ROUTES: &str = include_str!("../../../../policies/routes.toml");
/// Place of the plugin in its chain; it is alone there.
const ORDER: i64 = 10;

/// The folder.
#[derive(Debug)]
pub struct Stage {
    dir: TempDir,
}

impl Stage {
    /// Makes the folder; `address` gives each region's upstream.
    ///
    /// # Errors
    /// Names in the manifest that there are none of, or what the file system says.
    pub fn new(project: &Project, address: impl FnMut(&str) -> SocketAddr) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("leanvibe-edge-").tempdir()?;
        let stage = Self { dir };
        let name = project.manifest.name.as_str();
        stage.write("plans.toml", &plans(name)?)?;
        stage.write("regions.toml", &regions(address)?)?;
        stage.write("routes.toml", ROUTES)?;
        stage.refresh(project)?;
        Ok(stage)
    }

    /// Takes what may change while an edge runs: manifest, config, flags, cases.
    ///
    /// # Errors
    /// As [`Stage::new`].
    pub fn refresh(&self, project: &Project) -> Result<()> {
        let name = project.manifest.name.as_str();
        self.write(&format!("{name}/policy.toml"), &policy(project)?)?;
        self.copy(project, CONFIG, &format!("{name}/{CONFIG}"))?;
        self.copy(project, FLAGS, FLAGS)?;
        let Ok(cases) = std::fs::read_dir(project.dir.join(CASES)) else { return Ok(()) };
        for case in cases {
            let case = case?.file_name().to_string_lossy().into_owned();
            let file = format!("{CASES}/{case}");
            self.copy(project, &file, &format!("{name}/{file}"))?;
        }
        Ok(())
    }

    /// The declarations.
    #[must_use]
    pub fn policies(&self) -> std::path::PathBuf {
        self.dir.path().join("policies")
    }

    /// For the edge's own state.
    #[must_use]
    pub fn data(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        output::replace(&self.policies().join(file), text.as_bytes()).map(drop)
    }

    /// Copies a file of the project when it is there.
    fn copy(&self, project: &Project, from: &str, to: &str) -> Result<()> {
        let from = project.dir.join(from);
        if !from.is_file() {
            return Ok(());
        }
        let bytes = std::fs::read(&from).with_context(|| from.display().to_string())?;
        output::replace(&self.policies().join(to), &bytes).map(drop)
    }
}

/// Names of the regions that this release ships.
///
/// # Errors
/// When the shipped file is broken; a fault of this program.
pub fn region_names() -> Result<Vec<String>> {
    let file: Table = REGIONS.parse()?;
    let regions = file.get("region").and_then(Value::as_array).context("no [[region]]")?;
    let names = regions.iter().filter_map(|region| Some(region.get("name")?.as_str()?.to_owned()));
    Ok(names.collect())
}

fn plans(policy: &str) -> Result<String> {
    let mut link = Table::new();
    link.insert("policy".into(), policy.into());
    link.insert("order".into(), ORDER.into());
    let chain = Value::Array(vec![link.into()]);
    edited(PLANS, "plan", |plan| {
        plan.insert("chain".into(), chain.clone());
    })
}

fn regions(mut address: impl FnMut(&str) -> SocketAddr) -> Result<String> {
    edited(REGIONS, "region", |region| {
        let name = region.get("name").and_then(Value::as_str).unwrap_or_default();
        let upstreams = Value::Array(vec![address(name).to_string().into()]);
        region.insert("upstreams".into(), upstreams);
    })
}

/// The document with every table of a list changed.
fn edited(text: &str, list: &str, mut edit: impl FnMut(&mut Table)) -> Result<String> {
    let mut file: Table = text.parse()?;
    let entries = file.get_mut(list).and_then(Value::as_array_mut);
    for entry in entries.into_iter().flatten().filter_map(Value::as_table_mut) {
        edit(entry);
    }
    Ok(toml::to_string(&file)?)
}

fn policy(project: &Project) -> Result<String> {
    let manifest = &project.manifest;
    let file = project.dir.join(MANIFEST);
    asks::settings(manifest)
        .map_err(|found| anyhow!(lines(&file.display().to_string(), &found)))?;
    let mut policy = Table::new();
    policy.insert("component".into(), text_of(&project.component())?.into());
    policy.insert("description".into(), manifest.description.clone().into());
    policy.insert("on_failure".into(), Value::try_from(manifest.on_failure)?);
    policy.insert("grants".into(), Value::try_from(&manifest.capabilities)?);
    policy.insert("limits".into(), Value::try_from(&manifest.limits)?);
    Ok(toml::to_string(&policy)?)
}

fn text_of(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is no UTF-8", path.display()))
}

#[cfg(test)]
mod tests {
    use model::manifest::Language;

    use super::*;
    use crate::{author::template, declare::Declarations};

    #[test]
    fn a_stage_holds_declarations_with_the_plugin_in_every_plan() {
        let dir = tempfile::tempdir().expect("a folder");
        let name = "greeter".parse().expect("a name");
        template::write(dir.path(), Language::C, &name).expect("a project");
        let project = Project::open(dir.path()).expect("a project");
        output::replace(&project.component(), b"built").expect("a file");
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
        let stage = Stage::new(&project, |_| nowhere).expect("a stage");
        let declared = Declarations::load(&stage.policies()).expect("declarations that hold");
        assert!(["developer", "team", "enterprise"].iter().all(|plan| {
            let chain = &declared.plans[*plan].chain;
            chain.len() == 1 && chain[0].policy == "greeter"
        }));
        assert_eq!(declared.policies["greeter"].limits.deadline_ms, 20);
        assert_eq!(declared.policies["greeter"].config["greeting"], "hello");
        let regions = region_names().expect("regions");
        assert!(regions.iter().any(|region| region == "eu-west-1"));
        let kept = stage.policies();
        drop(stage);
        assert!(!kept.exists());
    }
}
