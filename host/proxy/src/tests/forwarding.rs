//! What goes through, what stays, and what the edge writes.

use super::world::{Setup, World};

#[test]
fn the_upstream_learns_who_and_over_which_way() {
    let world = World::new();
    let answer = world.send("GET /a?b=c HTTP/1.1\r\nHost: acme.test:8080\r\nAccept: x\r\n\r\n");
    let seen = world.origin.last();
    let field = |name: &str| seen.field(name).unwrap_or_default();
    assert_eq!(seen.target(), "/a?b=c");
    assert_eq!(field("host"), "acme.test:8080");
    assert_eq!(field("accept"), "x");
    assert_eq!(field("x-tenant-id"), super::world::tenant_id(1).to_string());
    assert_eq!(field("x-tenant-slug"), "acme");
    assert_eq!(field("x-tenant-plan"), "developer");
    assert_eq!(field("x-tenant-region"), "eu-1");
    assert_eq!(field("x-forwarded-for"), "127.0.0.1");
    assert_eq!(field("x-forwarded-proto"), "http");
    assert_eq!(field("x-forwarded-host"), "acme.test:8080");
    assert_eq!(field("forwarded"), "for=127.0.0.1;proto=http");
    assert_eq!(field("via"), "1.1 leanvibe-edge");
    assert_eq!(Some(field("x-request-id")), answer.field("x-request-id"));
    let id: uuid::Uuid = field("x-request-id").parse().expect("a UUID");
    assert_eq!(id.get_version_num(), 7);
    assert_eq!(field("traceparent").len(), 55);
    assert_eq!(seen.field("content-length"), None);
}

