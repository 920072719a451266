//! Key files: lines of base64, each 32 bytes; empty lines and those with `#` do not count.
//!
//! Invariant: a new file appears whole or not at all, and only where there was none; of
//! processes that make it at once, all go on with the one that was first.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use model::sealing::KEY_BYTES;
use rand::{TryRngCore, rngs::OsRng};

/// What opens a new file.
const HEADING: &str = "# Keys of LeanVibe Edge: keep a copy apart from the database's backups.\n";
/// Longest key file, in bytes: some hundred keys.
const FILE_BYTES_MAX: u64 = 1 << 16;

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The system refused.
    #[error("{}: {source}", path.display())]
    File {
        /// Folder or file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Others than its owner may read it.
    #[error("{0}: others may read this key file: chmod 600 {0}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
    },
    /// It is no key file.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what would be right.
        reason: &'static str,
    },
}

pub(super) fn make_folder(folder: &Path) -> Result<(), KeyFileError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(|source| failed(folder, source))
}

/// The keys of a file, the first one first; made with one key where there is none.
pub(super) fn keys(path: &Path) -> Result<Vec<[u8; KEY_BYTES]>, KeyFileError> {
    if !path.try_exists().map_err(|source| failed(path, source))? {
        make(path).map_err(|source| failed(path, source))?;
    }
    let about = fs::metadata(path).map_err(|source| failed(path, source))?;
    if is_open(&about) {
        return Err(KeyFileError::Open { path: path.to_owned() });
    }
    let malformed = |reason| KeyFileError::Malformed { path: path.to_owned(), reason };
    if about.len() > FILE_BYTES_MAX {
        return Err(malformed("is too long for a key file"));
    }
    let text = fs::read_to_string(path).map_err(|source| failed(path, source))?;
    let keys = read(&text).ok_or_else(|| malformed("each line must be 32 bytes in base64"))?;
    if keys.is_empty() { Err(malformed("holds no key")) } else { Ok(keys) }
}

fn read(text: &str) -> Option<Vec<[u8; KEY_BYTES]>> {
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| STANDARD.decode(line).ok()?.try_into().ok()).collect()
}

/// Writes a file beside and links it into its place, which fails where there is one.
fn make(path: &Path) -> io::Result<()> {
    let mut key = [0; KEY_BYTES];
    OsRng.try_fill_bytes(&mut key).map_err(io::Error::other)?;
    let beside = path.with_extension(format!("new-{}", uuid::Uuid::new_v4()));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&beside)?;
    let written = file
        .write_all(format!("{HEADING}{}\n", STANDARD.encode(key)).as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| match fs::hard_link(&beside, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        });
    let removed = fs::remove_file(&beside);
    written.and(removed)
}

#[cfg(unix)]
fn is_open(about: &fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    about.permissions().mode() & 0o077 != 0
}

#[cfg(not(unix))]
fn is_open(_: &fs::Metadata) -> bool {
    false
}

fn failed(path: &Path, source: io::Error) -> KeyFileError {
    KeyFileError::File { path: path.to_owned(), source }
}
