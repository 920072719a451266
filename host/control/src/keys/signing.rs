//! The Ed25519 key that signs the heads of audit chains, and the check of its signatures.
//!
//! Invariant: whoever has the public key, an entry and its signature needs nothing of this
//! installation to verify it.

use std::{fmt, path::Path};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::{Engine, engine::general_purpose::STANDARD};

use super::file::{self, KeyFileError};

/// Signs heads.
pub struct HeadKey {
    pair: Ed25519KeyPair,
    public: String,
}

impl HeadKey {
    /// Reads the key of a file, or makes it. Only its first line signs.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn open(path: &Path) -> Result<Self, KeyFileError> {
        let seeds = file::keys(path)?;
        let malformed = |reason| KeyFileError::Malformed { path: path.to_owned(), reason };
        let seed = seeds.first().ok_or_else(|| malformed("holds no key"))?;
        let pair = Ed25519KeyPair::from_seed_unchecked(seed)
            .map_err(|_| malformed("is no seed of an Ed25519 key"))?;
        let public = STANDARD.encode(pair.public_key().as_ref());
        Ok(Self { pair, public })
    }

    /// The public key, 32 bytes in base64.
    #[must_use]
    pub fn public(&self) -> &str {
        &self.public
    }

    /// The signature of a message, in base64.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> String {
        STANDARD.encode(self.pair.sign(message).as_ref())
    }
}

impl fmt::Debug for HeadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HeadKey({})", self.public)
    }
}

/// Whether `signature` of `message` was made with the key whose public half is `public`;
/// both in base64.
#[must_use]
pub fn verifies(public: &str, message: &[u8], signature: &str) -> bool {
    let (Ok(public), Ok(signature)) = (STANDARD.decode(public), STANDARD.decode(signature)) else {
        return false;
    };
    UnparsedPublicKey::new(&ED25519, public).verify(message, &signature).is_ok()
}
