//! Whose JWTs are believed, and under which keys.
//!
//! Plain configuration and its loaded form; read once at start. Invariant: a key has one
//! algorithm, decided here and never by a token (RFC 8725 3.1).

use std::{fs, path::PathBuf, sync::Arc};

use jsonwebtoken::DecodingKey;
use model::{
    clock::{Clock, SystemClock},
    secret::Secret,
};
use serde::{Deserialize, Deserializer};

use super::{jwks::Remote, rsa};

/// Bytes of an HMAC secret at least (RFC 7518 3.2: as long as its hash).
const SECRET_BYTES_MIN: usize = 32;

/// The issuers and the bounds of their tokens.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JwtConfig {
    /// The issuers; none means that no JWT is valid.
    #[serde(rename = "issuer")]
    pub issuers: Vec<IssuerConfig>,
    /// Seconds by which clocks may differ (60).
    pub leeway_s: u64,
    /// Bytes of a token (8,192): half of the request head.
    pub token_bytes_max: usize,
    /// Verified tokens remembered per worker (4,096): a signature costs 50–100 µs.
    pub cache_entries_max: usize,
}

impl Default for JwtConfig {
    fn default() -> Self {
        Self { issuers: Vec::new(), leeway_s: 60, token_bytes_max: 8_192, cache_entries_max: 4_096 }
    }
}

impl JwtConfig {
    /// Whether every issuer can be used, as a start would find it. Reads key files; fetches
    /// nothing.
    ///
    /// # Errors
    /// The first one that cannot.
    pub fn check(&self) -> Result<(), IssuerError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        Issuers::load(self, &clock).map(drop)
    }
}

/// One issuer.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    /// Name in the log.
    pub name: String,
    /// The `iss` of its tokens.
    pub issuer: String,
    /// The `aud` that a token must hold.
    pub audience: String,
    /// Where the tenant's id or slug stands: a claim (`tenant_id`,
    /// `https://acme.example/tenant`), a dotted path of members (`org.tenant_id`), or a JSON
    /// Pointer (`/orgs/0/id`).
    #[serde(default = "tenant_claim")]
    pub tenant_claim: String,
    /// Claims that policies may read.
    #[serde(default)]
    pub claims: Vec<String>,
    /// Its keys, when they are known here.
    #[serde(default)]
    pub keys: Vec<KeyConfig>,
    /// Where it publishes its keys (RFC 7517), in place of `keys`: https, or http to this
    /// machine.
    #[serde(default)]
    pub jwks_url: Option<String>,
    /// With `jwks_url`: the algorithms believed, whatever the published keys say.
    #[serde(default)]
    pub algorithms: Vec<Algorithm>,
}

fn tenant_claim() -> String {
    "tenant_id".to_owned()
}

/// One key. Exactly one of the four sources is given.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// Tokens with this `kid` use this key alone; a key without one serves tokens without.
    pub kid: Option<String>,
    /// The only algorithm that the key is used with.
    pub algorithm: Algorithm,
    /// HS256: the secret, at least 32 bytes.
    #[serde(default, deserialize_with = "secret")]
    pub secret: Option<Secret>,
    /// HS256: a file with the secret; a trailing line end does not count.
    pub secret_file: Option<PathBuf>,
    /// The others: the public key, PEM.
    pub public_key_pem: Option<String>,
    /// The others: a file with it.
    pub public_key_file: Option<PathBuf>,
}

fn secret<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Secret>, D::Error> {
    Ok(Option::<String>::deserialize(input)?.map(Secret::new))
}

/// The algorithms in use; `none` is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    #[serde(rename = "HS256")]
    Hs256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    #[serde(rename = "RS256")]
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    #[serde(rename = "ES256")]
    Es256,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl Algorithm {
    /// The name in a token's header; compared exactly.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    pub(crate) const fn implementation(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::Hs256 => jsonwebtoken::Algorithm::HS256,
            Self::Rs256 => jsonwebtoken::Algorithm::RS256,
            Self::Es256 => jsonwebtoken::Algorithm::ES256,
            Self::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

/// Why an issuer cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("jwt issuer {issuer:?}: {what}")]
pub struct IssuerError {
    issuer: String,
    what: String,
}

/// The issuers, ready to verify.
#[derive(Debug)]
pub(crate) struct Issuers {
    pub(crate) issuers: Vec<Issuer>,
    pub(crate) leeway_s: u64,
    pub(crate) token_bytes_max: usize,
}

#[derive(Debug)]
pub(crate) struct Issuer {
    pub(crate) config: IssuerConfig,
    pub(crate) keys: Keys,
}

/// Where an issuer's keys are.
#[derive(Debug)]
pub(crate) enum Keys {
    /// In the configuration.
    Static(Vec<Key>),
    /// Where the issuer publishes them.
    Remote(Arc<Remote>),
}

pub(crate) struct Key {
    pub(crate) kid: Option<String>,
    pub(crate) algorithm: Algorithm,
    pub(crate) decoding: DecodingKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({:?}, {})", self.kid, self.algorithm.as_str())
    }
}

