//! The service on the shared host: who gets there, and what still holds there.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use model::BoxFuture;

use super::{
    h2,
    tenants::{jwt, token},
    world::{Setup, World},
};
use crate::{LocalBody, LocalService};

/// Answers below `/v1` on a runtime of its own, and says what it saw.
struct Echo {
    runtime: tokio::runtime::Handle,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Echo {
    fn new() -> Arc<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let handle = runtime.handle().clone();
        std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
        Arc::new(Self { runtime: handle, seen: Arc::default() })
    }

    fn calls(&self) -> Vec<String> {
        self.seen.lock().expect("the log").clone()
    }
}

impl LocalService for Echo {
    fn serves(&self, path: &str) -> bool {
        path == "/v1" || path.starts_with("/v1/")
    }

    fn call(&self, request: Request<LocalBody>) -> BoxFuture<'static, Response<LocalBody>> {
        let seen = Arc::clone(&self.seen);
        let task = self.runtime.spawn(async move {
            let (head, body) = request.into_parts();
            let line = format!("{} {}", head.method, head.uri);
            if head.uri.path() == "/v1/hang" {
                std::future::pending::<()>().await;
            }
            let body = match head.uri.path() {
                "/v1/unread" => Ok(Bytes::from_static(b"not read")),
                _ => body.collect().await.map(|body| body.to_bytes()),
            };
            seen.lock().expect("the log").push(match &body {
                Ok(body) => format!("{line} {}", body.len()),
                Err(_) => format!("{line} broken"),
            });
            let fields: Vec<String> = head
                .headers
                .iter()
                .map(|(n, v)| format!("{n}: {}", v.to_str().expect("text")))
                .collect();
            let text = format!("{line}\n{}\n\n", fields.join("\n"));
            let all = [text.into_bytes(), body.unwrap_or_default().to_vec()].concat();
            let body = Full::new(Bytes::from(all)).map_err(|never| match never {}).boxed_unsync();
            Response::builder()
                .status(201)
                .header("connection", "x-hop")
                .header("x-hop", "1")
                .header("etag", "\"7\"")
                .body(body)
                .expect("a response")
        });
        Box::pin(async move { task.await.expect("an answer") })
    }
}

fn world(change: impl FnOnce(&mut Setup)) -> (World, Arc<Echo>) {
    let echo = Echo::new();
    let mut setup = Setup { api: Some(Arc::clone(&echo) as _), ..Setup::default() };
    setup.config.jwt = jwt();
    change(&mut setup);
    (World::with(setup), echo)
}

#[test]
fn the_shared_host_serves_the_service_and_the_tenants() {
    let (world, echo) = world(|_| {});
    let jwt = token("acme");
    for (host, path, authorization, status) in [
        ("api.test", "/v1/tenants?x=1", "Bearer lv_admin_secret", 201),
        ("API.test.:80", "/v1/tenants", "Bearer anything", 201),
        ("api.test", "/v1/openapi.json", "", 201),
        ("api.test", "/v1", "Basic eDp5", 201),
        // A tenant's credential reaches the tenant, on every path.
        ("api.test", "/v1/tenants", &*format!("Bearer {}", world.key), 200),
        ("api.test", "/v1/tenants", &*format!("bearer {jwt}"), 200),
        ("api.test", "/v1/tenants", "Bearer lv_live_000000000000_bad", 401),
        // Paths that are none of the service's: as without it.
        ("api.test", "/metrics", "Bearer lv_admin_secret", 401),
        ("api.test", "/livez", "", 401),
        ("api.test", "/v1x", "", 401),
        // Another host is another matter.
        ("acme.test", "/v1/tenants", "", 200),
        ("test", "/v1/tenants", "", 404),
        ("api.api.test", "/v1/tenants", "", 404),
        ("api.example", "/v1/tenants", "", 404),
        ("127.0.0.1", "/v1/tenants", "", 404),
    ] {
        let authorization = match authorization {
            "" => String::new(),
            value => format!("Authorization: {value}\r\n"),
        };
        let before = echo.calls().len();
        let answer =
            world.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{authorization}\r\n"));
        assert_eq!(answer.status, status, "{host} {path} {authorization}");
        assert_eq!(echo.calls().len() - before, usize::from(status == 201), "{host} {path}");
    }
    assert_eq!(world.gate.counts().0, 3, "only the tenants' requests take a token");
}

