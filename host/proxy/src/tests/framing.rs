//! Messages with two readings (checklist A): refused, closed, and never forwarded.

use super::{client::Client, world::World};

/// Sends raw bytes; wants a problem of `status`, a closed connection and an origin that
/// saw nothing.
fn refused(world: &World, wire: impl AsRef<[u8]>, status: u16) {
    let wire = wire.as_ref();
    let shown = String::from_utf8_lossy(&wire[..wire.len().min(120)]).into_owned();
    let before = world.origin.seen().len();
    let mut client = world.client();
    client.try_write(wire);
    let answer = client.read().unwrap_or_else(|| panic!("no answer to {shown:?}"));
    assert_eq!(answer.status, status, "{shown:?} got {}", answer.text());
    answer.code();
    assert_eq!(answer.field("connection").as_deref(), Some("close"), "{shown:?}");
    assert!(client.is_closed(), "{shown:?}");
    assert_eq!(world.origin.seen().len(), before, "the origin saw {shown:?}");
}

#[test]
fn a_request_with_two_framings_never_reaches_the_origin() {
    let world = World::new();
    let smuggled = "GET /admin HTTP/1.1\r\nHost: acme.test\r\n\r\n";
    for framing in [
        "Content-Length: 13\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 13",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: ,chunked",
        "Transfer-Encoding: chunked;a=b",
        "Transfer-Encoding: \x0bchunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding:\r\n chunked",
        "Content-Length: +5",
        "Content-Length: -1",
        "Content-Length: 0x10",
        "Content-Length: 1_0",
        "Content-Length: 5 5",
        "Content-Length: 5, 5",
        "Content-Length:",
        "Content-Length: 1Z",
        "Content-Length: 18446744073709551616",
        "Content-Length: 010",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length:\r\nContent-Length: 5",
    ] {
        let wire =
            format!("POST / HTTP/1.1\r\nHost: acme.test\r\n{framing}\r\n\r\n0\r\n\r\n{smuggled}");
        refused(&world, wire, 400);
    }
    refused(
        &world,
        b"POST / HTTP/1.1\r\nHost: acme.test\r\nTransfer-Encoding: \xa0chunked\r\n\r\n",
        400,
    );
    let old = "POST / HTTP/1.0\r\nHost: acme.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    refused(&world, old, 400);
    world.still_serves();
}

#[test]
fn malformed_heads_are_refused() {
    let world = World::new();
    for field in [
        "x: a\0b",
        "x: a\rb",
        "x: a\r\n folded",
        "x : y",
        ": y",
        "x\u{e9}: y",
        "noColon",
        "x: \u{7f}",
    ] {
        refused(&world, format!("GET / HTTP/1.1\r\nHost: acme.test\r\n{field}\r\n\r\n"), 400);
    }
    refused(&world, b"GET / HTTP/1.1\r\nHost: acme.test\r\nx: \x85\r\n\r\n", 400);
    refused(&world, "GET / HTTP/1.1\nHost: acme.test\n\n", 400);
    refused(&world, "GET / HTTP/1.1\r\nHost: acme.test\n\r\n", 400);
    for line in [
        "GET  / HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET / HTTP/1.32",
        "GET / HTTP/4294967295.255",
        "GET /a\nb HTTP/1.1",
        "GET /#f HTTP/1.1",
        "GET / HTTP/1.1 x",
        "GET /",
        "OPTIONS * HTTP/1.1",
        "GET http://other.test/ HTTP/1.1",
    ] {
        refused(&world, format!("{line}\r\nHost: acme.test\r\n\r\n"), 400);
    }
    refused(&world, "CONNECT acme.test:80 HTTP/1.1\r\nHost: acme.test:80\r\n\r\n", 405);
    let expect =
        "POST / HTTP/1.1\r\nHost: acme.test\r\nExpect: y 100-continue\r\nContent-Length: 1\r\n\r\n";
    refused(&world, expect, 417);
    world.still_serves();
}

