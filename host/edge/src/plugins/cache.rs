//! Machine code on disk, sealed: what was compiled once is loaded in milliseconds.
//!
//! One file per component and engine; the least recently used go when there is more than
//! the bound. Invariant: a file that cannot be read, is cut short or was not sealed here
//! is as good as none.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context as _, Result};
use model::plugin::ComponentDigest;
use sandbox::{ArtefactKey, Fingerprint, LoadError, Sandbox, Version};

use super::key;

/// What the files end in.
const EXTENSION: &str = "artefact";

/// The folder of the artefacts.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    key: ArtefactKey,
    engine: Fingerprint,
    bytes_max: u64,
}

impl Cache {
    /// Opens the folder; makes it and its key when they are not there.
    pub(super) fn open(folder: PathBuf, engine: Fingerprint, bytes_max: u64) -> Result<Self> {
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let key = key::open(&folder)?;
        Ok(Self { folder, key, engine, bytes_max })
    }

    /// Loads a component that was compiled before; `None` when it has to be compiled.
    /// Blocks for some milliseconds.
    pub(super) fn load(
        &self,
        sandbox: &Sandbox,
        component: ComponentDigest,
        size: usize,
    ) -> Option<std::sync::Arc<Version>> {
        let path = self.path(component);
        let sealed = fs::read(&path).ok()?;
        let Some(verified) = self.key.open(component.0, self.engine, &sealed) else {
            tracing::warn!(%component, "an artefact was not sealed here; it is compiled again");
            let _gone = fs::remove_file(&path);
            return None;
        };
        let version = sandbox.load_precompiled(&verified, size).ok()?;
        // The time of the last use, for the choice of what goes.
        let _not_vital = fs::File::open(&path).and_then(|file| file.set_modified(now()));
        Some(version)
    }

    /// Seals code, keeps it, and loads it.
    pub(super) fn keep(
        &self,
        sandbox: &Sandbox,
        component: ComponentDigest,
        size: usize,
        code: &[u8],
    ) -> Result<std::sync::Arc<Version>, LoadError> {
        let sealed = self.key.seal(component.0, self.engine, code);
        let loaded = match self.key.open(component.0, self.engine, &sealed) {
            Some(verified) => sandbox.load_precompiled(&verified, size)?,
            None => return Err(LoadError::Compile("the seal does not hold".into())),
        };
        if let Err(error) = self.write(component, &sealed) {
            tracing::warn!(%error, "an artefact is not kept; the next start compiles it again");
        }
        Ok(loaded)
    }

    fn write(&self, component: ComponentDigest, sealed: &[u8]) -> std::io::Result<()> {
        let path = self.path(component);
        let unfinished = path.with_extension("tmp");
        fs::write(&unfinished, sealed)?;
        fs::rename(&unfinished, &path)?;
        self.shrink(&path)
    }

    /// Drops the least recently used files beyond the bound, but never the newest.
    fn shrink(&self, newest: &Path) -> std::io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == EXTENSION) {
                let about = entry.metadata()?;
                files.push((about.modified()?, about.len(), path));
            }
        }
        let mut total: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        files.sort();
        for (_, bytes, path) in files {
            if total <= self.bytes_max {
                break;
            }
            if path != newest {
                fs::remove_file(&path)?;
                total = total.saturating_sub(bytes);
            }
        }
        Ok(())
    }

    fn path(&self, component: ComponentDigest) -> PathBuf {
        let engine = self.engine.to_hex();
        let engine = engine.get(..16).unwrap_or_default();
        self.folder.join(format!("{component}-{engine}.{EXTENSION}"))
    }
}

/// File times are the system's, not the program's clock: nothing is decided by them but
/// which file goes first.
#[expect(clippy::disallowed_methods, reason = "the time of a file, compared with files only")]
fn now() -> SystemTime {
    SystemTime::now()
}
