//! The installation's own keys: one folder of small files, made at the first start.
//!
//! `secrets.key` seals what is secret in the database, `audit.key` signs the heads of the
//! audit chains. Processes that share a database share the folder's content. Invariants:
//! a key file is readable by its owner only and never overwritten; no key is ever in the
//! database, so a backup of it alone opens nothing.

mod file;
mod ring;
mod signing;

use std::{path::Path, sync::Arc};

use model::sealing::KeySource;

pub use self::{
    file::KeyFileError,
    ring::FileKeys,
    signing::{HeadKey, verifies},
};

/// Seals what is secret in the database.
const SECRETS_FILE: &str = "secrets.key";
/// Signs the heads of the audit chains.
const AUDIT_FILE: &str = "audit.key";

/// The keys that a store works with.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Seals and opens secrets.
    pub sealing: Arc<dyn KeySource>,
    /// Signs heads of audit chains.
    pub heads: Arc<HeadKey>,
}

impl Keys {
    /// The keys of a folder; those that are not there yet are made now.
    ///
    /// # Errors
    /// The file that cannot be made, read or understood, and why.
    pub fn of_folder(folder: &Path) -> Result<Self, KeyFileError> {
        file::make_folder(folder)?;
        Ok(Self {
            sealing: Arc::new(FileKeys::open(&folder.join(SECRETS_FILE))?),
            heads: Arc::new(HeadKey::open(&folder.join(AUDIT_FILE))?),
        })
    }
}

#[cfg(test)]
mod tests;
