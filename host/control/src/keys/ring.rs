//! Keys for sealing from a file: the first seals, all of them open.
//!
//! So a key is changed by putting a new line before the old one, in every process, and an
//! old one goes when nothing is sealed under it any more. A key's id follows from the key:
//! processes that name the same id hold the same key.

use std::path::Path;

use model::sealing::{KEY_BYTES, KEY_ID_BYTES, KeySource, SealKey, SealKeyId};
use sha2::{Digest, Sha256};

use super::file::{self, KeyFileError};

/// Keeps an id apart from any other digest of the same bytes.
const ID_LABEL: &[u8] = b"leanvibe-seal-key-id-1";

/// The keys of one file, as it was at the start.
#[derive(Clone, Debug)]
pub struct FileKeys {
    current: SealKey,
    older: Vec<SealKey>,
}

impl FileKeys {
    /// Reads the keys of a file, or makes it.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn open(path: &Path) -> Result<Self, KeyFileError> {
        let mut keys = file::keys(path)?.into_iter().map(key_of);
        let none = KeyFileError::Malformed { path: path.to_owned(), reason: "holds no key" };
        let current = keys.next().ok_or(none)?;
        Ok(Self { current, older: keys.collect() })
    }
}

fn key_of(bytes: [u8; KEY_BYTES]) -> SealKey {
    let digest = Sha256::new().chain_update(ID_LABEL).chain_update(bytes).finalize();
    let mut id = [0; KEY_ID_BYTES];
    id.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    SealKey::new(SealKeyId(id), bytes)
}

impl KeySource for FileKeys {
    fn current(&self) -> SealKey {
        self.current.clone()
    }

    fn key(&self, id: SealKeyId) -> Option<SealKey> {
        std::iter::once(&self.current).chain(&self.older).find(|key| key.id == id).cloned()
    }
}
