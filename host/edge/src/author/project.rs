//! A plugin's folder: the manifest in it, and where its parts lie.
//!
//! Invariant: an opened project has a manifest that holds.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use model::manifest::{Manifest, ManifestProblem};
use serde_json::{Map, Value};

use crate::strict;

/// The manifest's file.
pub const MANIFEST: &str = "plugin.toml";
/// Folder of what is built.
pub const DIST: &str = "dist";
/// Folder of the golden cases.
pub const CASES: &str = "cases";
/// The config that `test` and `run` bind.
pub const CONFIG: &str = "config.json";
/// flagd definitions that `test` and `run` evaluate.
pub const FLAGS: &str = "flags.json";

/// A plugin's folder.
#[derive(Clone, Debug)]
pub struct Project {
    /// Absolute.
    pub dir: PathBuf,
    /// `plugin.toml`.
    pub manifest: Manifest,
}

impl Project {
    /// Opens the folder of a plugin.
    ///
    /// # Errors
    /// No manifest, or everything that is wrong with it.
    pub fn open(dir: &Path) -> Result<Self> {
        let dir = dir.canonicalize().with_context(|| dir.display().to_string())?;
        let file = dir.join(MANIFEST);
        if !file.is_file() {
            bail!(
                "{} is missing; make a project with `leanvibe-edge plugin new`, or name its folder with --dir",
                file.display()
            );
        }
        let manifest = read_manifest(&file)?;
        Ok(Self { dir, manifest })
    }

    /// Where the component is built to.
    #[must_use]
    pub fn component(&self) -> PathBuf {
        self.dir.join(DIST).join(format!("{}.wasm", self.manifest.name))
    }

    /// `config.json`, or an empty config.
    ///
    /// # Errors
    /// A file that is no JSON object.
    pub fn config(&self) -> Result<Map<String, Value>> {
        let file = self.dir.join(CONFIG);
        let Ok(text) = std::fs::read_to_string(&file) else { return Ok(Map::new()) };
        let value = strict::json_value(&text)
            .map_err(|error| anyhow::anyhow!("{CONFIG}: {}: {}", error.key, error.reason))?;
        match value {
            Value::Object(members) => Ok(members),
            _ => bail!("{CONFIG}: is no object"),
        }
    }
}

/// Reads a manifest by itself.
///
/// # Errors
/// Everything that is wrong with it, one a line.
pub fn read_manifest(file: &Path) -> Result<Manifest> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    Manifest::from_toml(&text)
        .map_err(|problems| anyhow::anyhow!(lines(&file.display().to_string(), &problems)))
}

/// Problems for a person, one a line.
#[must_use]
pub fn lines(file: &str, problems: &[ManifestProblem]) -> String {
    let line = |problem: &ManifestProblem| format!("{file}: {}: {}", problem.key, problem.reason);
    problems.iter().map(line).collect::<Vec<_>>().join("\n")
}
