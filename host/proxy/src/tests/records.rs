//! What an exchange leaves behind.

use std::{
    io,
    sync::{Arc, Mutex, OnceLock},
};

use serde_json::Value;

use super::world::World;

type Lines = Arc<Mutex<Vec<u8>>>;

struct Sink(Lines);

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("the log").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The log of the whole test process: workers are threads of their own.
fn log() -> &'static Lines {
    static LOG: OnceLock<Lines> = OnceLock::new();
    LOG.get_or_init(|| {
        let lines = Lines::default();
        let sink = Arc::clone(&lines);
        tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_writer(move || Sink(Arc::clone(&sink)))
            .init();
        lines
    })
}

/// Waits for the access line of a request.
fn line(id: &str) -> Value {
    for _ in 0..500 {
        let lines = String::from_utf8(log().lock().expect("the log").clone()).expect("text");
        let mut lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        if let Some(line) =
            lines.find(|line| line["target"] == "access" && line["request_id"] == id)
        {
            return line;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("no line for {id}");
}

#[test]
fn every_exchange_leaves_one_line() {
    log();
    let world = World::new();
    let answer = world.get("/a?b=c", "");
    let id = answer.field("x-request-id").expect("an id");
    let entry = line(&id);
    for (name, want) in [
        ("method", "GET"),
        ("path", "/a?b=c"),
        ("tenant", "acme"),
        ("route", "any"),
        ("region", "eu-1"),
        ("end", "complete"),
        ("client", "127.0.0.1"),
    ] {
        assert_eq!(entry[name], want, "{name}");
    }
    assert_eq!((&entry["status"], &entry["bytes"]), (&200.into(), &answer.body.len().into()));
    assert!(entry["upstream_ms"].is_u64());
    for (answer, reason, end) in [
        (
            world.send("GET / HTTP/1.1\r\nHost: nobody.test\r\n\r\n"),
            Some("unknown-host"),
            "complete",
        ),
        (world.get("/garbage", ""), Some("upstream-garbage"), "complete"),
        (world.get("/half-body", ""), None, "aborted"),
        (world.send("GET /\x7f HTTP/1.1\r\n\r\n"), Some("malformed-request"), "complete"),
        (
            world.send("HEAD / HTTP/1.0\r\nHost: nobody.test\r\n\r\n"),
            Some("unknown-host"),
            "complete",
        ),
    ] {
        let entry = line(&answer.field("x-request-id").expect("an id"));
        assert_eq!((entry["reason"].as_str(), entry["end"].as_str()), (reason, Some(end)));
    }
}

#[test]
fn numbers_are_kept_by_route_plan_and_class() {
    let world = World::new();
    assert_eq!(world.get("/a", "").status, 200);
    assert_eq!(world.get("/status/503", "").status, 503);
    assert_eq!(world.send("GET / HTTP/1.1\r\nHost: nobody.test\r\n\r\n").status, 404);
    let value = |name: &str, labels: &[&str]| {
        let families = world.registry.gather();
        let family = families.iter().find(|family| family.name() == name)?;
        let metric = family.get_metric().iter().find(|metric| {
            let values: Vec<_> = metric.get_label().iter().map(|label| label.value()).collect();
            labels.iter().all(|label| values.contains(label))
        })?;
        Some(metric.get_counter().get_value())
    };
    for _ in 0..500 {
        // Counted by the worker, added at its next tick.
        if value("edge_requests_total", &["any", "2xx"]) == Some(1.0) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(value("edge_requests_total", &["any", "developer", "2xx"]), Some(1.0));
    assert_eq!(value("edge_requests_total", &["deep", "developer", "5xx"]), Some(1.0));
    assert_eq!(value("edge_refusals_total", &["unknown-host", "downstream"]), Some(1.0));
    assert_eq!(value("tenant_requests_total", &["acme", "any", "2xx"]), Some(1.0));
    assert_eq!(value("tenant_requests_total", &["acme", "deep", "5xx"]), Some(1.0));
    assert_eq!(value("tenant_requests_total", &["none", "4xx"]), Some(1.0));
    let running = world.running.as_ref().expect("a proxy");
    assert_eq!(running.shown_tenants()(), [super::world::tenant_id(1)]);
}
