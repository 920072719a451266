//! Whose request it is: `tenancy.md` 1.4 and 1.5, answer by answer.

use super::world::{NOW, Setup, World};
use crate::config::JwtConfig;

/// An HS256 issuer whose tokens name their tenant in `org.slug`.
pub(super) fn jwt() -> JwtConfig {
    let config = serde_json::json!({ "issuer": [{
        "name": "test",
        "issuer": "https://id.test",
        "audience": "edge",
        "tenant_claim": "org.slug",
        "claims": ["role"],
        "keys": [{ "algorithm": "HS256", "secret": SECRET }],
    }]});
    serde_json::from_value(config).expect("a config")
}

const SECRET: &str = "0123456789abcdef0123456789abcdef";

pub(super) fn token(slug: &str) -> String {
    let claims = serde_json::json!({
        "iss": "https://id.test", "aud": "edge", "exp": NOW.0 / 1000 + 60, "sub": "user-1",
        "org": { "slug": slug }, "role": "admin", "secret": "not for policies",
    });
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("a token")
}

fn world() -> World {
    let mut setup = Setup::default();
    setup.config.jwt = jwt();
    World::with(setup)
}

fn ask(world: &World, host: &str, authorization: &str) -> (u16, String) {
    let authorization = match authorization {
        "" => String::new(),
        value => format!("Authorization: {value}\r\n"),
    };
    let answer = world.send(format!("GET /a HTTP/1.1\r\nHost: {host}\r\n{authorization}\r\n"));
    if answer.status == 200 {
        return (200, world.origin.last().field("x-tenant-slug").expect("a tenant"));
    }
    if answer.status == 401 {
        assert_eq!(answer.field("www-authenticate").as_deref(), Some("Bearer"));
    }
    (answer.status, answer.code())
}

#[test]
fn host_and_token_name_the_tenant_together() {
    let world = world();
    let key = format!("Bearer {}", world.key);
    let (acme, beta) = (format!("Bearer {}", token("acme")), format!("bearer {}", token("beta")));
    let nobody = format!("Bearer {}", token("nobody"));
    for (host, authorization, status, what) in [
        ("acme.test", "", 200, "acme"),
        ("www.acme-custom.example", "", 200, "acme"),
        ("acme.test", &*key, 200, "acme"),
        ("acme.test", &acme, 200, "acme"),
        ("beta.test", &beta, 200, "beta"),
        ("api.test", &key, 200, "acme"),
        ("api.test", &beta, 200, "beta"),
        ("acme.test", "Basic dXNlcjpwYXNz", 200, "acme"),
        ("acme.test", &beta, 403, "tenant-mismatch"),
        ("beta.test", &key, 403, "tenant-mismatch"),
        ("api.test", "", 401, "unauthenticated"),
        ("api.test", "Basic dXNlcjpwYXNz", 401, "unauthenticated"),
        ("api.test", &nobody, 401, "unauthenticated"),
        ("acme.test", "Bearer x", 401, "unauthenticated"),
        ("acme.test", "Bearer ", 401, "unauthenticated"),
        ("acme.test", "Bearer lv_live_000000000000_bad", 401, "unauthenticated"),
        ("nobody.test", &key, 404, "not-found"),
        ("a.acme.test", "", 404, "not-found"),
        ("test", "", 404, "not-found"),
        ("127.0.0.1", &key, 404, "not-found"),
        ("other.example", "", 404, "not-found"),
    ] {
        assert_eq!(
            ask(&world, host, authorization),
            (status, what.to_owned()),
            "{host} {authorization}"
        );
    }
}

#[test]
fn every_status_has_its_answer() {
    let world = world();
    for (slug, status, code) in [
        ("preparing", 503, "temporary-reduced-capacity"),
        ("suspended", 403, "tenant-suspended"),
        ("unpaid", 402, "payment-required"),
        ("expired", 403, "trial-expired"),
        ("erased", 410, "tenant-erased"),
        ("overdue", 402, "payment-required"),
    ] {
        assert_eq!(ask(&world, &format!("{slug}.test"), ""), (status, code.to_owned()));
    }
    assert_eq!(world.gate.counts(), (0, 0), "a refusal takes no token");
    assert!(world.origin.seen().is_empty());
}

#[test]
fn every_cause_of_a_401_has_the_same_body() {
    let world = world();
    let mut wrong = world.key.clone();
    wrong.pop();
    let bodies = ["Bearer x", &format!("Bearer {wrong}"), &format!("Bearer {}", token("nobody"))]
        .map(|authorization| {
            let answer = world.get("/", &format!("Authorization: {authorization}\r\n"));
            assert_eq!(answer.status, 401);
            let mut problem = answer.json();
            problem.as_object_mut().expect("an object").remove("request_id");
            problem
        });
    assert!(bodies.iter().all(|body| *body == bodies[0]));
    let twice = format!("Authorization: Bearer {0}\r\nAuthorization: Bearer {0}\r\n", world.key);
    assert_eq!(world.get("/", &twice).status, 401);
}

#[test]
fn api_keys_end_here_and_jwts_go_on() {
    let world = world();
    assert_eq!(world.get("/a", &format!("Authorization: Bearer {}\r\n", world.key)).status, 200);
    let seen = world.origin.last();
    assert_eq!(seen.field("authorization"), None);
    assert_eq!(seen.field("x-tenant-subject"), None);
    let bearer = format!("Bearer {}", token("acme"));
    assert_eq!(world.get("/a", &format!("Authorization: {bearer}\r\n")).status, 200);
    let seen = world.origin.last();
    assert_eq!(seen.field("authorization"), Some(bearer));
    assert_eq!(seen.field("x-tenant-subject").as_deref(), Some("user-1"));
}

#[test]
fn a_token_expires_although_it_is_remembered() {
    let world = world();
    let field = format!("Authorization: Bearer {}\r\n", token("acme"));
    assert_eq!(world.get("/a", &field).status, 200);
    assert_eq!(world.get("/a", &field).status, 200);
    world.clock.advance_ms(121_000);
    assert_eq!(world.get("/a", &field).status, 401);
}

#[test]
fn before_the_first_snapshot_the_answer_is_503() {
    let world = world();
    world.snapshots.send_replace(std::sync::Arc::default());
    let answer = world.get("/", "");
    assert_eq!(answer.status, 503);
    assert_eq!(answer.code(), "temporary-reduced-capacity");
    assert_eq!(answer.field("retry-after").as_deref(), Some("1"));
    assert_eq!(answer.json()["type"], model::problem::TEMPORARY_REDUCED_CAPACITY);
}

#[test]
fn an_unmatched_path_is_404_and_takes_no_token() {
    let world = world();
    let answer = world.get("/a/b/c/d", "");
    assert_eq!((answer.status, answer.code()), (404, "not-found".to_owned()));
    assert_eq!(world.gate.counts(), (0, 0));
}
