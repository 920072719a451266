//! Starting and ending.

use std::{sync::Arc, time::Duration};

use super::{
    client::PATIENCE,
    sessions::FakeSessions,
    world::{FakeGate, FakeLevels, Setup, World},
};
use crate::{Ports, Proxy, StartError};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

#[test]
fn draining_finishes_what_is_open_and_closes_what_rests() {
    let mut setup = Setup::default();
    setup.config.workers = Some(2);
    let mut world = World::with(setup);
    let mut open = world.client();
    open.write("GET /hold HTTP/1.1\r\nHost: acme.test\r\n\r\n");
    world.origin.await_requests(1);
    // So many that each worker has one: once they are closed, every worker has heard.
    let mut resting: Vec<_> = (0..16).map(|_| world.client()).collect();
    for client in &mut resting {
        client.write("GET /a HTTP/1.1\r\nHost: acme.test\r\n\r\n");
        assert_eq!(client.read().expect("an answer").status, 200);
    }
    let running = world.running.take().expect("it runs");
    let draining = std::thread::spawn(move || block_on(running.drain(PATIENCE)));
    assert!(resting.iter_mut().all(|client| client.is_closed()));
    world.origin.release.send(()).expect("the origin waits");
    let answer = open.read().expect("the open exchange finishes");
    assert_eq!((answer.status, answer.field("connection").as_deref()), (200, Some("close")));
    draining.join().expect("it drained");
    assert!(std::net::TcpStream::connect(world.address).is_err());
}

#[test]
fn draining_does_not_wait_for_ever() {
    let mut world = World::new();
    let mut open = world.client();
    open.write("GET /never HTTP/1.1\r\nHost: acme.test\r\n\r\n");
    world.origin.await_requests(1);
    block_on(world.running.take().expect("it runs").drain(Duration::from_millis(50)));
    assert!(open.is_closed());
}

#[test]
fn a_proxy_that_cannot_start_says_why_in_one_line() {
    let world = World::new();
    let start = |change: &dyn Fn(&mut crate::ProxyConfig)| {
        let mut config = Setup::default().config;
        change(&mut config);
        let (_, snapshots) = tokio::sync::watch::channel(Arc::default());
        let gate = Arc::new(FakeGate::default());
        let clock = Arc::new(model::clock::SystemClock::default());
        let registry = prometheus::Registry::new();
        let levels = Arc::new(FakeLevels::default());
        let storage = std::sync::Arc::new(super::storage::FakeStorage::default());
        let limiter = Arc::new(model::limiter::Unlimited);
        let sessions = Arc::new(FakeSessions::default());
        let ports = Ports { snapshots, gate, limiter, sessions, clock, levels, storage, api: None };
        Proxy::start(config, ports, &registry).expect_err("it cannot start")
    };
    let taken = start(&|config| config.listen = vec![world.address]);
    assert!(matches!(taken, StartError::Bind { .. }));
    assert_eq!(
        taken.to_string(),
        format!("cannot listen on {}: the address is in use", world.address)
    );
    assert!(matches!(start(&|config| config.listen.clear()), StartError::NoAddress));
    assert!(matches!(start(&|config| config.limits.exchanges_max = 0), StartError::Limit(_)));
    let weak = serde_json::json!({"issuer": [{"name": "n", "issuer": "i", "audience": "a",
        "keys": [{"algorithm": "HS256", "secret": "short"}]}]});
    let weak =
        start(&|config| config.jwt = serde_json::from_value(weak.clone()).expect("a config"));
    assert!(weak.to_string().contains("shorter than 32 bytes"), "{weak}");
    assert!(!weak.to_string().contains("short\""));
}
