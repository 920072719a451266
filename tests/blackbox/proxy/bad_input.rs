//! Malformed and ambiguous requests: refused, and the next request is served.

use crate::actors::{World, raw_exchange};

const HOST: &str = "host: acme.localhost\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn ambiguous_messages_are_refused_and_never_reach_an_origin() {
    let world = World::start().await;
    let acme = world.tenant("acme", "enterprise", "us").await;
    let smuggled = "GET /admin HTTP/1.1\r\nhost: acme.localhost\r\n\r\n";
    let long = "a".repeat(20_000);
    let many: String = (0..101).map(|i| format!("x-{i}: 1\r\n")).collect();
    let cases: Vec<(&str, String, &[&str])> = vec![
        (
            "CL.TE",
            format!(
                "POST / HTTP/1.1\r\n{HOST}content-length: 13\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
            ),
            &["400"],
        ),
        (
            "TE.CL",
            format!(
                "POST / HTTP/1.1\r\n{HOST}transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n5c\r\n{smuggled}\r\n0\r\n\r\n"
            ),
            &["400"],
        ),
        (
            "gzip, chunked",
            format!("POST / HTTP/1.1\r\n{HOST}transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
            &["400", "501"],
        ),
        (
            "two TE",
            format!(
                "POST / HTTP/1.1\r\n{HOST}transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
            &["400", "501"],
        ),
        (
            "xchunked",
            format!("POST / HTTP/1.1\r\n{HOST}transfer-encoding: xchunked\r\n\r\n0\r\n\r\n"),
            &["400", "501"],
        ),
        (
            "two different CL",
            format!("POST / HTTP/1.1\r\n{HOST}content-length: 1\r\ncontent-length: 2\r\n\r\nab"),
            &["400"],
        ),
        ("CL +5", format!("POST / HTTP/1.1\r\n{HOST}content-length: +5\r\n\r\nhello"), &["400"]),
        (
            "CL list",
            format!("POST / HTTP/1.1\r\n{HOST}content-length: 5, 5\r\n\r\nhello"),
            &["400"],
        ),
        ("bare LF", "GET / HTTP/1.1\nhost: acme.localhost\n\n".into(), &["400"]),
        ("obs-fold", format!("GET / HTTP/1.1\r\n{HOST}x-a: 1\r\n  2\r\n\r\n"), &["400"]),
        ("space before colon", format!("GET / HTTP/1.1\r\n{HOST}x-a : 1\r\n\r\n"), &["400"]),
        ("NUL in value", format!("GET / HTTP/1.1\r\n{HOST}x-a: 1\0\r\n\r\n"), &["400"]),
        ("no host", "GET / HTTP/1.1\r\nx: y\r\n\r\n".into(), &["400"]),
        ("two hosts", format!("GET / HTTP/1.1\r\n{HOST}{HOST}\r\n"), &["400"]),
        (
            "absolute form elsewhere",
            format!("GET http://other.localhost/ HTTP/1.1\r\n{HOST}\r\n"),
            &["400"],
        ),
        ("CONNECT", format!("CONNECT acme.localhost:80 HTTP/1.1\r\n{HOST}\r\n"), &["400", "405"]),
        ("encoded dots", format!("GET /a/%2e%2e/admin HTTP/1.1\r\n{HOST}\r\n"), &["400"]),
        ("encoded slash", format!("GET /a%2fb HTTP/1.1\r\n{HOST}\r\n"), &["400"]),
        ("encoded NUL", format!("GET /a%00 HTTP/1.1\r\n{HOST}\r\n"), &["400"]),
        ("backslash", format!("GET /a\\b HTTP/1.1\r\n{HOST}\r\n"), &["400"]),
        ("head too large", format!("GET / HTTP/1.1\r\n{HOST}x-a: {long}\r\n\r\n"), &["431", "400"]),
        ("URI too long", format!("GET /{long} HTTP/1.1\r\n{HOST}\r\n"), &["414", "431", "400"]),
        ("101 fields", format!("GET / HTTP/1.1\r\n{HOST}{many}\r\n"), &["431", "400"]),
        (
            "bad chunk size",
            format!(
                "POST / HTTP/1.1\r\n{HOST}transfer-encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n"
            ),
            &["400"],
        ),
        (
            "HTTP/1.0 with TE",
            format!("POST / HTTP/1.0\r\n{HOST}transfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
            &["400"],
        ),
        ("no HTTP", "hello\r\n\r\n".into(), &["400"]),
        (
            "unknown expectation",
            format!(
                "POST / HTTP/1.1\r\n{HOST}expect: y\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            ),
            &["417"],
        ),
    ];
    for (name, bytes, statuses) in cases {
        let before: Vec<String> = paths(&world);
        let answer = raw_exchange(world.edge_addr(), bytes).await;
        let status = answer.get(9..12).unwrap_or("none").to_owned();
        assert!(statuses.contains(&status.as_str()), "{name}: {answer:?}");
        let once = answer.matches("HTTP/1.1 ").count();
        assert_eq!(once, 1, "{name}: one answer, then the connection ends: {answer:?}");
        let new: Vec<String> = paths(&world).split_off(before.len());
        assert!(!new.iter().any(|path| path.contains("admin")), "{name}: {new:?}");
        assert!(new.is_empty(), "{name}: reached an origin: {new:?}");
        acme.get("/alive").await.expect(200);
    }
}

fn paths(world: &World) -> Vec<String> {
    let all = world.origins.values().flat_map(|origin| origin.received());
    all.map(|r| r.path).filter(|path| path != "/alive").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_problems_without_inner_detail() {
    let world = World::start().await;
    let answer = raw_exchange(
        world.edge_addr(),
        "POST / HTTP/1.1\r\nhost: acme.localhost\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
    )
    .await;
    assert!(
        answer.to_ascii_lowercase().contains("content-type: application/problem+json"),
        "{answer}"
    );
    assert!(answer.contains("\"type\":\"https://leanvibe.ai/problems/"), "{answer}");
    for inner in ["hyper", "rust", "src/", "127.0.0.1"] {
        assert!(!answer.contains(inner), "{inner} in {answer}");
    }
}
