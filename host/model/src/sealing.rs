//! The keys that stored secrets are sealed under, and the port through which they come.
//!
//! `control` seals and opens; a [`KeySource`] only hands out keys: from a file of this
//! machine today, from a key management service later. Invariant: a key's id says nothing
//! about the key, and neither `Debug` nor an error shows the key itself.

use std::fmt;

/// Bytes of a key: AES-256.
pub const KEY_BYTES: usize = 32;
/// Bytes of a key's id.
pub const KEY_ID_BYTES: usize = 16;

/// Names a key; stands in front of everything that is sealed under it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SealKeyId(pub [u8; KEY_ID_BYTES]);

impl fmt::Display for SealKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SealKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealKeyId({self})")
    }
}

/// A key for AES-256-GCM.
#[derive(Clone)]
pub struct SealKey {
    /// Its name.
    pub id: SealKeyId,
    bytes: [u8; KEY_BYTES],
}

impl SealKey {
    /// A key of these bytes.
    #[must_use]
    pub const fn new(id: SealKeyId, bytes: [u8; KEY_BYTES]) -> Self {
        Self { id, bytes }
    }

    /// The key, where it is really needed.
    #[must_use]
    pub const fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.bytes
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealKey({})", self.id)
    }
}

/// Where keys come from. Asked on every write and read of a secret, so it answers from
/// memory and never blocks.
pub trait KeySource: fmt::Debug + Send + Sync {
    /// The key for what is sealed from now on.
    fn current(&self) -> SealKey;

    /// The key of an id; `None` when this process does not have it.
    fn key(&self, id: SealKeyId) -> Option<SealKey>;
}
