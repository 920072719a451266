//! Sealing: how secrets lie in the database, and how they come out again.
//!
//! A sealed value is `version (1), key id (16), nonce (12), data, tag (16)` under
//! AES-256-GCM, bound to its tenant, table, row and column: one that is copied elsewhere
//! does not open. Keys come through the port `model::sealing::KeySource`. Nonces are
//! random; 2^32 values under one key are out of reach of what is sealed here. Invariant:
//! nothing is written unsealed, and what does not open is never guessed at.

mod adopt;

use std::{fmt, sync::Arc};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::{Engine, engine::general_purpose::STANDARD};
use model::{
    sealing::{KEY_ID_BYTES, KeySource, SealKey, SealKeyId},
    tenant::TenantId,
};

pub(super) use self::adopt::adopt;
use super::{StoreError, random};

/// The only form so far.
const VERSION: u8 = 1;
/// Version, key id and nonce.
const HEAD_BYTES: usize = 1 + KEY_ID_BYTES + NONCE_LEN;

/// Where a sealed value belongs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) tenant: TenantId,
    pub(super) table: &'static str,
    pub(super) row: &'a str,
    pub(super) column: &'static str,
}

impl Place<'_> {
    fn aad(&self, key: SealKeyId) -> Aad<Vec<u8>> {
        let parts =
            serde_json::json!([self.tenant, self.table, self.row, self.column, key.to_string()]);
        Aad::from(parts.to_string().into_bytes())
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{} of tenant {}", self.table, self.column, self.tenant)
    }
}

/// A sealed text as its columns hold it.
pub(super) struct SealedText {
    pub(super) text: String,
    pub(super) key_id: String,
}

/// Seals and opens.
#[derive(Clone, Debug)]
pub(super) struct Sealer(Option<Arc<dyn KeySource>>);

impl Sealer {
    /// Without keys, everything but secrets works.
    pub(super) fn new(keys: Option<Arc<dyn KeySource>>) -> Self {
        Self(keys)
    }

    fn keys(&self) -> Result<&dyn KeySource, StoreError> {
        self.0.as_deref().ok_or(StoreError::NoKeys)
    }

    pub(super) fn seal(&self, place: Place<'_>, data: &[u8]) -> Result<Vec<u8>, StoreError> {
        let key = self.keys()?.current();
        let nonce = random::bytes::<NONCE_LEN>()?;
        let mut sealed = Vec::with_capacity(HEAD_BYTES + data.len() + AES_256_GCM.tag_len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&key.id.0);
        sealed.extend_from_slice(&nonce);
        let mut data = data.to_vec();
        cipher(&key)?
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                place.aad(key.id),
                &mut data,
            )
            .map_err(|_| StoreError::Unsealable(place.to_string()))?;
        sealed.extend_from_slice(&data);
        Ok(sealed)
    }

    pub(super) fn open(&self, place: Place<'_>, sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
        let damaged = || StoreError::Unsealable(place.to_string());
        let (&version, rest) = sealed.split_first().ok_or_else(damaged)?;
        let (id, rest) = rest.split_first_chunk::<KEY_ID_BYTES>().ok_or_else(damaged)?;
        let (nonce, data) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(damaged)?;
        if version != VERSION {
            return Err(damaged());
        }
        let id = SealKeyId(*id);
        let unknown = || StoreError::UnknownKey { key: id.to_string() };
        let key = self.keys()?.key(id).ok_or_else(unknown)?;
        let mut data = data.to_vec();
        let opened = cipher(&key)?
            .open_in_place(Nonce::assume_unique_for_key(*nonce), place.aad(id), &mut data)
            .map_err(|_| damaged())?
            .len();
        data.truncate(opened);
        Ok(data)
    }

    pub(super) fn seal_text(&self, place: Place<'_>, text: &str) -> Result<SealedText, StoreError> {
        let key_id = self.keys()?.current().id.to_string();
        Ok(SealedText { text: STANDARD.encode(self.seal(place, text.as_bytes())?), key_id })
    }

    /// Opens a text; one without a key's id was written by a release that did not seal.
    pub(super) fn open_text(
        &self,
        place: Place<'_>,
        text: String,
        key_id: Option<&str>,
    ) -> Result<String, StoreError> {
        if key_id.is_none() {
            return Ok(text);
        }
        let damaged = || StoreError::Unsealable(place.to_string());
        let sealed = STANDARD.decode(text).map_err(|_| damaged())?;
        String::from_utf8(self.open(place, &sealed)?).map_err(|_| damaged())
    }
}

fn cipher(key: &SealKey) -> Result<LessSafeKey, StoreError> {
    let unbound = UnboundKey::new(&AES_256_GCM, key.expose());
    let refused = |_| StoreError::Unsealable(format!("key {}", key.id));
    unbound.map(LessSafeKey::new).map_err(refused)
}

#[cfg(test)]
mod tests;