#[test]
fn a_clients_word_about_itself_is_not_passed_on() {
    let world = World::new();
    world.get(
        "/a",
        "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Proto: https\r\n\
         X-Forwarded-Port: 1\r\nX-Real-IP: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\nX-Request-Id: evil\r\n\
         X-Tenant-Id: evil\r\nX_Tenant_Id: evil\r\nX-Tenant-Role: evil\r\nx-tenant-id : x\r\n",
    );
    let world = World::new();
    let answer = world.get(
        "/a",
        "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Proto: https\r\n\
         X-Forwarded-Port: 1\r\nX-Real-IP: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\nX-Request-Id: evil\r\n\
         X-Tenant-Id: evil\r\nX_Tenant_Id: evil\r\nX-Tenant-Role: evil\r\n\
         Connection: x-tenant-id, x-forwarded-for, host\r\n",
    );
    assert_eq!(answer.status, 200);
    let seen = world.origin.last();
    assert!(!seen.head.contains("evil") && !seen.head.contains("1.2.3.4"), "{}", seen.head);
    assert_eq!(seen.field("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(seen.field("x-tenant-slug").as_deref(), Some("acme"));
    assert_eq!(seen.field("x-forwarded-port"), None);
    assert_eq!(seen.field("x-real-ip"), None);
}

#[test]
fn a_trusted_proxys_word_is_continued() {
    let mut setup = Setup::default();
    setup.config.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a network")];
    let world = World::with(setup);
    let answer = world.send(
        "GET /a HTTP/1.1\r\nHost: inner.lb\r\nX-Forwarded-Host: acme.test\r\nX-Forwarded-For: 1.2.3.4\r\n\
         X-Forwarded-Proto: https\r\nForwarded: for=1.2.3.4\r\nVia: 1.1 lb\r\nX-Request-Id: from-lb\r\n\r\n",
    );
    assert_eq!(answer.field("x-request-id").as_deref(), Some("from-lb"));
    let seen = world.origin.last();
    for (name, want) in [
        ("host", "acme.test"),
        ("x-forwarded-host", "acme.test"),
        ("x-forwarded-for", "1.2.3.4, 127.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("forwarded", "for=1.2.3.4, for=127.0.0.1;proto=http"),
        ("via", "1.1 lb, 1.1 leanvibe-edge"),
        ("x-request-id", "from-lb"),
    ] {
        assert_eq!(seen.field(name).as_deref(), Some(want), "{name}");
    }
}

#[test]
fn fields_of_one_hop_stay_on_it() {
    let world = World::new();
    let answer = world.get(
        "/fields",
        "Connection: x-mine, keep-alive\r\nX-Mine: 1\r\nKeep-Alive: 1\r\nProxy-Connection: 1\r\n\
         Proxy-Authorization: secret\r\nTE: trailers, deflate\r\n",
    );
    let seen = world.origin.last();
    for name in ["x-mine", "keep-alive", "proxy-connection", "proxy-authorization"] {
        assert_eq!(seen.field(name), None, "{name}");
    }
    assert_eq!(seen.field("te").as_deref(), Some("trailers"));
    for name in ["x-hop", "keep-alive", "connection"] {
        assert_eq!(answer.field(name), None, "{name}");
    }
    assert_eq!(answer.field("via").as_deref(), Some("1.1 inner, 1.1 leanvibe-edge"));
    assert_eq!(answer.field("set-cookie").as_deref(), Some("a=1, b=2"));
    assert_ne!(answer.field("x-request-id").as_deref(), Some("theirs"));
    assert_eq!(answer.field("content-length").as_deref(), Some("2"));
}

#[test]
fn a_trace_is_continued_with_a_new_span() {
    let world = World::new();
    let sent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    world.get("/a", &format!("traceparent: {sent}\r\ntracestate: a=b\r\n"));
    let seen = world.origin.last();
    let got = seen.field("traceparent").expect("a trace");
    assert_eq!(got[..36], sent[..36]);
    assert_ne!(got[36..52], sent[36..52]);
    assert_eq!(&got[52..], "-01");
    assert_eq!(seen.field("tracestate").as_deref(), Some("a=b"));
    world.get("/a", "traceparent: 00-00000000000000000000000000000000-b7ad6b7169203331-01\r\n");
    let fresh = world.origin.last().field("traceparent").expect("a trace");
    assert!(!fresh.contains("00000000000000000000000000000000"));
}

#[test]
fn answers_without_a_body_keep_their_connection() {
    let world = World::new();
    let mut client = world.client();
    for (method, path, status, length) in [
        ("HEAD", "/head", 200, Some("1234")),
        ("GET", "/204", 204, None),
        ("GET", "/304", 304, None),
        ("HEAD", "/head", 200, Some("1234")),
        ("GET", "/a", 200, None),
    ] {
        client.write(format!("{method} {path} HTTP/1.1\r\nHost: acme.test\r\n\r\n"));
        let answer = client.read_for(method).expect("an answer");
        assert_eq!(answer.status, status, "{path}");
        if length.is_some() {
            assert_eq!(answer.field("content-length").as_deref(), length);
        }
        assert_eq!(answer.field("transfer-encoding"), None);
    }
    let seen = world.origin.seen();
    assert!(seen.iter().all(|one| one.connection == seen[0].connection), "one upstream link");
}

#[test]
fn trailers_pass_both_ways_without_the_forbidden_ones() {
    let world = World::new();
    let answer = world.get("/trailers", "TE: trailers\r\n");
    assert_eq!((answer.text(), answer.trailers.as_str()), ("hi".to_owned(), "x-sum: 7\n"));
    let unasked = world.get("/trailers", "");
    assert_eq!((unasked.text(), unasked.trailers.as_str()), ("hi".to_owned(), ""));
}

#[test]
fn a_large_body_streams_through_both_ways() {
    let world = World::new();
    let answer = world.get("/big", "");
    assert!(answer.complete);
    assert_eq!(answer.body.len(), 8 << 20);
    let body = "z".repeat(4 << 20);
    let answer = world.send(format!(
        "POST /a HTTP/1.1\r\nHost: acme.test\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(answer.status, 200);
    let seen = world.origin.last();
    assert_eq!(seen.field("content-length"), Some(body.len().to_string()));
    assert!(seen.body == body.as_bytes());
}

#[test]
fn a_slow_side_holds_back_the_other() {
    let world = World::new();
    let mut client = world.client();
    // The origin holds still while this body comes: the client must get stuck.
    client.write("POST /stall HTTP/1.1\r\nHost: acme.test\r\nContent-Length: 1073741824\r\n\r\n");
    world.origin.await_requests(1);
    let taken = client.write_until_stuck(256 << 20);
    assert!(taken < 64 << 20, "{taken} bytes are in buffers");
    let mut reader = world.client();
    reader.write("GET /big HTTP/1.1\r\nHost: acme.test\r\n\r\n");
    // Nobody reads /big; others are served meanwhile.
    for _ in 0..20 {
        world.still_serves();
    }
    let answer = reader.read().expect("the answer waited for its reader");
    assert_eq!(answer.body.len(), 8 << 20);
}

#[test]
fn an_http_1_0_client_is_served_and_let_go() {
    let world = World::new();
    let mut client = world.client();
    client.write("GET /a HTTP/1.0\r\nHost: acme.test\r\n\r\n");
    let answer = client.read().expect("an answer");
    assert_eq!(answer.status, 200);
    assert!(client.is_closed());
}
