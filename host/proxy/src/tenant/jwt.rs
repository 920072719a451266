//! Bearer JWTs, verified under RFC 8725.
//!
//! The issuer is found by `iss`, the key by `kid`, and the algorithm is the key's own. No
//! URL in a token is ever followed; published keys come from the configured URL alone
//! ([`super::jwks`]). A verified token is remembered per worker, by its
//! hash, until it expires or its issuer's keys change. Invariant: what a caller gets was signed, unexpired, meant for
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

use super::{
    issuer::{Issuer, Issuers, Key, Keys},
    jwks::{KeySet, Remote},
};

/// Facts of a verified token.
#[derive(Debug)]
pub(crate) struct Verified {
    tenant: Box<str>,
    pub(crate) subject: Option<Box<str>>,
    /// The issuer's own session (`sid`), where it is text.
    pub(crate) sid: Option<Box<str>>,
    /// The subject as a field value.
    pub(crate) subject_value: Option<HeaderValue>,
    /// Claims that policies may read.
    pub(crate) claims: Arc<Map<String, Value>>,
    /// First second in which the token is no longer valid, leeway included.
    dead_at_s: u64,
    /// The published set that it was verified under.
    under: Option<(Arc<Remote>, u64)>,
}

/// What a token turned out to be.
pub(crate) enum Verdict {
    Valid(Arc<Verified>),
    Invalid,
    /// Nobody can say before these keys have been fetched (again).
    KeyUnknown(Arc<Remote>),
}

impl Verified {
    /// The tenant that the token names by id or slug.
    pub(crate) fn tenant_in<'a>(&self, snapshot: &'a Snapshot) -> Option<&'a Arc<TenantEntry>> {
        match self.tenant.parse::<TenantId>() {
            Ok(id) => snapshot.tenant(id),
            Err(_) => snapshot.tenant_by_slug(&self.tenant),
        }
    }

    /// Whether the keys are still those that it was verified under.
    fn is_current(&self) -> bool {
        self.under.as_ref().is_none_or(|(keys, generation)| keys.generation() == *generation)
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
    pub(crate) fn verify(&self, issuers: &Issuers, token: &str, now: UnixMs) -> Verdict {
        if token.len() > issuers.token_bytes_max || issuers.issuers.is_empty() {
            return Verdict::Invalid;
        }
        let hash: Hash = Sha256::digest(token.as_bytes()).into();
        let verified = match self.recall(&hash) {
            Some(verified) => verified,
            None => match verify(issuers, token, now) {
                Verdict::Valid(verified) => {
                    self.remember(hash, &verified);
                    verified
                }
                other => return other,
            },
        };
        match now.0 / 1000 < verified.dead_at_s {
            true => Verdict::Valid(verified),
            false => Verdict::Invalid,
        }
    }

    fn recall(&self, hash: &Hash) -> Option<Arc<Verified>> {
        let mut generations = self.generations.borrow_mut();
        if let Some(verified) = generations.young.get(hash) {
            return Some(Arc::clone(verified)).filter(|verified| verified.is_current());
        }
        let verified = generations.old.remove(hash).filter(|verified| verified.is_current())?;
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
fn verify(issuers: &Issuers, token: &str, now: UnixMs) -> Verdict {
    let Some(token) = Parts::of(token) else { return Verdict::Invalid };
    let named = issuers.issuers.iter().filter(|issuer| issuer.config.issuer == token.issuer);
    let mut unknown = None;
    for issuer in named {
        // What does not depend on a key comes first: it costs less, and a token that could
        // not be valid anyway makes nobody fetch a key.
        let Some(mut verified) = accept(issuer, &token.claims, issuers.leeway_s, now.0 / 1000)
        else {
            continue;
        };
        match &issuer.keys {
            Keys::Static(keys) if token.is_signed_by(keys) => {
                return Verdict::Valid(Arc::new(verified));
            }
            Keys::Static(_) => {}
            Keys::Remote(remote) => match remote.set() {
                Some(set) if token.is_signed_by(&set.keys) => {
                    verified.under = Some((Arc::clone(remote), set.generation));
                    return Verdict::Valid(Arc::new(verified));
                }
                set if token.may_be_of(remote, set.as_deref()) => unknown = Some(remote),
                Some(_) | None => {}
            },
        }
    }
    unknown.map_or(Verdict::Invalid, |remote| Verdict::KeyUnknown(Arc::clone(remote)))
}

/// A token taken apart; nothing of it is believed yet.
struct Parts<'a> {
    message: &'a [u8],
    signature: &'a str,
    algorithm: String,
    kid: Option<String>,
    issuer: String,
    claims: Map<String, Value>,
}

impl<'a> Parts<'a> {
    fn of(token: &'a str) -> Option<Self> {
        let (message, signature) = token.rsplit_once('.')?;
        let (header, payload) = message.split_once('.')?;
        if payload.contains('.') || signature.is_empty() {
            return None;
        }
        let header = object(header)?;
        let claims = object(payload)?;
        if header.contains_key("crit") || !header.get("typ").is_none_or(is_access_token) {
            return None;
        }
        Some(Self {
            message: message.as_bytes(),
            signature,
            algorithm: header.get("alg")?.as_str()?.to_owned(),
            kid: match header.get("kid") {
                Some(kid) => Some(kid.as_str()?.to_owned()),
                None => None,
            },
            issuer: claims.get("iss")?.as_str()?.to_owned(),
            claims,
        })
    }

    /// Whether one of the keys that the header allows signed it: by `kid`, and only where
    /// its `alg` is the key's own.
    fn is_signed_by(&self, keys: &[Key]) -> bool {
        keys.iter()
            .filter(|key| key.kid == self.kid && key.algorithm.as_str() == self.algorithm)
            .any(|key| is_signed(key, self.message, self.signature))
    }

    /// Whether another look at the published keys could show the key.
    fn may_be_of(&self, remote: &Remote, set: Option<&KeySet>) -> bool {
        let missing = match (set, &self.kid) {
            (None, _) => true,
            (Some(set), Some(_)) => set.keys.iter().all(|key| key.kid != self.kid),
            // Without a name there is no telling a new key from a wrong signature.
            (Some(_), None) => false,
        };
        missing && remote.allows(&self.algorithm)
    }
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
    let sid = claims.get("sid").and_then(Value::as_str).map(Into::into);
    let shown = |name: &String| claims.get(name).map(|value| (name.clone(), value.clone()));
    let claims = Arc::new(issuer.config.claims.iter().filter_map(shown).collect());
    Some(Verified { tenant, subject, sid, subject_value, claims, dead_at_s, under: None })
}

/// RFC 7519 NumericDate: whole seconds of a number that is not negative.
fn seconds(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_f64().filter(|at| *at >= 0.0).map(|at| at as u64))
}

/// A claim of that name; else the value at the end of a JSON Pointer (RFC 6901) or of a
/// dotted path of members.
fn find<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    if let Some(pointer) = path.strip_prefix('/') {
        let (first, rest) = match pointer.find('/') {
            Some(at) => pointer.split_at_checked(at)?,
            None => (pointer, ""),
        };
        return claims.get(&first.replace("~1", "/").replace("~0", "~"))?.pointer(rest);
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
