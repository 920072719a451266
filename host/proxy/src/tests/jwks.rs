//! Keys that an issuer publishes: rotated, withdrawn, broken, late and asked for in a storm.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use serde_json::{Value, json};

use super::world::{NOW, Setup, World};
use crate::{ProxyConfig, tenant::jwks::REFETCH_INTERVAL_MS};

/// A key pair under a name.
struct Pair {
    kid: &'static str,
    private: &'static [u8],
    public: &'static [u8],
}

const OLD: Pair = Pair {
    kid: "old",
    private: include_bytes!("../tenant/jwt/fixtures/ec.pem"),
    public: include_bytes!("../tenant/jwt/fixtures/ec.pub.pem"),
};
const NEW: Pair = Pair {
    kid: "new",
    private: include_bytes!("../tenant/jwt/fixtures/ec2.pem"),
    public: include_bytes!("../tenant/jwt/fixtures/ec2.pub.pem"),
};

impl Pair {
    fn jwk(&self) -> Value {
        let key = DecodingKey::from_ec_pem(self.public).expect("a key");
        let (x, y) = key.as_bytes()[1..].split_at(32);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        json!({ "kty": "EC", "crv": "P-256", "kid": self.kid, "use": "sig", "x": x, "y": y })
    }

    fn token_of(&self, kid: &str, claims: Value) -> String {
        let mut all =
            json!({ "iss": "https://id.test", "aud": "edge", "exp": NOW.0 / 1000 + 86_400 });
        all.as_object_mut().expect("an object").extend(claims.as_object().expect("claims").clone());
        let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::ES256) };
        let key = EncodingKey::from_ec_pem(self.private).expect("a key");
        jsonwebtoken::encode(&header, &all, &key).expect("a token")
    }

    fn token(&self) -> String {
        self.token_of(self.kid, json!({ "tenant_id": "acme" }))
    }
}

fn document(pairs: &[&Pair]) -> String {
    json!({ "keys": pairs.iter().map(|pair| pair.jwk()).collect::<Vec<_>>() }).to_string()
}

/// The server of an identity provider.
struct Provider {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Status line and body of every answer; `None`: hangs up.
    answer: Mutex<Option<(&'static str, String)>>,
    /// Answers are held back while it is set.
    held: Mutex<bool>,
    released: Condvar,
    asked: AtomicUsize,
}

impl Provider {
    fn start(answer: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::<Shared>::default();
        let provider = Self { address, shared: Arc::clone(&shared) };
        provider.publish(answer);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.expect("a connection"));
                let mut line = String::new();
                while stream.read_line(&mut line).is_ok_and(|read| read > 2) {
                    line.clear();
                }
                shared.asked.fetch_add(1, Ordering::SeqCst);
                let held = shared.held.lock().expect("the hold");
                drop(shared.released.wait_while(held, |held| *held).expect("a release"));
                let answer = shared.answer.lock().expect("the answer").clone();
                if let Some((status, body)) = answer {
                    let head = format!(
                        "HTTP/1.1 {status}\r\nlocation: /other\r\nconnection: close\r\n\
                         content-length: {}\r\n\r\n",
                        body.len()
                    );
                    let _gone = stream.get_mut().write_all(format!("{head}{body}").as_bytes());
                }
            }
        });
        provider
    }

    fn publish(&self, body: Option<String>) {
        *self.shared.answer.lock().expect("the answer") = body.map(|body| ("200 OK", body));
    }

    fn answer(&self, status: &'static str, body: String) {
        *self.shared.answer.lock().expect("the answer") = Some((status, body));
    }

    fn hold(&self, held: bool) {
        *self.shared.held.lock().expect("the hold") = held;
        self.shared.released.notify_all();
    }

    fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }

    fn world(&self, tenant_claim: &str) -> World {
        let jwt = json!({ "issuer": [{
            "name": "test", "issuer": "https://id.test", "audience": "edge",
            "tenant_claim": tenant_claim, "algorithms": ["ES256"],
            "jwks_url": format!("http://{}/keys", self.address),
        }]});
        let mut setup = Setup::default();
        let jwt = serde_json::from_value(jwt).expect("a config");
        setup.config = ProxyConfig { jwt, ..setup.config };
        World::with(setup)
    }
}

fn status(world: &World, token: &str) -> u16 {
    world.get("/a", &format!("Authorization: Bearer {token}\r\n")).status
}

/// Waits until the answer is so: fetching goes on beside the requests.
fn becomes(world: &World, token: &str, want: u16) {
    eventually(|| status(world, token) == want);
}

fn eventually(holds: impl Fn() -> bool) {
    assert!((0..2_000).any(|_| holds() || {
        thread::sleep(Duration::from_millis(5));
        false
    }));
}

/// Fetches by outcome, as the metrics say.
fn fetches(world: &World, outcome: &str) -> f64 {
    let families = world.registry.gather();
    let family = families.iter().find(|family| family.name() == "edge_jwks_fetches_total");
    let metrics = family.map(|family| family.get_metric()).unwrap_or_default();
    let of = metrics.iter().find(|metric| metric.get_label().iter().any(|l| l.value() == outcome));
    of.map_or(0.0, |metric| metric.get_counter().get_value())
}

#[test]
fn a_new_key_is_believed_as_soon_as_a_token_names_it() {
    let provider = Provider::start(Some(document(&[&OLD])));
    let world = provider.world("tenant_id");
    becomes(&world, &OLD.token(), 200);
    provider.publish(Some(document(&[&OLD, &NEW])));
    assert_eq!(status(&world, &NEW.token()), 401, "not before the interval is over");
    world.clock.advance_ms(REFETCH_INTERVAL_MS);
    assert_eq!(status(&world, &NEW.token()), 200, "the request waits for the fetch");
    assert_eq!(status(&world, &OLD.token()), 200);
    assert_eq!(provider.asked(), 2);
}

