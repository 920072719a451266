//! A JWK set (RFC 7517), read with suspicion.
//!
//! Called once per document that differs from the one before. A key that we cannot or
//! will not use is skipped with a warning, as the RFC asks, so that an issuer may publish
//! keys of other kinds beside ours. Invariant: what comes out verifies signatures only,
//! with an algorithm that the issuer's configuration allows, and is never symmetric.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value};

use crate::tenant::{
    issuer::{Algorithm, Key},
    rsa,
};

/// Keys of a set at most (32): rotation needs two or three.
const KEYS_MAX: usize = 32;
/// Bytes of a `kid` at most (256): it is compared with every token's.
const KID_BYTES_MAX: usize = 256;
/// Bytes of a coordinate on P-256, and of an Ed25519 key.
const COORDINATE_BYTES: usize = 32;

/// Why a document is no key set for us.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DocumentError {
    #[error("is no JSON object with a list `keys`")]
    Shape,
    #[error("has more than {KEYS_MAX} keys")]
    TooMany,
    #[error("has no key that could be used")]
    NoneUsable,
}

/// The keys of a document that can be used; `issuer` is for the log.
///
/// # Errors
/// The document as a whole is unusable.
pub(super) fn parse(
    bytes: &[u8],
    allowed: &[Algorithm],
    issuer: &str,
) -> Result<Vec<Key>, DocumentError> {
    let document: Value = serde_json::from_slice(bytes).map_err(|_| DocumentError::Shape)?;
    let entries = document.get("keys").and_then(Value::as_array).ok_or(DocumentError::Shape)?;
    if entries.len() > KEYS_MAX {
        return Err(DocumentError::TooMany);
    }
    let usable = |(number, entry): (usize, &Value)| match key(entry, allowed) {
        Ok(key) => Some(key),
        Err(why) => {
            tracing::warn!(issuer, number, why, "a key of a JWKS is skipped");
            None
        }
    };
    let keys: Vec<Key> = entries.iter().enumerate().filter_map(usable).collect();
    if keys.is_empty() { Err(DocumentError::NoneUsable) } else { Ok(keys) }
}

fn key(entry: &Value, allowed: &[Algorithm]) -> Result<Key, String> {
    let members = entry.as_object().ok_or("is no object")?;
    if !is_for_signatures(members) {
        return Err("is not meant to verify signatures".to_owned());
    }
    let algorithm = algorithm(members)?;
    if !allowed.contains(&algorithm) {
        return Err(format!("{} is not in the issuer's `algorithms`", algorithm.as_str()));
    }
    let kid = match members.get("kid") {
        None => None,
        Some(Value::String(kid)) if kid.len() <= KID_BYTES_MAX => Some(kid.clone()),
        Some(_) => return Err("its kid is no text or too long".to_owned()),
    };
    Ok(Key { kid, algorithm, decoding: material(algorithm, members)? })
}

/// RFC 7517 4.2 and 4.3: what the key says about its own use.
fn is_for_signatures(members: &Map<String, Value>) -> bool {
    let used = members.get("use").is_none_or(|what| what == "sig");
    let operates = members.get("key_ops").is_none_or(|operations| {
        operations.as_array().is_some_and(|all| all.iter().any(|one| one == "verify"))
    });
    used && operates
}

/// The algorithm of a key: the only one of ours that its type allows.
fn algorithm(members: &Map<String, Value>) -> Result<Algorithm, String> {
    let word = |name| members.get(name).and_then(Value::as_str);
    let algorithm = match (word("kty"), word("crv")) {
        (Some("RSA"), _) => Algorithm::Rs256,
        (Some("EC"), Some("P-256")) => Algorithm::Es256,
        (Some("OKP"), Some("Ed25519")) => Algorithm::EdDsa,
        (Some("oct"), _) => return Err("is symmetric".to_owned()),
        _ => return Err("is of a type or curve that is not supported".to_owned()),
    };
    match members.get("alg") {
        None => Ok(algorithm),
        // RFC 9864 names the curve.
        Some(stated) if algorithm == Algorithm::EdDsa && stated == "Ed25519" => Ok(algorithm),
        Some(stated) if stated == algorithm.as_str() => Ok(algorithm),
        Some(_) => Err("its alg is not supported".to_owned()),
    }
}

