//! Endpoints and regions that fail: who serves then, and how often a request is sent.

use std::net::SocketAddr;

use super::{
    origin::Origin,
    upstreams::nobody,
    world::{Setup, World},
};
use crate::UpstreamsConfig;

fn world(endpoint: Option<SocketAddr>, change: impl FnOnce(&mut UpstreamsConfig)) -> World {
    let mut setup = Setup { endpoint, ..Setup::default() };
    change(&mut setup.config.upstreams);
    World::with(setup)
}

fn sent(origin: &Origin, path: &str) -> usize {
    origin.seen().iter().filter(|seen| seen.target() == path).count()
}

#[test]
fn when_the_home_region_is_down_another_of_the_group_serves_and_is_named_as_the_region() {
    let world = world(Some(nobody()), |upstreams| upstreams.region_failover = true);
    // More than the burst of the retry budget: the ejected region costs no retry.
    for _ in 0..30 {
        assert_eq!(world.get("/a", "").status, 200);
    }
    let seen = world.far_origin.seen();
    assert_eq!(seen.len(), 30);
    assert!(seen.iter().all(|one| one.field("x-tenant-region").as_deref() == Some("eu-2")));
    assert_eq!(world.gate.counts(), (30, 0), "charged once each");
}

#[test]
fn a_silent_endpoint_is_asked_again_in_its_own_region() {
    let world = world(None, |upstreams| upstreams.region_failover = true);
    assert_eq!(world.get("/close", "").status, 502);
    assert_eq!(sent(&world.origin, "/close"), 2);
    assert!(world.far_origin.seen().is_empty());
}

#[test]
fn without_failover_a_region_that_is_down_fails_fast_until_a_trial_is_due() {
    let world = world(Some(nobody()), |_| {});
    let statuses = |count| (0..count).map(|_| world.get("/a", "").status).collect::<Vec<_>>();
    assert_eq!(statuses(5), [502; 5]);
    let answer = world.get("/a", "");
    assert_eq!((answer.status, answer.field("retry-after").as_deref()), (503, Some("1")));
    world.clock.advance_ms(UpstreamsConfig::default().ejection_ms);
    assert_eq!(statuses(3), [502, 503, 503]);
    assert!(world.far_origin.seen().is_empty());
}

#[test]
fn one_of_several_endpoints_down_costs_no_request() {
    let other = Origin::start();
    let mut setup = Setup { more: vec![nobody(), other.address], ..Setup::default() };
    setup.config.upstreams.retry_burst = 100;
    let world = World::with(setup);
    for _ in 0..40 {
        let body = "POST /a HTTP/1.1\r\nHost: acme.test\r\nContent-Length: 2\r\n\r\nhi";
        assert_eq!(world.send(body).status, 200);
    }
    let (near, other) = (sent(&world.origin, "/a"), sent(&other, "/a"));
    assert_eq!(near + other, 40, "nothing is sent twice");
    assert!(near > 0 && other > 0);
}

#[test]
fn an_unanswered_request_is_sent_once_more_only_if_it_may_happen_twice() {
    let world = world(None, |_| {});
    assert_eq!(world.get("/close", "").status, 502);
    assert_eq!(sent(&world.origin, "/close"), 2);
    // Part of an answer came.
    assert_eq!(world.get("/half-head", "").status, 502);
    assert_eq!(sent(&world.origin, "/half-head"), 1);
    let post = "POST /close HTTP/1.1\r\nHost: acme.test\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(world.send(post).status, 502);
    assert_eq!(sent(&world.origin, "/close"), 3);
    let first = &world.origin.seen()[0];
    let second = &world.origin.seen()[1];
    assert_eq!(first.head, second.head, "the client's request, unchanged");
}

#[test]
fn what_another_endpoint_answers_after_a_silent_one_is_the_answer() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address");
    std::thread::spawn(move || {
        // Takes connections and says nothing.
        silent.incoming().for_each(|stream| {
            let mut bytes = [0; 1_024];
            let _read = std::io::Read::read(&mut stream.expect("a connection"), &mut bytes);
        });
    });
    let setup = Setup { more: vec![address], ..Setup::default() };
    let world = World::with(setup);
    for _ in 0..20 {
        assert_eq!(world.get("/a", "").status, 200);
    }
    assert_eq!(world.gate.counts(), (20, 0), "charged once each");
}

#[test]
fn retries_stop_when_their_budget_is_spent() {
    let world = world(None, |upstreams| {
        upstreams.retry_burst = 2;
        upstreams.retry_percent = 0;
    });
    for _ in 0..10 {
        assert_eq!(world.get("/close", "").status, 502);
    }
    assert_eq!(sent(&world.origin, "/close"), 12);
}

#[test]
fn a_server_error_is_passed_on_and_never_sent_again() {
    let world = world(None, |_| {});
    for _ in 0..10 {
        assert_eq!(world.get("/status/503", "").status, 503);
    }
    assert_eq!(world.origin.seen().len(), 10);
}

#[test]
fn health_checks_take_a_failing_endpoint_out_and_bring_a_good_one_back() {
    let mut setup = Setup { endpoint: Some(nobody()), ..Setup::default() };
    setup.config.upstreams.health = crate::HealthConfig {
        path: Some("/healthz".to_owned()),
        interval_ms: 10,
        ..crate::HealthConfig::default()
    };
    setup.config.upstreams.region_failover = true;
    let world = World::with(setup);
    let served = || sent(&world.far_origin, "/a");
    assert_eq!(world.get("/a", "").status, 200);
    assert_eq!(served(), 1);
    // The pool that serves is asked, and the home region, found down, costs no retry.
    let checked = (0..2_000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(5));
        sent(&world.far_origin, "/healthz") > 10
    });
    assert!(checked, "the endpoint was not asked");
    let page = prometheus::TextEncoder::new().encode_to_string(&world.registry.gather());
    let page = page.expect("a page");
    let standing = |address, value| {
        page.contains(&format!("edge_upstream_endpoint_in{{endpoint=\"{address}\"}} {value}\n"))
    };
    assert!(standing(world.far_origin.address, 1), "{page}");
    assert!(
        page.lines().any(|line| {
            line.starts_with("edge_upstream_endpoint_in{") && line.ends_with("} 0")
        })
    );
}
