//! RFC 8725, case by case; the clock stands still.

use jsonwebtoken::{EncodingKey, Header};
use model::clock::{Clock, ManualClock};
use serde_json::json;

use super::*;
use crate::tenant::issuer::JwtConfig;

const NOW: UnixMs = UnixMs(1_768_478_400_000);
const NOW_S: u64 = NOW.0 / 1000;
const SECRET: &str = "0123456789abcdef0123456789abcdef";
const RSA_PUBLIC: &str = include_str!("fixtures/rsa.pub.pem");
const RSA_PRIVATE: &str = include_str!("fixtures/rsa.pem");
const EC_PUBLIC: &str = include_str!("fixtures/ec.pub.pem");
const EC_PRIVATE: &str = include_str!("fixtures/ec.pem");
const ED_PUBLIC: &str = include_str!("fixtures/ed.pub.pem");
const ED_PRIVATE: &str = include_str!("fixtures/ed.pem");

fn issuers() -> Issuers {
    let config: JwtConfig = serde_json::from_value(json!({ "issuer": [{
        "name": "test", "issuer": "https://id.test", "audience": "edge", "claims": ["role", "absent"],
        "keys": [
            { "algorithm": "HS256", "secret": SECRET },
            { "kid": "rsa", "algorithm": "RS256", "public_key_pem": RSA_PUBLIC },
            { "kid": "ec", "algorithm": "ES256", "public_key_pem": EC_PUBLIC },
            { "kid": "ed", "algorithm": "EdDSA", "public_key_pem": ED_PUBLIC },
        ],
    }]}))
    .expect("a config");
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(NOW));
    Issuers::load(&config, &clock).expect("keys")
}

fn claims() -> Value {
    json!({ "iss": "https://id.test", "aud": "edge", "exp": NOW_S + 60, "tenant_id": "acme",
            "sub": "user", "role": "admin", "other": 1 })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().expect("an object").remove(name);
    claims
}

fn sign(header: &Value, payload: &str, secret: &[u8]) -> String {
    let message = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header.to_string()),
        URL_SAFE_NO_PAD.encode(payload)
    );
    let key = EncodingKey::from_secret(secret);
    let signature =
        jsonwebtoken::crypto::sign(message.as_bytes(), &key, jsonwebtoken::Algorithm::HS256);
    format!("{message}.{}", signature.expect("a signature"))
}

fn hs256(claims: &Value) -> String {
    sign(&json!({ "alg": "HS256", "typ": "JWT" }), &claims.to_string(), SECRET.as_bytes())
}

fn accepted(token: &str) -> Option<Arc<Verified>> {
    valid(verify(&issuers(), token, NOW))
}

fn valid(verdict: Verdict) -> Option<Arc<Verified>> {
    match verdict {
        Verdict::Valid(verified) => Some(verified),
        Verdict::Invalid | Verdict::KeyUnknown(_) => None,
    }
}

#[test]
fn every_algorithm_verifies_under_its_own_key() {
    use jsonwebtoken::Algorithm;
    let keys = [
        (Algorithm::HS256, None, EncodingKey::from_secret(SECRET.as_bytes())),
        (
            Algorithm::RS256,
            Some("rsa"),
            EncodingKey::from_rsa_pem(RSA_PRIVATE.as_bytes()).expect("RSA"),
        ),
        (
            Algorithm::ES256,
            Some("ec"),
            EncodingKey::from_ec_pem(EC_PRIVATE.as_bytes()).expect("EC"),
        ),
        (
            Algorithm::EdDSA,
            Some("ed"),
            EncodingKey::from_ed_pem(ED_PRIVATE.as_bytes()).expect("Ed"),
        ),
    ];
    for (algorithm, kid, key) in keys {
        let header = Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) };
        let token = jsonwebtoken::encode(&header, &claims(), &key).expect("a token");
        let verified = accepted(&token).unwrap_or_else(|| panic!("{algorithm:?}"));
        assert_eq!((&*verified.tenant, verified.subject.as_deref()), ("acme", Some("user")));
        assert_eq!(Value::Object((*verified.claims).clone()), json!({ "role": "admin" }));
        // One flipped bit anywhere in the signature.
        let (message, signature) = token.rsplit_once('.').expect("three parts");
        let mut bytes = URL_SAFE_NO_PAD.decode(signature).expect("base64");
        bytes[7] ^= 1;
        assert!(accepted(&format!("{message}.{}", URL_SAFE_NO_PAD.encode(bytes))).is_none());
    }
}