#[test]
fn a_request_names_exactly_one_well_formed_host() {
    let world = World::new();
    for hosts in [
        "",
        "Host: acme.test\r\nHost: acme.test\r\n",
        "Host: acme.test, beta.test\r\n",
        "Host: u@acme.test\r\n",
        "Host: acme.test:99999\r\n",
        "Host: [fe80::1%25eth0]\r\n",
        "Host:\r\n",
    ] {
        refused(&world, format!("GET / HTTP/1.1\r\n{hosts}\r\n"), 400);
    }
    for host in ["ACME.test", "acme.TEST.", "Acme.test:8080"] {
        let answer = world.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(answer.status, 200, "{host}");
        assert_eq!(world.origin.last().field("x-tenant-slug").as_deref(), Some("acme"));
    }
}

#[test]
fn paths_with_two_readings_are_refused_and_the_rest_has_one_form() {
    let world = World::new();
    for path in
        ["/%2e%2e/x", "/a%2fb", "/a%5cb", "/%00", "/%c0%af", "/a\\b", "/..", "/a/..;/b", "/%zz"]
    {
        refused(&world, format!("GET {path} HTTP/1.1\r\nHost: acme.test\r\n\r\n"), 400);
    }
    for (path, want) in [("/a/./b", "/a/b"), ("/x/../a?q=%2f", "/a?q=%2f"), ("/%61;x=y", "/a;x=y")]
    {
        assert_eq!(world.get(path, "").status, 200);
        assert_eq!(world.origin.last().target(), want);
    }
}

#[test]
fn sizes_are_bounded_before_anything_is_kept() {
    let world = World::new();
    let long = "a".repeat(1 << 20);
    refused(&world, format!("GET /{long} HTTP/1.1\r\nHost: acme.test\r\n\r\n"), 414);
    refused(
        &world,
        format!("GET / HTTP/1.1\r\nHost: acme.test\r\nx: {}\r\n\r\n", &long[..65_536]),
        431,
    );
    let many = "x: y\r\n".repeat(101);
    refused(&world, format!("GET / HTTP/1.1\r\nHost: acme.test\r\n{many}\r\n"), 431);
    let cookies = "Cookie: a=b\r\n".repeat(10_000);
    refused(&world, format!("GET / HTTP/1.1\r\nHost: acme.test\r\n{cookies}\r\n"), 431);
    world.still_serves();
}

#[test]
fn a_broken_chunked_body_ends_the_request_on_both_sides() {
    let world = World::new();
    for body in [
        "5\nhello\r\n0\r\n\r\n",
        "5\r\r\nhello",
        " 5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello",
        "-0\r\n\r\n",
        "00000000000000005\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5;a\0\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nbad trailer: x\r\n\r\n",
    ] {
        let mut client = world.client();
        client.write(format!(
            "POST /a HTTP/1.1\r\nHost: acme.test\r\nTransfer-Encoding: chunked\r\n\r\n{body}\
             GET /smuggled HTTP/1.1\r\nHost: acme.test\r\n\r\n"
        ));
        let answer = client.read().unwrap_or_else(|| panic!("no answer to {body:?}"));
        assert_eq!(
            (answer.status, answer.code()),
            (400, "malformed-request".to_owned()),
            "{body:?}"
        );
        assert!(client.is_closed());
    }
    let seen = world.origin.seen();
    assert!(!seen.iter().any(|seen| seen.target() == "/smuggled"));
    world.still_serves();
    // No connection that carried a broken body was used again.
    let last = world.origin.last();
    assert!(!seen.iter().any(|seen| seen.connection == last.connection));
}

#[test]
fn framing_is_written_anew_and_extensions_stay_here() {
    let world = World::new();
    let answer = world.send(
        "POST /a HTTP/1.1\r\nHost: acme.test\r\nTransfer-Encoding: CHUNKED\r\nTrailer: x-sum\r\n\r\n\
         5;secret=1\r\nhello\r\n6\r\n world\r\n0\r\nx-sum: 7\r\nhost: evil\r\ncontent-length: 3\r\n\r\n",
    );
    assert_eq!(answer.status, 200);
    let seen = world.origin.last();
    assert_eq!(seen.body, b"hello world");
    assert_eq!(seen.field("transfer-encoding").as_deref(), Some("chunked"));
    assert_eq!(seen.field("content-length"), None);
    assert_eq!(seen.trailers, "x-sum: 7\r\n");
}

