//! Machine code that was compiled before: sealed with a key of this edge, and loaded only
//! while the seal holds.
//!
//! The seal is an HMAC-SHA256 over the digest of the component, the fingerprint of the
//! engine and the code, so that code of another component, another engine or another
//! edge is as foreign as a flipped bit. The only place of the program, beside the lease
//! file, with `unsafe` in it. Invariant: bytes reach wasmtime's `deserialize` only inside
//! a [`Verified`], and only [`ArtefactKey::open`] makes one.

#![expect(unsafe_code, reason = "machine code is loaded here, after its seal was verified")]

use std::{fmt, hash::Hash, hash::Hasher, sync::Arc};

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use wasmtime::component::Component;

use crate::{
    Sandbox,
    error::LoadError,
    load::{compile_error, hex},
    version::Version,
};

/// Bytes of a key and of a seal.
const SEAL_BYTES: usize = 32;
/// What a seal is for: no other MAC of the program is one.
const DOMAIN: &[u8] = b"leanvibe plugin artefact 1\0";

/// What compiled code depends on: engine, version and settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// For file names.
    #[must_use]
    pub fn to_hex(self) -> String {
        hex(&self.0)
    }
}

/// The key that this edge seals its own artefacts with.
#[derive(Clone)]
pub struct ArtefactKey([u8; SEAL_BYTES]);

impl fmt::Debug for ArtefactKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ArtefactKey")
    }
}

/// Machine code whose seal held.
pub struct Verified<'a> {
    code: &'a [u8],
    component: [u8; 32],
}

impl fmt::Debug for Verified<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verified({})", hex(&self.component))
    }
}

impl ArtefactKey {
    /// A key of random bytes.
    #[must_use]
    pub const fn new(bytes: [u8; SEAL_BYTES]) -> Self {
        Self(bytes)
    }

    /// The code of a component (named by the SHA-256 of its file) behind its seal.
    #[must_use]
    pub fn seal(&self, component: [u8; 32], engine: Fingerprint, code: &[u8]) -> Vec<u8> {
        let seal = self.mac(component, engine, code).finalize().into_bytes();
        [seal.as_slice(), code].concat()
    }

    /// The code, if it was sealed with this key for this component and engine.
    #[must_use]
    pub fn open<'a>(
        &self,
        component: [u8; 32],
        engine: Fingerprint,
        sealed: &'a [u8],
    ) -> Option<Verified<'a>> {
        let (seal, code) = sealed.split_at_checked(SEAL_BYTES)?;
        self.mac(component, engine, code).verify_slice(seal).ok()?;
        Some(Verified { code, component })
    }

    #[expect(clippy::expect_used, reason = "an HMAC takes a key of any length")]
    fn mac(&self, component: [u8; 32], engine: Fingerprint, code: &[u8]) -> Hmac<Sha256> {
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(&self.0).expect("a key");
        for part in [DOMAIN, &component, &engine.0, code] {
            mac.update(part);
        }
        mac
    }
}

impl Sandbox {
    /// What code for this sandbox depends on; the same in every process of one release and
    /// one configuration.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let mut hasher = Sha(Sha256::new());
        self.engine().precompile_compatibility_hash().hash(&mut hasher);
        hasher.0.update(env!("CARGO_PKG_VERSION"));
        Fingerprint(hasher.0.finalize().into())
    }

    /// Loads what was compiled before. Takes 0.3–5 ms and blocks. `size` is that of the
    /// component's file.
    ///
    /// # Errors
    /// It does not fit the contract, or was made for another engine.
    pub fn load_precompiled(
        &self,
        artefact: &Verified<'_>,
        size: usize,
    ) -> Result<Arc<Version>, LoadError> {
        // SAFETY: `deserialize` asks for bytes that `precompile_component` made. The seal
        // says that this program made them, for this engine, and that none has changed since:
        // the key never leaves the data folder, and code is sealed only as it comes from our
        // own compiler process.
        let component = unsafe { Component::deserialize(self.engine(), artefact.code) };
        let component = component.map_err(compile_error)?;
        self.link(&component, hex(&artefact.component), size)
    }
}

/// SHA-256 as a hasher: the same in every process, unlike the standard library's.
struct Sha(Sha256);

impl Hasher for Sha {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest: [u8; 32] = self.0.clone().finalize().into();
        digest.iter().take(8).fold(0, |word, byte| word << 8 | u64::from(*byte))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_seal_holds_for_exactly_what_was_sealed(
            code in proptest::collection::vec(any::<u8>(), 0..64), flip in any::<prop::sample::Index>(),
        ) {
            let (key, engine) = (ArtefactKey::new([1; 32]), Fingerprint([2; 32]));
            let sealed = key.seal([3; 32], engine, &code);
            let opened = key.open([3; 32], engine, &sealed).expect("it holds");
            prop_assert_eq!(opened.code, &code[..]);
            let mut flipped = sealed.clone();
            let at = flip.index(sealed.len());
            flipped[at] ^= 1;
            prop_assert!(key.open([3; 32], engine, &flipped).is_none());
            prop_assert!(key.open([3; 32], engine, &sealed[..at]).is_none());
            prop_assert!(key.open([4; 32], engine, &sealed).is_none());
            prop_assert!(key.open([3; 32], Fingerprint([5; 32]), &sealed).is_none());
            prop_assert!(ArtefactKey::new([6; 32]).open([3; 32], engine, &sealed).is_none());
        }
    }
}
