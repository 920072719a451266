//! API keys of the data plane, `lv_live_<id>_<secret><checksum>`, and tokens of the control
//! API, `lv_ctl_<id>_<secret><checksum>`.
//!
//! `id` is 12 characters (60 bits) and public: it finds the record. `secret` is 52
//! characters (256 bits), shown once and stored as SHA-256. `checksum` is 7 characters
//! of CRC-32 over everything before it, so that a mistyped key is refused without a
//! look-up and scanners can tell a key from noise. Alphabet: Crockford's base 32, lower
//! case (no `i l o u`).
//!
//! Invariant: secrets are compared in constant time, and only their hash is kept.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{clock::UnixMs, tenant::TenantId};

const PREFIX: &str = "lv_live_";
/// Starts a token of the control API, so that neither passes for the other.
const TOKEN_PREFIX: &str = "lv_ctl_";
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const ID_CHARS: usize = 12;
const SECRET_CHARS: usize = 52;
const CHECKSUM_CHARS: usize = 7;
/// Length of a key, in bytes.
pub const KEY_LEN: usize = PREFIX.len() + ID_CHARS + 1 + SECRET_CHARS + CHECKSUM_CHARS;

/// The public part of a key.
pub type KeyId = Box<str>;

/// A well-formed key whose checksum holds; not yet verified against a record.
#[derive(Clone, Copy)]
pub struct PresentedKey<'a> {
    /// Finds the record.
    pub id: &'a str,
    secret: &'a str,
}

impl PresentedKey<'_> {
    /// Whether this is the secret of a stored hash. Constant time.
    #[must_use]
    pub fn has_secret(&self, hash: &SecretHash) -> bool {
        hash_secret(self.secret).0.ct_eq(&hash.0).into()
    }
}

impl fmt::Debug for PresentedKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PresentedKey({})", self.id)
    }
}

/// SHA-256 of a key's secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SecretHash(pub [u8; 32]);

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash")
    }
}

/// A key as stored.
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// Public id.
    pub id: KeyId,
    /// Whose key it is.
    pub tenant: TenantId,
    /// Hash of the secret.
    pub hash: SecretHash,
    /// End of its life.
    pub expires_at: Option<UnixMs>,
}

impl ApiKey {
    /// Whether the presented key is this one and alive. Constant time in the secret.
    #[must_use]
    pub fn verifies(&self, presented: &PresentedKey<'_>, now: UnixMs) -> bool {
        presented.has_secret(&self.hash) && self.expires_at.is_none_or(|end| now < end)
    }
}

/// Whether a bearer token claims to be an API key (it may still be malformed).
#[must_use]
pub fn looks_like_key(token: &str) -> bool {
    token.starts_with(PREFIX)
}

/// Takes a key apart; `None` unless form and checksum hold.
#[must_use]
pub fn parse(token: &str) -> Option<PresentedKey<'_>> {
    parse_as(PREFIX, token)
}

/// Takes a token of the control API apart; `None` unless form and checksum hold.
#[must_use]
pub fn parse_token(token: &str) -> Option<PresentedKey<'_>> {
    parse_as(TOKEN_PREFIX, token)
}

fn parse_as<'a>(prefix: &str, token: &'a str) -> Option<PresentedKey<'a>> {
    let body_len = prefix.len() + ID_CHARS + 1 + SECRET_CHARS;
    if token.len() != body_len + CHECKSUM_CHARS || !token.is_ascii() {
        return None;
    }
    let (body, checksum) = token.split_at(body_len);
    let (id, secret) = body.strip_prefix(prefix)?.split_once('_')?;
    let in_alphabet = |text: &str| text.bytes().all(|b| ALPHABET.contains(&b));
    let well_formed = id.len() == ID_CHARS
        && secret.len() == SECRET_CHARS
        && in_alphabet(id)
        && in_alphabet(secret)
        && checksum_of(body) == checksum;
    well_formed.then_some(PresentedKey { id, secret })
}

/// Makes a key from 40 bytes of randomness (8 for the id, 32 for the secret): the text
/// to show once, its id, and the hash to store.
#[must_use]
pub fn mint(random: &[u8; 40]) -> (String, KeyId, SecretHash) {
    mint_as(PREFIX, random)
}

/// Makes a token of the control API in the same way.
#[must_use]
pub fn mint_token(random: &[u8; 40]) -> (String, KeyId, SecretHash) {
    mint_as(TOKEN_PREFIX, random)
}

fn mint_as(prefix: &str, random: &[u8; 40]) -> (String, KeyId, SecretHash) {
    let (id_bytes, secret_bytes) = random.split_at(8);
    let id: KeyId = encode(id_bytes, ID_CHARS).into();
    let secret = encode(secret_bytes, SECRET_CHARS);
    let body = format!("{prefix}{id}_{secret}");
    let key = format!("{body}{}", checksum_of(&body));
    (key, id, hash_secret(&secret))
}

/// Hash under which a secret is stored.
#[must_use]
pub fn hash_secret(secret: &str) -> SecretHash {
    SecretHash(Sha256::digest(secret.as_bytes()).into())
}

fn checksum_of(body: &str) -> String {
    encode(&crc32fast::hash(body.as_bytes()).to_be_bytes(), CHECKSUM_CHARS)
}

/// The first `chars` base-32 digits of `bytes`, most significant first, zero padded.
fn encode(bytes: &[u8], chars: usize) -> String {
    (0..chars)
        .map(|digit| {
            let value = (0..5).fold(0_usize, |value, i| {
                let bit = digit * 5 + i;
                let byte = bytes.get(bit / 8).copied().unwrap_or(0);
                value << 1 | usize::from(byte >> (7 - bit % 8) & 1)
            });
            char::from(ALPHABET.get(value).copied().unwrap_or(b'0'))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_minted_key_parses_and_verifies(random in proptest::array::uniform32(any::<u8>())) {
            let mut bytes = [0_u8; 40];
            bytes[..32].copy_from_slice(&random);
            let (key, id, hash) = mint(&bytes);
            let presented = parse(&key).expect("a well-formed key");
            prop_assert_eq!(presented.id, &*id);
            let tenant = TenantId(uuid::Uuid::nil());
            let record = ApiKey { id, tenant, hash, expires_at: Some(UnixMs(10)) };
            prop_assert!(record.verifies(&presented, UnixMs(9)));
            prop_assert!(!record.verifies(&presented, UnixMs(10)));
            prop_assert!(parse_token(&key).is_none());
            let (token, id, hash) = mint_token(&bytes);
            let presented = parse_token(&token).expect("a well-formed token");
            prop_assert!(presented.id == &*id && presented.has_secret(&hash));
            prop_assert!(parse(&token).is_none());
        }

        #[test]
        fn one_wrong_character_breaks_the_checksum(at in 0_usize..KEY_LEN) {
            let (key, ..) = mint(&[7; 40]);
            let mut bytes = key.into_bytes();
            bytes[at] = if bytes[at] == b'z' { b'y' } else { b'z' };
            let changed = String::from_utf8(bytes).expect("ASCII");
            prop_assert!(parse(&changed).is_none());
        }
    }
}