impl Issuers {
    /// Reads every key that is known here.
    pub(crate) fn load(config: &JwtConfig, clock: &Arc<dyn Clock>) -> Result<Self, IssuerError> {
        let load = |issuer: &IssuerConfig| {
            let failed = |what| IssuerError { issuer: issuer.name.clone(), what };
            Issuer::load(issuer, clock).map_err(failed)
        };
        let issuers = config.issuers.iter().map(load).collect::<Result<_, _>>()?;
        Ok(Self { issuers, leeway_s: config.leeway_s, token_bytes_max: config.token_bytes_max })
    }

    /// The key sets that somebody has to fetch.
    pub(crate) fn remotes(&self) -> Vec<Arc<Remote>> {
        let remote = |issuer: &Issuer| match &issuer.keys {
            Keys::Static(_) => None,
            Keys::Remote(remote) => Some(Arc::clone(remote)),
        };
        self.issuers.iter().filter_map(remote).collect()
    }
}

impl Issuer {
    fn load(config: &IssuerConfig, clock: &Arc<dyn Clock>) -> Result<Self, String> {
        let keys = match (&config.jwks_url, config.keys.is_empty()) {
            (None, false) if config.algorithms.is_empty() => static_keys(&config.keys)?,
            (None, false) => return Err("`algorithms` goes with `jwks_url` only".to_owned()),
            (Some(url), true) => remote_keys(config, url, clock)?,
            _ => return Err("needs exactly one of `keys`, `jwks_url`".to_owned()),
        };
        // Secrets are not kept beyond their key.
        let config = IssuerConfig { keys: Vec::new(), ..config.clone() };
        Ok(Self { config, keys })
    }
}

fn static_keys(configs: &[KeyConfig]) -> Result<Keys, String> {
    let keys = configs.iter().enumerate().map(|(number, key)| {
        let decoding = material(key).and_then(|material| decode(key.algorithm, &material));
        let decoding = decoding.map_err(|what| format!("key {number}: {what}"))?;
        Ok(Key { kid: key.kid.clone(), algorithm: key.algorithm, decoding })
    });
    keys.collect::<Result<_, _>>().map(Keys::Static)
}

fn remote_keys(config: &IssuerConfig, url: &str, clock: &Arc<dyn Clock>) -> Result<Keys, String> {
    if config.algorithms.is_empty() || config.algorithms.contains(&Algorithm::Hs256) {
        return Err("`jwks_url` needs `algorithms`: some of RS256, ES256, EdDSA".to_owned());
    }
    Remote::new(&config.name, url, &config.algorithms, clock).map(Keys::Remote)
}

fn material(key: &KeyConfig) -> Result<Vec<u8>, String> {
    let read = |path: &PathBuf| {
        fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
    };
    let symmetric = key.algorithm == Algorithm::Hs256;
    match (&key.secret, &key.secret_file, &key.public_key_pem, &key.public_key_file) {
        (Some(secret), None, None, None) if symmetric => Ok(secret.expose().as_bytes().to_vec()),
        (None, Some(path), None, None) if symmetric => Ok(read(path)?.trim_ascii_end().to_vec()),
        (None, None, Some(pem), None) if !symmetric => Ok(pem.as_bytes().to_vec()),
        (None, None, None, Some(path)) if !symmetric => read(path),
        _ if symmetric => Err("HS256 needs exactly one of secret, secret_file".to_owned()),
        _ => Err("needs exactly one of public_key_pem, public_key_file".to_owned()),
    }
}

fn decode(algorithm: Algorithm, material: &[u8]) -> Result<DecodingKey, String> {
    match algorithm {
        Algorithm::Hs256 if material.len() < SECRET_BYTES_MIN => {
            Err(format!("the secret is shorter than {SECRET_BYTES_MIN} bytes"))
        }
        Algorithm::Hs256 => Ok(DecodingKey::from_secret(material)),
        Algorithm::Rs256 => {
            let key = DecodingKey::from_rsa_pem(material).map_err(|e| e.to_string())?;
            rsa::flaw(&key).map_or(Ok(key), Err)
        }
        Algorithm::Es256 => DecodingKey::from_ec_pem(material).map_err(|e| e.to_string()),
        Algorithm::EdDsa => DecodingKey::from_ed_pem(material).map_err(|e| e.to_string()),
    }
}