#[test]
fn unsigned_and_misshapen_tokens_are_refused() {
    let payload = URL_SAFE_NO_PAD.encode(claims().to_string());
    for alg in ["none", "None", "nOnE", "", "HS384", "hs256"] {
        let header = URL_SAFE_NO_PAD.encode(json!({ "alg": alg }).to_string());
        for signature in ["", "AAAA"] {
            assert!(accepted(&format!("{header}.{payload}.{signature}")).is_none(), "{alg}");
        }
        assert!(
            accepted(&sign(&json!({ "alg": alg }), &claims().to_string(), SECRET.as_bytes()))
                .is_none()
        );
    }
    let good = hs256(&claims());
    assert!(accepted(&good).is_some());
    for bad in [
        good.replace('.', ""),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}="),
        good.replacen('.', "..", 1),
        String::new(),
        "a.b.c".to_owned(),
    ] {
        assert!(accepted(&bad).is_none(), "{bad}");
    }
}

#[test]
fn a_public_key_is_no_secret() {
    for header in [json!({ "alg": "HS256" }), json!({ "alg": "HS256", "kid": "rsa" })] {
        assert!(accepted(&sign(&header, &claims().to_string(), RSA_PUBLIC.as_bytes())).is_none());
    }
}

#[test]
fn headers_choose_a_key_and_nothing_else() {
    for extra in [
        json!({ "kid": "../../etc/passwd" }),
        json!({ "kid": "' OR 1=1" }),
        json!({ "kid": 1 }),
        json!({ "kid": null }),
        json!({ "kid": "x".repeat(1 << 20) }),
        json!({ "crit": ["exp"] }),
        json!({ "typ": "logout+jwt" }),
        json!({ "typ": 1 }),
    ] {
        let mut header = extra;
        header["alg"] = "HS256".into();
        assert!(accepted(&sign(&header, &claims().to_string(), SECRET.as_bytes())).is_none());
    }
    let lured = json!({ "alg": "HS256", "typ": "at+JWT", "jku": "http://evil", "x5u": "http://evil",
                        "jwk": { "kty": "oct", "k": "AAAA" } });
    assert!(accepted(&sign(&lured, &claims().to_string(), SECRET.as_bytes())).is_some());
    assert!(accepted(&sign(&lured, &claims().to_string(), &[0; 32])).is_none());
}