#[test]
fn pipelined_requests_are_answered_in_order_until_the_malformed_one() {
    let world = World::new();
    let mut wire = String::new();
    for number in 1..100 {
        wire.push_str(&format!("GET /r{number} HTTP/1.1\r\nHost: acme.test\r\n\r\n"));
    }
    wire.push_str("GET /bad HTTP/1.1\r\nHost : acme.test\r\n\r\nGET /after HTTP/1.1\r\nHost: acme.test\r\n\r\n");
    let mut client = world.client();
    client.write(wire);
    for number in 1..100 {
        let answer = client.read().expect("an answer");
        assert_eq!(answer.status, 200);
        assert!(answer.text().starts_with(&format!("GET /r{number} ")), "{number}");
    }
    assert_eq!(client.read().expect("a refusal").status, 400);
    assert!(client.is_closed());
    assert_eq!(world.origin.seen().len(), 99);
}

#[test]
fn an_unread_body_is_never_the_next_request() {
    let world = World::new();
    let hidden = "GET /hidden HTTP/1.1\r\nHost: acme.test\r\n\r\n";
    let mut client = world.client();
    // 404 by host; the body arrives only after the answer.
    client.write(format!(
        "POST / HTTP/1.1\r\nHost: nobody.test\r\nContent-Length: {}\r\n\r\n",
        hidden.len()
    ));
    assert_eq!(client.read().expect("an answer").status, 404);
    client.try_write(hidden);
    assert!(client.is_closed());
    // The body comes along: drained, and the connection lives.
    let mut client = world.client();
    let clean = "GET /clean HTTP/1.1\r\nHost: acme.test\r\n\r\n";
    client.write(format!(
        "POST / HTTP/1.1\r\nHost: nobody.test\r\nContent-Length: {}\r\n\r\n{hidden}{clean}",
        hidden.len()
    ));
    assert_eq!(client.read().expect("an answer").status, 404);
    if let Some(answer) = client.read() {
        assert!(answer.text().starts_with("GET /clean "));
    }
    assert!(!world.origin.seen().iter().any(|seen| seen.target() == "/hidden"));
}

#[test]
fn a_body_is_asked_for_only_after_admission() {
    let world = World::new();
    let ask = |host: &str| {
        let mut client = Client::connect(world.address);
        client.write(format!(
            "POST /a HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        ));
        let answer = client.read().expect("an answer");
        (client, answer)
    };
    let (mut client, answer) = ask("nobody.test");
    assert_eq!(answer.status, 404);
    assert!(client.is_closed());
    let (mut client, answer) = ask("acme.test");
    assert_eq!(answer.status, 100);
    client.write("hi");
    assert_eq!(client.read().expect("an answer").status, 200);
    assert_eq!(world.origin.last().body, b"hi");
    assert_eq!(world.origin.last().field("expect"), None);
}

#[test]
fn an_upgrade_is_not_forwarded() {
    let world = World::new();
    let answer = world.get(
        "/a",
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
    );
    assert_eq!(answer.status, 200);
    let seen = world.origin.last();
    for name in ["connection", "upgrade", "http2-settings"] {
        assert_eq!(seen.field(name), None, "{name}");
    }
}

#[test]
fn a_slow_head_is_cut_off() {
    let mut setup = super::world::Setup::default();
    setup.config.limits.head_timeout_ms = 1_000;
    let world = World::with(setup);
    let mut slow = world.client();
    slow.write("GET / HTTP/1.1\r\nHost: acm");
    assert!(slow.is_closed());
    let mut silent = world.client();
    assert!(silent.is_closed());
    let mut idle = world.client();
    idle.write("GET / HTTP/1.1\r\nHost: acme.test\r\n\r\n");
    assert_eq!(idle.read().expect("an answer").status, 200);
    assert!(idle.is_closed());
}
