//! Upstreams that fail: the right answer, never a wrong body, never a used-up link.

use std::net::{SocketAddr, TcpListener};

use super::world::{Setup, World};

/// An address where nobody listens.
pub(super) fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address")
}

/// A world with short timeouts.
fn hasty(change: impl FnOnce(&mut crate::Limits)) -> World {
    let mut setup = Setup::default();
    change(&mut setup.config.limits);
    World::with(setup)
}

#[test]
fn faults_before_the_answer_are_502_and_say_nothing_of_the_inside() {
    let world = World::new();
    for path in ["/close", "/garbage", "/half-head", "/both-framings", "/two-lengths", "/switch"] {
        let mut client = world.client();
        client.write(format!("GET {path} HTTP/1.1\r\nHost: acme.test\r\n\r\n"));
        let answer = client.read().expect("an answer");
        assert_eq!((answer.status, answer.code()), (502, "bad-gateway".to_owned()), "{path}");
        let shown = format!("{answer:?} {}", answer.text());
        assert!(!shown.contains(&world.origin.address.to_string()) && !shown.contains("hyper"));
        client.write("GET /a HTTP/1.1\r\nHost: acme.test\r\n\r\n");
        assert_eq!(client.read().expect("the client's connection lives").status, 200);
    }
    let seen = world.origin.seen();
    for fault in seen.iter().filter(|seen| seen.target() != "/a") {
        let reused =
            |one: &&super::origin::Seen| one.connection == fault.connection && one.target() == "/a";
        let after = seen.iter().skip_while(|one| one.target() != fault.target());
        assert!(after.clone().find(reused).is_none(), "{} was pooled", fault.target());
    }
}

#[test]
fn nobody_there_is_502() {
    let world = World::with(Setup { endpoint: Some(nobody()), ..Setup::default() });
    let answer = world.get("/a", "");
    assert_eq!((answer.status, answer.code()), (502, "bad-gateway".to_owned()));
}

#[test]
fn a_body_that_breaks_off_is_never_passed_on_as_complete() {
    let world = World::new();
    for path in ["/half-body", "/half-chunk"] {
        let answer = world.get(path, "");
        assert_eq!(answer.status, 200);
        assert!(!answer.complete, "{path}");
    }
    world.still_serves();
}

#[test]
fn bytes_beyond_the_answer_never_reach_the_next_client() {
    let world = World::new();
    for _ in 0..3 {
        let answer = world.get("/too-much", "");
        assert_eq!((answer.status, answer.text()), (200, "hi".to_owned()));
        assert!(world.get("/a", "").text().starts_with("GET /a "));
    }
}

#[test]
fn interim_and_old_answers_are_understood() {
    let world = World::new();
    assert_eq!(world.get("/continue", "").text(), "hi");
    let old = world.get("/old", "");
    assert_eq!((old.text(), old.complete), ("until the end".to_owned(), true));
    world.still_serves();
}

#[test]
fn an_early_answer_arrives_and_its_link_is_not_used_again() {
    let world = World::new();
    let mut client = world.client();
    client.write("POST /early HTTP/1.1\r\nHost: acme.test\r\nContent-Length: 100000\r\n\r\npart");
    let answer = client.read().expect("an answer");
    assert_eq!((answer.status, answer.text()), (413, "early".to_owned()));
    client.try_write("x".repeat(1000));
    assert!(client.is_closed());
    world.still_serves();
    let seen = world.origin.seen();
    assert_ne!(seen[0].connection, seen[1].connection);
}

#[test]
fn silence_is_504() {
    let world = hasty(|limits| limits.first_byte_timeout_ms = 100);
    let answer = world.get("/never", "");
    assert_eq!((answer.status, answer.code()), (504, "gateway-timeout".to_owned()));
    assert_eq!(world.gate.counts(), (1, 1));
    world.serves_again();
}

#[test]
fn the_whole_time_bounds_what_each_step_would_allow() {
    let world = hasty(|limits| {
        limits.total_timeout_ms = 100;
        limits.first_byte_timeout_ms = 60_000;
    });
    // Its route allows more: a route's bound replaces the default.
    let mut patient = world.client();
    patient.write("GET /never HTTP/1.1\r\nHost: acme.test\r\n\r\n");
    let answer = world.get("/hold", "");
    assert_eq!((answer.status, answer.code()), (504, "gateway-timeout".to_owned()));
    patient.hang_up();
}

#[test]
fn a_body_that_stops_is_cut_off() {
    let world = hasty(|limits| limits.upstream_idle_timeout_ms = 100);
    let answer = world.get("/stuck-body", "");
    assert_eq!((answer.status, answer.complete, answer.text()), (200, false, "half".to_owned()));
    world.serves_again();
}

#[test]
fn a_client_that_stops_sending_gets_408() {
    let world = hasty(|limits| {
        limits.body_idle_timeout_ms = 100;
        limits.first_byte_timeout_ms = 60_000;
    });
    let mut client = world.client();
    client.write("POST /a HTTP/1.1\r\nHost: acme.test\r\nContent-Length: 10\r\n\r\nhalf");
    let answer = client.read().expect("an answer");
    assert_eq!((answer.status, answer.code()), (408, "body-timeout".to_owned()));
    assert!(client.is_closed());
    world.still_serves();
}

#[test]
fn a_body_beyond_its_bound_is_413() {
    let world = hasty(|limits| limits.request_body_bytes_max = 10);
    for framing in [
        "Content-Length: 11\r\n\r\n12345678901",
        "Transfer-Encoding: chunked\r\n\r\nb\r\n12345678901\r\n0\r\n\r\n",
    ] {
        let answer = world.send(format!("POST /a HTTP/1.1\r\nHost: acme.test\r\n{framing}"));
        assert_eq!((answer.status, answer.code()), (413, "body-too-large".to_owned()));
    }
}

#[test]
fn a_link_that_the_origin_closed_while_it_rested_costs_no_request() {
    let world = World::new();
    for _ in 0..20 {
        // `/old` closes after its answer; the next request must not notice.
        assert_eq!(world.get("/old", "").status, 200);
        assert_eq!(world.get("/a", "").status, 200);
    }
}

#[test]
fn links_are_bounded_and_used_again() {
    let world = hasty(|limits| limits.upstream_connections_max = 1);
    for _ in 0..5 {
        assert_eq!(world.get("/a", "").status, 200);
    }
    let mut holder = world.client();
    holder.write("GET /hold HTTP/1.1\r\nHost: acme.test\r\n\r\n");
    world.origin.await_requests(6);
    let answer = world.get("/a", "");
    assert_eq!((answer.status, answer.code()), (503, "temporary-reduced-capacity".to_owned()));
    world.origin.release.send(()).expect("the origin waits");
    assert_eq!(holder.read().expect("an answer").status, 200);
    assert!(world.origin.seen().iter().all(|seen| seen.connection == 0));
}

#[test]
fn too_many_exchanges_are_shed() {
    let world = hasty(|limits| limits.exchanges_max = 1);
    let mut holder = world.client();
    holder.write("GET /hold HTTP/1.1\r\nHost: acme.test\r\n\r\n");
    world.origin.await_requests(1);
    let answer = world.get("/a", "");
    assert_eq!((answer.status, answer.field("retry-after").as_deref()), (503, Some("1")));
    world.origin.release.send(()).expect("the origin waits");
    assert_eq!(holder.read().expect("an answer").status, 200);
}