#[test]
fn claims_have_one_reading_and_are_checked() {
    for (good, why) in [
        (with("exp", json!(NOW_S - 59)), "inside the leeway"),
        (with("exp", json!(NOW_S as f64 + 0.5)), "a fraction"),
        (with("exp", json!(1e30)), "far away"),
        (with("nbf", json!(NOW_S + 60)), "inside the leeway"),
        (with("aud", json!(["other", "edge"])), "one of several"),
        (without("sub"), "no subject"),
    ] {
        assert!(accepted(&hs256(&good)).is_some(), "{why}: {good}");
    }
    for (bad, why) in [
        (without("exp"), "no end"),
        (with("exp", json!(NOW_S - 60)), "over"),
        (with("exp", json!(-1)), "negative"),
        (with("exp", json!("2099")), "text"),
        (with("nbf", json!(NOW_S + 61)), "not yet"),
        (with("iat", json!(NOW_S + 61)), "from the future"),
        (with("nbf", json!(null)), "no number"),
        (without("aud"), "no audience"),
        (with("aud", json!("other")), "another's"),
        (with("aud", json!(["other"])), "others'"),
        (with("iss", json!("https://evil.test")), "a stranger's"),
        (without("iss"), "nobody's"),
        (without("tenant_id"), "no tenant"),
        (with("tenant_id", json!(7)), "no name"),
        (with("sub", json!("a\r\nb")), "no field value"),
        (with("sub", json!({})), "no text"),
    ] {
        assert!(accepted(&hs256(&bad)).is_none(), "{why}: {bad}");
    }
    let header = json!({ "alg": "HS256" });
    let twice = claims().to_string().replacen('{', "{\"tenant_id\":\"beta\",", 1);
    assert!(accepted(&sign(&header, &twice, SECRET.as_bytes())).is_none());
    let deep = format!("{{\"x\":{}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(accepted(&sign(&header, &deep, SECRET.as_bytes())).is_none());
    assert!(accepted(&sign(&header, "[]", SECRET.as_bytes())).is_none());
}

#[test]
fn a_dotted_path_finds_a_member_and_a_full_name_wins() {
    let claims = json!({ "a": { "b": { "c": 1 } }, "https://x.test/t": 2, "a.b": 3 });
    let claims = claims.as_object().expect("an object");
    assert_eq!(find(claims, "a.b.c"), Some(&json!(1)));
    assert_eq!(find(claims, "https://x.test/t"), Some(&json!(2)));
    assert_eq!(find(claims, "a.b"), Some(&json!(3)));
    assert_eq!(find(claims, "a.x.c"), None);
}

#[test]
fn a_json_pointer_finds_members_of_any_name_and_items() {
    let claims = json!({ "orgs": [{ "id": "acme" }], "a/b": { "~": 1 }, "plain": 2, "": 3 });
    let claims = claims.as_object().expect("an object");
    for (path, want) in [
        ("/orgs/0/id", Some(json!("acme"))),
        ("/a~1b/~0", Some(json!(1))),
        ("/plain", Some(json!(2))),
        ("/", Some(json!(3))),
        ("/orgs/1/id", None),
        ("/orgs/00/id", None),
        ("/absent/id", None),
    ] {
        assert_eq!(find(claims, path), want.as_ref(), "{path}");
    }
}

#[test]
fn a_weak_rsa_key_and_a_half_configured_issuer_are_refused_at_the_start() {
    let load = |issuer: Value| {
        let config: JwtConfig = serde_json::from_value(json!({ "issuer": [issuer] }))?;
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(NOW));
        Ok::<_, serde_json::Error>(Issuers::load(&config, &clock).map_err(|e| e.to_string()))
    };
    let issuer = |rest: Value| {
        let mut issuer = json!({ "name": "test", "issuer": "https://id.test", "audience": "edge" });
        let members = issuer.as_object_mut().expect("an object");
        members.extend(rest.as_object().expect("an object").clone());
        issuer
    };
    let weak = include_str!("fixtures/rsa1024.pub.pem");
    let url = "https://id.test/keys";
    let key = json!([{ "algorithm": "ES256", "public_key_pem": EC_PUBLIC }]);
    for (rest, says) in [
        (json!({ "keys": [{ "algorithm": "RS256", "public_key_pem": weak }] }), "1024 bits"),
        (json!({}), "exactly one"),
        (json!({ "keys": key, "jwks_url": url, "algorithms": ["ES256"] }), "exactly one"),
        (json!({ "keys": key, "algorithms": ["ES256"] }), "jwks_url"),
        (json!({ "jwks_url": url }), "algorithms"),
        (json!({ "jwks_url": url, "algorithms": ["HS256"] }), "algorithms"),
        (json!({ "jwks_url": "http://id.test/keys", "algorithms": ["ES256"] }), "https"),
    ] {
        let refusal = load(issuer(rest)).expect("a config").expect_err(says);
        assert!(refusal.contains("\"test\"") && refusal.contains(says), "{refusal}");
    }
    assert!(load(issuer(json!({ "jwks_url": url, "algorithms": ["ES256", "none"] }))).is_err());
    assert!(
        load(issuer(json!({ "jwks_url": url, "algorithms": ["ES256"] }))).expect("one").is_ok()
    );
}

#[test]
fn the_memory_is_bounded_and_keeps_what_is_used() {
    let verifier = Verifier::new(8);
    let issuers = issuers();
    let used = hs256(&claims());
    for number in 0..100 {
        assert!(valid(verifier.verify(&issuers, &used, NOW)).is_some());
        let other = hs256(&with("n", json!(number)));
        assert!(valid(verifier.verify(&issuers, &other, NOW)).is_some());
        let generations = verifier.generations.borrow();
        assert!(generations.young.len() + generations.old.len() <= 9);
        let hash: Hash = Sha256::digest(used.as_bytes()).into();
        assert!(generations.young.contains_key(&hash) || generations.old.contains_key(&hash));
    }
    let long = Issuers { token_bytes_max: 10, ..issuers };
    assert!(valid(verifier.verify(&long, &used, NOW)).is_none());
}
