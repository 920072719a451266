//! Which edge this is, for the reservations that it leaves behind when it is killed.
//!
//! Invariant: the identity lies beside the other local state, so that it is the same after a
//! restart and another on another machine.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use uuid::Uuid;

/// File of the identity, in the data folder.
const FILE: &str = "edge-id";

/// The identity of the edge whose state lies in `dir`, which this process has to itself.
/// Made at the first start. Blocks on the file system.
///
/// # Errors
/// The file cannot be read or written, or holds something else.
pub(crate) fn edge_id(dir: &Path) -> Result<Uuid> {
    let path = dir.join(FILE);
    match fs::read_to_string(&path) {
        Ok(text) => Uuid::parse_str(text.trim())
            .with_context(|| format!("{} holds no id; remove it", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(&path),
        Err(error) => Err(error).with_context(|| format!("{} cannot be read", path.display())),
    }
}

/// Whole or not at all, also when the process dies in between.
fn make(path: &PathBuf) -> Result<Uuid> {
    let id = Uuid::new_v4();
    let draft = path.with_extension("new");
    fs::write(&draft, format!("{id}\n"))
        .and_then(|()| fs::rename(&draft, path))
        .with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_is_the_same_after_a_restart_and_another_elsewhere() {
        let (here, there) = (tempfile::tempdir(), tempfile::tempdir());
        let (here, there) = (here.expect("a folder"), there.expect("a folder"));
        let id = edge_id(here.path()).expect("an id");
        assert_eq!(edge_id(here.path()).expect("an id"), id);
        assert_ne!(edge_id(there.path()).expect("an id"), id);
        fs::write(here.path().join(FILE), "nobody").expect("a file");
        let error = edge_id(here.path()).expect_err("no id").to_string();
        assert!(error.contains(FILE), "{error}");
    }
}
