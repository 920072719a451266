//! HTTP/2 with prior knowledge on the same port.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::world::World;

pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

pub(super) async fn connect(to: SocketAddr) -> http2::SendRequest<Full<Bytes>> {
    let stream = tokio::net::TcpStream::connect(to).await.expect("the edge listens");
    let (sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("a handshake");
    tokio::spawn(connection);
    sender
}

pub(super) fn request(uri: &str, body: &'static str) -> Request<Full<Bytes>> {
    let request = Request::builder().uri(uri).version(Version::HTTP_2);
    request.body(Full::from(body)).expect("a request")
}

pub(super) async fn text(response: Response<Incoming>) -> String {
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    String::from_utf8(body.into()).expect("text")
}

#[test]
fn many_streams_walk_the_same_steps() {
    let world = World::new();
    block_on(async {
        let sender = connect(world.address).await;
        let calls = (0..50).map(|number| {
            let mut sender = sender.clone();
            tokio::spawn(async move {
                let request = request(&format!("http://acme.test/r{number}"), "hello");
                let response = sender.send_request(request).await.expect("an answer");
                assert_eq!(
                    (response.status(), response.version()),
                    (http::StatusCode::OK, Version::HTTP_2)
                );
                assert!(text(response).await.starts_with(&format!("GET /r{number} HTTP/1.1")));
            })
        });
        for call in calls.collect::<Vec<_>>() {
            call.await.expect("a call");
        }
    });
    let seen = world.origin.last();
    assert_eq!(seen.field("via").as_deref(), Some("2.0 leanvibe-edge"));
    assert_eq!(seen.field("host").as_deref(), Some("acme.test"));
    assert_eq!(seen.body, b"hello");
}

#[test]
fn hosts_and_methods_have_the_same_rules() {
    let world = World::new();
    block_on(async {
        let mut sender = connect(world.address).await;
        let mut two = request("http://acme.test/", "");
        two.headers_mut().insert("host", "beta.test".parse().expect("a value"));
        assert_eq!(sender.send_request(two).await.expect("an answer").status(), 400);
        let mut connect = request("http://acme.test:80", "");
        *connect.method_mut() = http::Method::CONNECT;
        *connect.uri_mut() = "acme.test:80".parse().expect("a target");
        assert_eq!(sender.send_request(connect).await.expect("an answer").status(), 405);
        let unknown = sender.send_request(request("http://nobody.test/", "")).await;
        let unknown = unknown.expect("an answer");
        assert_eq!(unknown.status(), 404);
        assert_eq!(unknown.headers()["content-type"], "application/problem+json");
        let bad = sender.send_request(request("http://acme.test/%2e%2e/", "")).await;
        assert_eq!(bad.expect("an answer").status(), 400);
    });
    assert!(world.origin.seen().is_empty());
}

#[test]
fn an_answer_to_head_has_a_length_and_no_body() {
    let world = World::new();
    block_on(async {
        let mut sender = connect(world.address).await;
        for uri in ["http://nobody.test/", "http://acme.test/head"] {
            let mut request = request(uri, "");
            *request.method_mut() = http::Method::HEAD;
            let answer = sender.send_request(request).await.expect("an answer");
            assert_ne!(answer.headers()["content-length"], "0", "{uri}");
            assert_eq!(text(answer).await, "");
        }
    });
}

#[test]
fn cookie_crumbs_are_one_field_again() {
    let world = World::new();
    block_on(async {
        let mut sender = connect(world.address).await;
        let mut request = request("http://acme.test/a", "");
        request.headers_mut().append("cookie", "a=1".parse().expect("a value"));
        request.headers_mut().append("cookie", "b=2".parse().expect("a value"));
        assert_eq!(sender.send_request(request).await.expect("an answer").status(), 200);
    });
    assert_eq!(world.origin.last().field("cookie").as_deref(), Some("a=1; b=2"));
}

#[test]
fn a_body_that_breaks_off_resets_its_stream_only() {
    let world = World::new();
    block_on(async {
        let mut sender = connect(world.address).await;
        let broken = sender.send_request(request("http://acme.test/half-body", "")).await;
        let broken = broken.expect("a head");
        assert!(broken.into_body().collect().await.is_err());
        let after = sender.send_request(request("http://acme.test/a", "")).await;
        assert_eq!(after.expect("an answer").status(), 200);
    });
}

#[test]
fn a_stream_that_is_reset_frees_its_upstream() {
    let world = World::new();
    block_on(async {
        let mut sender = connect(world.address).await;
        let call = sender.send_request(request("http://acme.test/never", ""));
        let waiting = tokio::time::timeout(std::time::Duration::from_millis(200), call).await;
        assert!(waiting.is_err(), "the origin never answers");
        let after = sender.send_request(request("http://acme.test/a", "")).await;
        assert_eq!(after.expect("an answer").status(), 200);
    });
    // The token of a request that left stays charged.
    assert_eq!(world.gate.counts(), (2, 0));
}

#[test]
fn draining_says_goaway_and_finishes_the_streams() {
    let mut world = World::new();
    let running = world.running.take().expect("it runs");
    block_on(async {
        let mut sender = connect(world.address).await;
        let held = tokio::spawn(sender.send_request(request("http://acme.test/hold", "")));
        let pause = || tokio::time::sleep(std::time::Duration::from_millis(5));
        while world.origin.seen().is_empty() {
            pause().await;
        }
        // Longer than the test may take: only the end of the connection ends the drain.
        let draining = tokio::spawn(running.drain(super::client::PATIENCE * 60));
        while tokio::net::TcpStream::connect(world.address).await.is_ok() {
            pause().await;
        }
        world.origin.release.send(()).expect("the origin waits");
        assert_eq!(held.await.expect("a call").expect("an answer").status(), 200);
        let drained = tokio::time::timeout(super::client::PATIENCE, draining).await;
        drained.expect("the client was told to go").expect("it drained");
        assert!(sender.ready().await.is_err());
    });
}