#[test]
fn a_withdrawn_key_is_refused_after_the_next_refresh() {
    let provider = Provider::start(Some(document(&[&OLD, &NEW])));
    let world = provider.world("tenant_id");
    becomes(&world, &OLD.token(), 200);
    provider.publish(Some(document(&[&NEW])));
    assert_eq!(status(&world, &OLD.token()), 200, "nobody knows yet");
    world.clock.advance_ms(400_000);
    becomes(&world, &OLD.token(), 401);
    assert_eq!(status(&world, &NEW.token()), 200);
}

#[test]
fn whatever_else_the_issuer_answers_the_last_good_keys_stay() {
    let provider = Provider::start(Some(document(&[&OLD])));
    let world = provider.world("tenant_id");
    becomes(&world, &OLD.token(), 200);
    let huge = format!("{{\"keys\":[],\"pad\":\"{}\"}}", "x".repeat(1 << 17));
    let other = "302 Found";
    for (answer, outcome) in [
        (Some(("200 OK", "<html>".to_owned())), "invalid"),
        (Some(("200 OK", r#"{"keys":[]}"#.to_owned())), "invalid"),
        (Some(("200 OK", huge)), "too-large"),
        (Some(("500 Oh", document(&[&NEW]))), "status"),
        (Some((other, document(&[&NEW]))), "status"),
        (None, "unreachable"),
    ] {
        match answer {
            Some((status, body)) => provider.answer(status, body),
            None => provider.publish(None),
        }
        let before = fetches(&world, outcome);
        world.clock.advance_ms(400_000);
        eventually(|| fetches(&world, outcome) > before);
        assert_eq!(status(&world, &OLD.token()), 200, "{outcome}");
        assert_eq!(status(&world, &NEW.token()), 401, "{outcome}");
    }
    provider.publish(Some(document(&[&NEW])));
    world.clock.advance_ms(400_000);
    becomes(&world, &NEW.token(), 200);
}

#[test]
fn before_the_first_keys_the_answer_is_503_and_then_they_come() {
    let provider = Provider::start(None);
    let world = provider.world("tenant_id");
    let answer = world.get("/a", &format!("Authorization: Bearer {}\r\n", OLD.token()));
    assert_eq!((answer.status, &*answer.code()), (503, "temporary-reduced-capacity"));
    assert_eq!(answer.field("retry-after").as_deref(), Some("1"));
    assert_eq!(status(&world, "not.a.jwt"), 401, "what could never be valid is told at once");
    world.still_serves();
    provider.publish(Some(document(&[&OLD])));
    assert_eq!(status(&world, &OLD.token()), 503, "one question per interval, not one per request");
    world.clock.advance_ms(REFETCH_INTERVAL_MS);
    becomes(&world, &OLD.token(), 200);
}

#[test]
fn a_storm_of_unknown_keys_is_one_question_per_interval() {
    let provider = Provider::start(Some(document(&[&OLD])));
    let world = provider.world("tenant_id");
    becomes(&world, &OLD.token(), 200);
    for round in 1..=3 {
        world.clock.advance_ms(REFETCH_INTERVAL_MS);
        thread::scope(|scope| {
            for client in 0..8 {
                let world = &world;
                scope.spawn(move || {
                    for number in 0..10 {
                        let kid = format!("{round}-{client}-{number}");
                        let token = NEW.token_of(&kid, json!({ "tenant_id": "acme" }));
                        assert_eq!(status(world, &token), 401);
                    }
                });
            }
        });
        assert_eq!(provider.asked(), 1 + round);
    }
    let expired = json!({ "tenant_id": "acme", "exp": 1 });
    let other = json!({ "tenant_id": "acme", "aud": "other" });
    world.clock.advance_ms(REFETCH_INTERVAL_MS);
    for claims in [expired, other] {
        assert_eq!(status(&world, &NEW.token_of("unknown", claims)), 401);
    }
    assert_eq!(provider.asked(), 4, "tokens that no key could save ask nothing");
}

#[test]
fn a_slow_issuer_holds_a_request_only_so_long() {
    let provider = Provider::start(Some(document(&[&OLD])));
    let world = provider.world("tenant_id");
    becomes(&world, &OLD.token(), 200);
    provider.publish(Some(document(&[&OLD, &NEW])));
    provider.hold(true);
    world.clock.advance_ms(REFETCH_INTERVAL_MS);
    let answer = world.get("/a", &format!("Authorization: Bearer {}\r\n", NEW.token()));
    assert_eq!((answer.status, &*answer.code()), (503, "temporary-reduced-capacity"));
    assert_eq!(status(&world, &OLD.token()), 200, "known keys do not wait");
    provider.hold(false);
    becomes(&world, &NEW.token(), 200);
}

#[test]
fn the_tenant_stands_where_the_issuer_puts_it() {
    let id = super::world::tenant_id(1).to_string();
    for (path, claims) in [
        ("https://acme.example/tenant", json!({ "https://acme.example/tenant": "acme" })),
        ("org.tenant_id", json!({ "org": { "tenant_id": id } })),
        ("/orgs/0/slug", json!({ "orgs": [{ "slug": "acme" }] })),
    ] {
        let provider = Provider::start(Some(document(&[&OLD])));
        let world = provider.world(path);
        becomes(&world, &OLD.token_of("old", claims), 200);
        assert_eq!(world.origin.last().field("x-tenant-slug").as_deref(), Some("acme"), "{path}");
        assert_eq!(status(&world, &OLD.token_of("old", json!({ "elsewhere": "acme" }))), 401);
    }
}
