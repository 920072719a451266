//! Bearer JWTs, verified under RFC 8725.
//!
//! The issuer is found by `iss`, the key by `kid`, and the algorithm is the key's own. No
//! URL in a token is ever followed. A verified token is remembered per worker, by its
//! hash, until it expires. Invariant: what a caller gets was signed, unexpired, meant for
//! our audience, and had one reading.

use std::{cell::RefCell, collections::HashMap, fmt, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::HeaderValue;
use model::{
    clock::UnixMs,
    snapshot::{Snapshot, TenantEntry},
    tenant::TenantId,
};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::issuer::{Issuer, Issuers, Key};

/// Facts of a verified token.
#[derive(Debug)]
pub(crate) struct Verified {
    tenant: Box<str>,
    pub(crate) subject: Option<Box<str>>,
    /// The subject as a field value.
    pub(crate) subject_value: Option<HeaderValue>,
    /// Claims that policies may read.
    pub(crate) claims: Arc<Map<String, Value>>,
    /// First second in which the token is no longer valid, leeway included.
    dead_at_s: u64,
}

impl Verified {
    /// The tenant that the token names by id or slug.
    pub(crate) fn tenant_in<'a>(&self, snapshot: &'a Snapshot) -> Option<&'a Arc<TenantEntry>> {
        match self.tenant.parse::<TenantId>() {
            Ok(id) => snapshot.tenant(id),
            Err(_) => snapshot.tenant_by_slug(&self.tenant),
        }
    }
}

type Hash = [u8; 32];

/// A worker's memory of verified tokens.
pub(crate) struct Verifier {
    generation_max: usize,
    generations: RefCell<Generations>,
}

/// Two maps in place of a list of uses: the young one becomes the old one when full, and
/// what is used moves to the young one.
#[derive(Default)]
struct Generations {
    young: HashMap<Hash, Arc<Verified>>,
    old: HashMap<Hash, Arc<Verified>>,
}

impl Verifier {
    pub(crate) fn new(entries_max: usize) -> Self {
        Self { generation_max: entries_max / 2, generations: RefCell::default() }
    }

    /// The facts of a token, if it is valid now.
    pub(crate) fn verify(
        &self,
        issuers: &Issuers,
        token: &str,
        now: UnixMs,
    ) -> Option<Arc<Verified>> {
        if token.len() > issuers.token_bytes_max || issuers.issuers.is_empty() {
            return None;
        }
        let hash: Hash = Sha256::digest(token.as_bytes()).into();
        let verified = match self.recall(&hash) {
            Some(verified) => verified,
            None => {
                let verified = Arc::new(verify(issuers, token, now)?);
                self.remember(hash, &verified);
                verified
            }
        };
        (now.0 / 1000 < verified.dead_at_s).then_some(verified)
    }

    fn recall(&self, hash: &Hash) -> Option<Arc<Verified>> {
        let mut generations = self.generations.borrow_mut();
        if let Some(verified) = generations.young.get(hash) {
            return Some(Arc::clone(verified));
        }
        let verified = generations.old.remove(hash)?;
        generations.young.insert(*hash, Arc::clone(&verified));
        Some(verified)
    }

    fn remember(&self, hash: Hash, verified: &Arc<Verified>) {
        let mut generations = self.generations.borrow_mut();
        if generations.young.len() >= self.generation_max {
            generations.old = std::mem::take(&mut generations.young);
        }
        if self.generation_max > 0 {
            generations.young.insert(hash, Arc::clone(verified));
        }
    }
}

/// Verifies from scratch.
fn verify(issuers: &Issuers, token: &str, now: UnixMs) -> Option<Verified> {
    let (message, signature) = token.rsplit_once('.')?;
    let (header, payload) = message.split_once('.')?;
    if payload.contains('.') || signature.is_empty() {
        return None;
    }
    let header = object(header)?;
    let claims = object(payload)?;
    let issuer_name = claims.get("iss")?.as_str()?;
    let named = issuers.issuers.iter().filter(|issuer| issuer.config.issuer == issuer_name);
    let mut signers = named.filter(|issuer| {
        candidates(issuer, &header)
            .is_some_and(|mut keys| keys.any(|key| is_signed(key, message.as_bytes(), signature)))
    });
    signers.find_map(|issuer| accept(issuer, &claims, issuers.leeway_s, now.0 / 1000))
}

