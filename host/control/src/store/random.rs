//! Randomness of the operating system, for keys, tokens and ids.

use rand::{TryRngCore, rngs::OsRng};

use super::StoreError;

/// `N` unpredictable bytes.
pub(super) fn bytes<const N: usize>() -> Result<[u8; N], StoreError> {
    let mut bytes = [0; N];
    OsRng.try_fill_bytes(&mut bytes).map_err(|error| StoreError::Randomness(error.to_string()))?;
    Ok(bytes)
}