#[test]
fn a_request_arrives_whole_and_normal() {
    let (world, _echo) = world(|_| {});
    let answer = world.send(
        "POST /v1/./a//b?c=d HTTP/1.1\r\nHost: api.test\r\nIdempotency-Key: k\r\nX-Tenant-Id: evil\r\n\
         Connection: x-mine\r\nX-Mine: 1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
    );
    assert_eq!(answer.status, 201);
    let text = answer.text();
    assert!(text.starts_with("POST /v1/"), "{text}");
    assert!(text.contains("idempotency-key: k") && text.contains("host: api.test"), "{text}");
    assert!(!text.contains("evil") && !text.contains("x-mine"), "{text}");
    assert!(text.ends_with("\n\nabcde"), "{text}");
    let id = answer.field("x-request-id").expect("an id");
    assert!(text.contains(&format!("x-request-id: {id}")), "{text}");
    assert_eq!(answer.field("etag").as_deref(), Some("\"7\""));
    assert_eq!((answer.field("x-hop"), answer.field("ratelimit")), (None, None));
}

#[test]
fn the_strict_grammar_and_the_limits_hold_there_too() {
    let (world, echo) = world(|setup| {
        setup.config.limits.request_body_bytes_max = 1_000;
        setup.config.limits.total_timeout_ms = 300;
    });
    let both = "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    for (request, status) in [
        (format!("POST /v1/a HTTP/1.1\r\nHost: api.test\r\n{both}"), 400),
        ("GET /v1/%2e%2e/metrics HTTP/1.1\r\nHost: api.test\r\n\r\n".to_owned(), 400),
        ("POST /v1/a HTTP/1.1\r\nHost: api.test\r\nContent-Length: 1001\r\n\r\n".to_owned(), 413),
        ("GET /v1/hang HTTP/1.1\r\nHost: api.test\r\n\r\n".to_owned(), 504),
    ] {
        let answer = world.send(&request);
        assert_eq!(answer.status, status, "{request}");
        answer.code();
    }
    assert!(echo.calls().is_empty());
    let chunk = format!("3e9\r\n{}\r\n0\r\n\r\n", "x".repeat(1_001));
    let head = "POST /v1/a HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(world.send(format!("{head}{chunk}")).status, 413);
    world.serves_again();
}

#[test]
fn a_body_that_breaks_off_never_arrives_as_a_whole_one() {
    let (world, echo) = world(|_| {});
    let mut client = world.client();
    client.write("POST /v1/a HTTP/1.1\r\nHost: api.test\r\nContent-Length: 10\r\n\r\nhalf");
    client.hang_up();
    for _ in 0..2_000 {
        if echo.calls() == ["POST /v1/a broken"] {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(echo.calls(), ["POST /v1/a broken"]);
    let mut client = world.client();
    client.write("POST /v1/unread HTTP/1.1\r\nHost: api.test\r\nContent-Length: 9000\r\n\r\nhalf");
    assert_eq!(client.read().expect("an answer").status, 201, "nobody waits for what nobody reads");
    world.still_serves();
}

#[test]
fn it_is_served_over_http_2_and_to_head() {
    let (world, _echo) = world(|_| {});
    let answer = world.send("HEAD /v1/a HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n");
    assert_eq!((answer.status, answer.body.len()), (201, 0));
    h2::block_on(async {
        let mut sender = h2::connect(world.address).await;
        for number in 0..100 {
            let mut request = h2::request(&format!("http://api.test/v1/r{number}"), "hello");
            *request.method_mut() = http::Method::POST;
            let answer = sender.send_request(request).await.expect("an answer");
            assert_eq!(answer.status(), 201);
            let text = h2::text(answer).await;
            assert!(text.starts_with(&format!("POST /v1/r{number}\n")) && text.ends_with("hello"));
        }
        let request = h2::request("http://acme.test/a", "");
        assert_eq!(sender.send_request(request).await.expect("an answer").status(), 200);
    });
}