fn is_signed(key: &Key, message: &[u8], signature: &str) -> bool {
    let algorithm = key.algorithm.implementation();
    jsonwebtoken::crypto::verify(signature, message, &key.decoding, algorithm).unwrap_or(false)
}

/// A part of a token: base64url of a JSON object without repeated members.
fn object(part: &str) -> Option<Map<String, Value>> {
    let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
    match serde_json::from_slice::<Unique>(&bytes).ok()?.0 {
        Value::Object(members) => Some(members),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            None
        }
    }
}

/// The keys that the header allows: by `kid`, and only where its `alg` is the key's own.
fn candidates<'a>(
    issuer: &'a Issuer,
    header: &'a Map<String, Value>,
) -> Option<impl Iterator<Item = &'a Key>> {
    let algorithm = header.get("alg")?.as_str()?;
    let kid = match header.get("kid") {
        Some(kid) => Some(kid.as_str()?),
        None => None,
    };
    if header.contains_key("crit") || !header.get("typ").is_none_or(is_access_token) {
        return None;
    }
    Some(
        issuer
            .keys
            .iter()
            .filter(move |key| key.kid.as_deref() == kid && key.algorithm.as_str() == algorithm),
    )
}

/// RFC 8725 3.11: a token made for another purpose says so.
fn is_access_token(typ: &Value) -> bool {
    typ.as_str().is_some_and(|typ| {
        ["JWT", "at+jwt", "application/at+jwt"].iter().any(|ours| ours.eq_ignore_ascii_case(typ))
    })
}

fn accept(
    issuer: &Issuer,
    claims: &Map<String, Value>,
    leeway_s: u64,
    now_s: u64,
) -> Option<Verified> {
    let dead_at_s = seconds(claims.get("exp")?)?.saturating_add(leeway_s);
    let not_before = |name: &str| match claims.get(name) {
        Some(value) => seconds(value).map(|at| at <= now_s.saturating_add(leeway_s)),
        None => Some(true),
    };
    let audience = match claims.get("aud")? {
        Value::String(one) => *one == issuer.config.audience,
        Value::Array(all) => all.iter().any(|one| one.as_str() == Some(&issuer.config.audience)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
    };
    if now_s >= dead_at_s || !not_before("nbf")? || !not_before("iat")? || !audience {
        return None;
    }
    let tenant = find(claims, &issuer.config.tenant_claim)?.as_str()?.into();
    let subject: Option<Box<str>> = match claims.get("sub") {
        Some(subject) => Some(subject.as_str()?.into()),
        None => None,
    };
    let subject_value = match &subject {
        Some(subject) => Some(HeaderValue::from_bytes(subject.as_bytes()).ok()?),
        None => None,
    };
    let shown = |name: &String| claims.get(name).map(|value| (name.clone(), value.clone()));
    let claims = Arc::new(issuer.config.claims.iter().filter_map(shown).collect());
    Some(Verified { tenant, subject, subject_value, claims, dead_at_s })
}

/// RFC 7519 NumericDate: whole seconds of a number that is not negative.
fn seconds(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_f64().filter(|at| *at >= 0.0).map(|at| at as u64))
}

/// A claim of that name, or the member at the end of that dotted path.
fn find<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    let (first, rest) = path.split_once('.')?;
    rest.split('.').try_fold(claims.get(first)?, |value, member| value.get(member))
}

/// JSON in which no object repeats a member: two parsers would disagree about it.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(UniqueVisitor).map(Self)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without repeated members")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Unique(item)) = items.next_element()? {
            all.push(item);
        }
        Ok(all.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some((name, Unique(value))) = members.next_entry::<String, Unique>()? {
            if all.insert(name, value).is_some() {
                return Err(A::Error::custom("repeated member"));
            }
        }
        Ok(all.into())
    }
}

#[cfg(test)]
mod tests;
