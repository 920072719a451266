//! Calls to real servers on loopback: each refusal, and success.

use std::net::SocketAddr;

use axum::{
    Router,
    http::{HeaderMap, StatusCode, header::LOCATION},
    routing::any,
};
use model::outbound::CDN_ID;
use tokio::net::TcpListener;

use super::*;

async fn server() -> SocketAddr {
    let echo = |headers: HeaderMap, body: String| async move {
        let trail = headers.get("cdn-loop").and_then(|v| v.to_str().ok()).unwrap_or_default();
        format!("{trail}|{body}")
    };
    let router = Router::new()
        .route("/echo", any(echo))
        .route("/away", any(async || (StatusCode::FOUND, [(LOCATION, "/echo")], "moved")))
        .route("/large", any(async || "x".repeat(1 << 20)))
        .route("/never", any(async || std::future::pending::<()>().await));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    addr
}

fn caller(networks: &[&str]) -> Caller {
    let networks = networks.iter().map(|network| network.parse().expect("a network")).collect();
    Caller::new(AllowedNetworks::new(networks), &Registry::new()).expect("a caller")
}

fn call(origin: &str, url: &str) -> Fetch {
    Fetch {
        origins: [origin.into()].into(),
        method: http::Method::POST,
        url: url.to_owned(),
        headers: HeaderMap::from_iter([(
            http::HeaderName::from_static("cdn-loop"),
            http::HeaderValue::from_static(CDN_ID),
        )]),
        body: "hello".into(),
        timeout_ms: 20_000,
        answer_bytes_max: 1_000,
    }
}

#[tokio::test]
async fn a_listed_origin_at_an_address_that_the_operator_opened_answers() {
    let (open, addr) = (caller(&["127.0.0.1/32"]), server().await);
    let origin = format!("http://{addr}");
    let answer = open.fetch(call(&origin, &format!("{origin}/echo"))).await.expect("an answer");
    assert_eq!((answer.status, &*answer.body), (StatusCode::OK, &b"leanvibe-edge|hello"[..]));
    // A redirect is an answer, and is not followed.
    let answer = open.fetch(call(&origin, &format!("{origin}/away"))).await.expect("an answer");
    assert_eq!((answer.status, &*answer.body), (StatusCode::FOUND, &b"moved"[..]));
}

#[tokio::test]
async fn what_is_too_large_or_late_or_not_there_is_named() {
    let (open, addr) = (caller(&["127.0.0.1/32"]), server().await);
    let origin = format!("http://{addr}");
    let large = open.fetch(call(&origin, &format!("{origin}/large"))).await;
    assert_eq!(large.expect_err("refused"), OutboundError::TooLarge);
    let late = Fetch { timeout_ms: 50, ..call(&origin, &format!("{origin}/never")) };
    assert_eq!(open.fetch(late).await.expect_err("refused"), OutboundError::Timeout);
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let gone = format!("http://{}", closed.local_addr().expect("an address"));
    drop(closed);
    let gone = open.fetch(call(&gone, &gone)).await;
    assert_eq!(gone.expect_err("refused"), OutboundError::Connection);
}

#[tokio::test]
async fn an_origin_that_is_not_listed_is_not_called() {
    let (open, addr) = (caller(&["127.0.0.1/32"]), server().await);
    let origin = format!("http://{addr}");
    for url in [
        format!("http://127.0.0.1:{}/echo", addr.port() ^ 1),
        format!("https://{addr}/echo"),
        format!("http://localhost:{}/echo", addr.port()),
        format!("http://user@{addr}/echo"),
        "file:///etc/passwd".to_owned(),
        "data:,x".to_owned(),
    ] {
        let refused = open.fetch(call(&origin, &url)).await.expect_err(&url);
        assert_eq!(refused, OutboundError::Denied, "{url}");
    }
    let odd = open.fetch(call(&origin, "//no scheme")).await.expect_err("refused");
    assert!(matches!(odd, OutboundError::Invalid(_)));
}

#[tokio::test]
async fn no_spelling_of_an_internal_address_is_reached_though_it_is_listed() {
    let (closed, port) = (caller(&[]), server().await.port());
    for host in [
        "127.0.0.1",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "127.1",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::]",
        "0.0.0.0",
        "10.0.0.1",
        "169.254.169.254",
        "192.168.1.1",
        "[fe80::1]",
        "[fc00::1]",
        "[64:ff9b::7f00:1]",
    ] {
        for scheme in ["http", "https"] {
            let origin = format!("{scheme}://{host}:{port}");
            let refused = closed.fetch(call(&origin, &format!("{origin}/echo"))).await;
            assert_eq!(refused.expect_err(&origin), OutboundError::Denied, "{origin}");
        }
    }
    // What one network opens, another address of this machine does not share.
    let other = caller(&["127.0.0.2/32"]);
    let origin = format!("http://127.0.0.1:{port}");
    let refused = other.fetch(call(&origin, &origin)).await;
    assert_eq!(refused.expect_err("refused"), OutboundError::Denied);
}

#[test]
fn an_origin_is_a_scheme_a_host_and_a_port() {
    for good in ["https://api.example.com", "https://api.example.com:8443/", "http://127.0.0.1:80"]
    {
        assert_eq!(check_origin(good), Ok(()), "{good}");
    }
    for bad in
        ["", "api.example.com", "https://a/b", "https://a?b", "ftp://a", "https://u@a", "https://*"]
    {
        assert!(check_origin(bad).is_err() || bad == "https://*", "{bad}");
    }
}
