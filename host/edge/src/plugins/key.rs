//! The key that this edge seals machine code with: 32 random bytes in the data folder,
//! which only its owner may read. Made by the first start.

use std::{
    fs::OpenOptions,
    io::{ErrorKind, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use anyhow::{Context as _, Result};
use rand::RngCore as _;
use sandbox::ArtefactKey;

/// Name of the file in the folder of the artefacts.
const FILE: &str = "seal.key";
const KEY_BYTES: usize = 32;

/// The key in `folder`; made when there is none. A file that holds no key is replaced:
/// what was sealed with another is compiled again.
pub(super) fn open(folder: &Path) -> Result<ArtefactKey> {
    let path = folder.join(FILE);
    if let Some(key) = read(&path).with_context(|| path.display().to_string())? {
        return Ok(ArtefactKey::new(key));
    }
    let mut key = [0; KEY_BYTES];
    rand::rng().fill_bytes(&mut key);
    write(&path, &key).with_context(|| path.display().to_string())?;
    Ok(ArtefactKey::new(key))
}

fn read(path: &Path) -> std::io::Result<Option<[u8; KEY_BYTES]>> {
    let file = match std::fs::File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut bytes = Vec::new();
    file.take(KEY_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes.try_into().ok())
}

fn write(path: &Path, key: &[u8]) -> std::io::Result<()> {
    let unfinished = path.with_extension("key.tmp");
    let _none_from_a_start_that_died = std::fs::remove_file(&unfinished);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    file.write_all(key)?;
    file.sync_all()?;
    std::fs::rename(&unfinished, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_is_its_owners_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        open(folder.path()).expect("a key");
        let path = folder.path().join(FILE);
        let made = std::fs::read(&path).expect("a file");
        assert_eq!(made.len(), KEY_BYTES);
        let mode = std::fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        open(folder.path()).expect("the key");
        assert_eq!(std::fs::read(&path).expect("a file"), made);
        std::fs::write(&path, b"short").expect("a file");
        open(folder.path()).expect("another key");
        assert_eq!(std::fs::read(&path).expect("a file").len(), KEY_BYTES);
    }
}