fn material(algorithm: Algorithm, members: &Map<String, Value>) -> Result<DecodingKey, String> {
    let number = |name: &str| -> Result<Vec<u8>, String> {
        let text = members.get(name).and_then(Value::as_str);
        let bytes = text.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        bytes.ok_or_else(|| format!("its `{name}` is missing or no base64url"))
    };
    let coordinate = |name: &str| {
        let bytes = number(name)?;
        let right = bytes.len() == COORDINATE_BYTES;
        right
            .then_some(bytes)
            .ok_or_else(|| format!("its `{name}` is not {COORDINATE_BYTES} bytes"))
    };
    match algorithm {
        Algorithm::Rs256 => {
            let key = DecodingKey::from_rsa_raw_components(&number("n")?, &number("e")?);
            rsa::flaw(&key).map_or(Ok(key), Err)
        }
        Algorithm::Es256 => {
            let point = [&[4][..], &coordinate("x")?, &coordinate("y")?].concat();
            Ok(DecodingKey::from_ec_der(&point))
        }
        Algorithm::EdDsa => Ok(DecodingKey::from_ed_der(&coordinate("x")?)),
        Algorithm::Hs256 => Err("is symmetric".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ALL: [Algorithm; 3] = [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa];

    fn ed(extra: Value) -> Value {
        let mut key = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "a",
                              "x": URL_SAFE_NO_PAD.encode([7; 32]) });
        let members = key.as_object_mut().expect("an object");
        members.extend(extra.as_object().expect("an object").clone());
        key
    }

    fn read(keys: &[Value]) -> Result<Vec<Key>, DocumentError> {
        parse(json!({ "keys": keys }).to_string().as_bytes(), &ALL, "test")
    }

    #[test]
    fn keys_that_say_another_purpose_are_skipped() {
        for good in [
            json!({}),
            json!({ "use": "sig" }),
            json!({ "key_ops": ["verify"] }),
            json!({ "alg": "EdDSA" }),
            json!({ "alg": "Ed25519", "x5t": "ignored" }),
        ] {
            assert_eq!(read(&[ed(good.clone())]).map(|keys| keys.len()), Ok(1), "{good}");
        }
        for bad in [
            json!({ "use": "enc" }),
            json!({ "use": 1 }),
            json!({ "key_ops": ["sign"] }),
            json!({ "key_ops": "verify" }),
            json!({ "alg": "HS256" }),
            json!({ "alg": "none" }),
            json!({ "alg": "RS256" }),
            json!({ "kty": "oct", "k": "AAAA" }),
            json!({ "crv": "X25519" }),
            json!({ "kid": 1 }),
            json!({ "kid": "x".repeat(257) }),
            json!({ "x": "AAAA" }),
            json!({ "x": "not base64url!" }),
        ] {
            assert_eq!(read(&[ed(bad.clone())]).unwrap_err(), DocumentError::NoneUsable, "{bad}");
        }
    }

    #[test]
    fn a_bad_key_costs_only_itself_and_algorithms_are_pinned() {
        let weak = json!({ "kty": "RSA", "n": URL_SAFE_NO_PAD.encode([255; 128]), "e": "AQAB" });
        let strong = json!({ "kty": "RSA", "n": URL_SAFE_NO_PAD.encode([255; 256]), "e": "AQAB" });
        let keys = read(&[weak, json!(3), ed(json!({})), strong]).expect("two keys");
        let algorithms: Vec<_> = keys.iter().map(|key| key.algorithm).collect();
        assert_eq!(algorithms, [Algorithm::EdDsa, Algorithm::Rs256]);
        let document = json!({ "keys": [ed(json!({}))] }).to_string();
        let pinned = parse(document.as_bytes(), &[Algorithm::Rs256], "test");
        assert_eq!(pinned.unwrap_err(), DocumentError::NoneUsable);
    }

    #[test]
    fn documents_are_bounded_and_have_one_shape() {
        for garbage in ["", "[]", "{}", r#"{"keys":{}}"#, "<html>"] {
            assert_eq!(parse(garbage.as_bytes(), &ALL, "t").unwrap_err(), DocumentError::Shape);
        }
        let many: Vec<Value> = (0..33).map(|n| ed(json!({ "kid": n.to_string() }))).collect();
        assert_eq!(read(&many[..32]).map(|keys| keys.len()), Ok(32));
        assert_eq!(read(&many).unwrap_err(), DocumentError::TooMany);
    }
}
