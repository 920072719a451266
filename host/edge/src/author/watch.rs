//! Notices that an author saved something.
//!
//! Invariant: what a build writes is not a change, so a rebuild never asks for another.

use std::path::{Component, Path};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::project::DIST;

/// Folders that toolchains and package managers write.
const NOT_SOURCES: [&str; 5] = [DIST, "gen", "target", "node_modules", "__pycache__"];

/// Watches a project until it is dropped.
#[derive(Debug)]
pub struct SourceWatch {
    _watcher: RecommendedWatcher,
}

impl SourceWatch {
    /// Sends `()` for every change of a source. Folders made later are not looked into.
    ///
    /// # Errors
    /// When the system refuses the watch.
    pub fn start(dir: &Path, changes: mpsc::Sender<()>) -> notify::Result<Self> {
        let root = dir.to_owned();
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                let Ok(event) = event else { return };
                let written = !matches!(event.kind, EventKind::Access(_));
                if written && event.paths.iter().any(|path| is_source(&root, path)) {
                    // A full queue holds a change already.
                    let _full = changes.try_send(());
                }
            })?;
        watcher.watch(dir, RecursiveMode::NonRecursive)?;
        let folders = std::fs::read_dir(dir).map_err(notify::Error::io)?;
        for folder in folders.flatten().map(|entry| entry.path()) {
            if folder.is_dir() && is_source(dir, &folder) {
                watcher.watch(&folder, RecursiveMode::Recursive)?;
            }
        }
        Ok(Self { _watcher: watcher })
    }
}

fn is_source(root: &Path, path: &Path) -> bool {
    let Ok(path) = path.strip_prefix(root) else { return false };
    let names = path.components().map(|component| match component {
        Component::Normal(name) => name.to_string_lossy(),
        _ => Default::default(),
    });
    let names: Vec<_> = names.collect();
    let generated = |name: &str| NOT_SOURCES.contains(&name) || name.starts_with('.');
    // cargo writes its lock file, and editors leave copies.
    let incidental = |name: &str| name == "Cargo.lock" || name.ends_with('~');
    !names.is_empty() && !names.iter().any(|name| generated(name) || incidental(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_build_writes_is_no_source() {
        let root = Path::new("/p");
        for source in ["policy.js", "src/lib.rs", "cases/a.toml", "plugin.toml", "wit/policy.wit"] {
            assert!(is_source(root, &root.join(source)), "{source}");
        }
        for other in [
            "",
            "dist/a.wasm",
            "target/x/y",
            "node_modules/a",
            ".venv/bin/x",
            "gen/a.h",
            "__pycache__/a.pyc",
            "Cargo.lock",
            ".policy.js.swp",
            "policy.js~",
        ] {
            assert!(!is_source(root, &root.join(other)), "{other}");
        }
        assert!(!is_source(root, Path::new("/elsewhere/policy.js")));
    }
}
