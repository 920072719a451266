//! What the host gives policies beyond the message, and to whom.

use std::sync::Arc;

use model::policy::{Decision, Plugin};
use prometheus::core::Collector;
use sandbox::{Capability, Grants, flags::Flags};

use crate::kit::{on_request, policy, request_guest_with, sandbox, spec, status, typed_module};

/// Answers 200 + the number at an address.
fn answer(load: &str) -> String {
    format!(
        "(i32.store8 (i32.const 68) (i32.const 2))
         (i32.store16 (i32.const 72) (i32.add (i32.const 200) {load}))
         (i32.const 64)"
    )
}

/// Counts its calls in the key-value data: key `k`, no time to live.
fn counting() -> Vec<u8> {
    let imports = r#"(import "leanvibe:policy/keyvalue@0.1.0" "increment"
        (func $increment (param i32 i32 i64 i32 i64 i32)))"#;
    let body = format!(
        "(call $increment (i32.const 200) (i32.const 1) (i64.const 1)
            (i32.const 0) (i64.const 0) (i32.const 48))
         {}",
        answer(
            "(if (result i32) (i32.load8_u (i32.const 48))
               (then (i32.add (i32.const 300) (i32.load8_u (i32.const 56))))
               (else (i32.load (i32.const 56))))"
        )
    );
    request_guest_with(imports, "k", &body)
}

fn answers(plugin: &Arc<dyn Plugin>, tenants: &[u128]) -> Vec<u16> {
    tenants.iter().map(|tenant| status(&on_request(plugin, *tenant).1)).collect()
}

#[test]
fn key_value_data_belongs_to_one_tenant_and_policy() {
    let sandbox = sandbox();
    let first = policy(&sandbox, &counting(), spec());
    assert_eq!(answers(&first, &[1, 1, 2, 1]), [201, 202, 201, 203]);
    let mut other = spec();
    other.policy = "other".into();
    let other = policy(&sandbox, &counting(), other);
    assert_eq!(answers(&other, &[1, 2]), [201, 201]);
    // A new binding of the same policy, as after a reload, finds its data.
    drop(first);
    let again = policy(&sandbox, &counting(), spec());
    assert_eq!(answers(&again, &[1]), [204]);
}

#[test]
fn without_a_grant_key_value_data_is_denied() {
    let mut spec = spec();
    spec.grants = Grants::NONE.with(Capability::Telemetry);
    let plugin = policy(&sandbox(), &counting(), spec);
    assert_eq!(answers(&plugin, &[1]), [500], "access-denied is case 0");
}

#[test]
fn outbound_is_denied_without_a_listed_origin_even_with_a_grant() {
    let imports = r#"(import "leanvibe:policy/outbound@0.1.0" "fetch" (func $f (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))"#;
    // Method, URL, no field, empty content, no timeout.
    let body = format!(
        "(call $f (i32.const 200) (i32.const 1) (i32.const 200) (i32.const 1)
            (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
            (i32.const 0) (i32.const 0) (i32.const 48))
         (if (i32.ne (i32.load8_u (i32.const 48)) (i32.const 1)) (then unreachable))
         {}",
        answer("(i32.load8_u (i32.const 52))")
    );
    let plugin = policy(&sandbox(), &request_guest_with(imports, "k", &body), spec());
    assert_eq!(answers(&plugin, &[1]), [200], "access-denied is case 0");
}

fn flags() -> Arc<Flags> {
    Arc::new(
        Flags::parse(
            r#"{ "flags": { "beta": {
                   "state": "ENABLED",
                   "variants": { "on": true, "off": false },
                   "defaultVariant": "off",
                   "targeting": { "if": [
                     { "==": [ { "var": "tenant.slug" }, "tenant-1" ] }, "on", "off" ] } } } }"#,
        )
        .expect("the flags parse"),
    )
}

/// Answers 200 + the flag `beta`; passes `tenant` = `{}` of its own along.
fn flagged() -> Vec<u8> {
    let imports = r#"(import "leanvibe:policy/feature-flags@0.1.0" "boolean-value"
        (func $flag (param i32 i32 i32 i32 i32) (result i32)))"#;
    let body = format!(
        "(i32.store (i32.const 96) (i32.const 204)) (i32.store (i32.const 100) (i32.const 6))
         (i32.store (i32.const 104) (i32.const 210)) (i32.store (i32.const 108) (i32.const 2))
         {}",
        answer(
            "(call $flag (i32.const 200) (i32.const 4) (i32.const 0)
                (i32.const 96) (i32.const 1))"
        )
    );
    request_guest_with(imports, "betatenant{}", &body)
}

#[test]
fn flags_see_the_tenant_which_the_policy_cannot_replace() {
    let mut spec = spec();
    spec.flags = flags();
    let plugin = policy(&sandbox(), &flagged(), spec);
    assert_eq!(answers(&plugin, &[1, 2]), [201, 200]);
}

#[test]
fn without_a_grant_a_flag_is_the_default() {
    let mut spec = spec();
    spec.flags = flags();
    spec.grants = Grants::NONE;
    assert_eq!(answers(&policy(&sandbox(), &flagged(), spec), &[1]), [200]);
}

#[test]
fn the_configuration_is_read_by_member() {
    let imports =
        r#"(import "leanvibe:policy/config@0.1.0" "get" (func $get (param i32 i32 i32)))"#;
    // Answers 200 + the length of the member's text; 299 when there is none.
    let body = |length: usize| {
        format!(
            "(call $get (i32.const 200) (i32.const {length}) (i32.const 48)) {}",
            answer(
                "(if (result i32) (i32.load8_u (i32.const 48))
                   (then (i32.load (i32.const 56))) (else (i32.const 99)))"
            )
        )
    };
    for (member, expected) in [("answer", 202), ("word", 203), ("none", 299)] {
        let guest = request_guest_with(imports, member, &body(member.len()));
        assert_eq!(answers(&policy(&sandbox(), &guest, spec()), &[1]), [expected], "{member}");
    }
}

#[test]
fn the_tenant_is_read_as_the_host_resolved_it() {
    // Each import returns a text; the answer is 200 + its length.
    for (import, length) in [
        ("tenant@0.1.0\" \"slug", "tenant-1".len()),
        ("tenant@0.1.0\" \"id", 36),
        ("tenant@0.1.0\" \"plan", "team".len()),
        ("request@0.1.0\" \"client-ip", "192.0.2.1".len()),
        ("request@0.1.0\" \"authority", "acme.localhost:8080".len()),
        ("request@0.1.0\" \"path-with-query", "/a/b?c=d".len()),
    ] {
        let imports = format!(r#"(import "leanvibe:policy/{import}" (func $f (param i32)))"#);
        let body = format!("(call $f (i32.const 48)) {}", answer("(i32.load (i32.const 52))"));
        let plugin = policy(&sandbox(), &request_guest_with(&imports, "", &body), spec());
        let expected = 200 + u16::try_from(length).expect("short");
        assert_eq!(answers(&plugin, &[1]), [expected], "{import}");
    }
}

#[test]
fn features_quotas_and_attributes_are_found_by_name() {
    let feature = r#"(import "leanvibe:policy/tenant@0.1.0" "has-feature"
        (func $f (param i32 i32) (result i32)))"#;
    let optional = |name: &str| {
        format!(r#"(import "leanvibe:policy/tenant@0.1.0" "{name}" (func $f (param i32 i32 i32)))"#)
    };
    let (quota, attribute) = (optional("quota"), optional("attribute"));
    let read = "(call $f (i32.const 200) (i32.const {n}) (i32.const 1024))";
    for (imports, name, expected) in [
        (feature, "sso", 201),
        (feature, "none", 200),
        (&quota, "monthly-api", 201),
        (&quota, "api_calls", 201),
        (&quota, "daily-ai", 200),
        (&attribute, "tier", 201),
        (&attribute, "consent.functional", 201),
        (&attribute, "none", 200),
    ] {
        let length = name.len();
        let body = if imports == feature {
            answer(&format!("(call $f (i32.const 200) (i32.const {length}))"))
        } else {
            let call = read.replace("{n}", &length.to_string());
            format!("{call} {}", answer("(i32.load8_u (i32.const 1024))"))
        };
        let plugin = policy(&sandbox(), &request_guest_with(imports, name, &body), spec());
        assert_eq!(answers(&plugin, &[1]), [expected], "{name}");
    }
}

#[test]
fn what_a_policy_counts_is_collected_under_its_name() {
    let imports = r#"(import "leanvibe:policy/telemetry@0.1.0" "count"
        (func $count (param i32 i32 i64 i32 i32)))"#;
    let body =
        "(call $count (i32.const 200) (i32.const 4) (i64.const 3) (i32.const 0) (i32.const 0))
        (i32.const 64)";
    let guest = request_guest_with(imports, "hits", body);
    let sandbox = sandbox();
    let plugin = policy(&sandbox, &guest, spec());
    for _ in 0..2 {
        assert!(matches!(on_request(&plugin, 7).1, Ok(Decision::Continue)));
    }
    let registry = prometheus::Registry::new();
    registry.register(Box::new(sandbox.metrics())).expect("registered");
    let text =
        prometheus::TextEncoder::new().encode_to_string(&registry.gather()).expect("encoded");
    let line = r#"leanvibe_policy_events_total{policy="test",tenant="tenant-7",metric="hits"} 6"#;
    assert!(text.contains(line), "{text}");
    assert!(text.contains("leanvibe_sandbox_instances 0"), "{text}");
    assert!(!sandbox.metrics().desc().is_empty());
}

#[test]
fn log_lines_are_bounded_per_call() {
    let imports = r#"
        (import "leanvibe:policy/telemetry@0.1.0" "log"
          (func $log (param i32 i32 i32 i32 i32)))
        (import "leanvibe:policy/telemetry@0.1.0" "log-enabled"
          (func $enabled (param i32) (result i32)))"#;
    let hook = "leanvibe:policy/request-hook@0.1.0#on-request";
    // Logs at `error` while it may, and answers 200 + how often that was.
    let guest = typed_module(
        imports,
        &format!(
            r#"(func (export "{hook}") (result i32) (local $n i32)
                 (block (loop
                   (br_if 1 (i32.eqz (call $enabled (i32.const 4))))
                   (call $log (i32.const 4) (i32.const 0) (i32.const 10) (i32.const 0) (i32.const 0))
                   (local.set $n (i32.add (local.get $n) (i32.const 1)))
                   (br 0)))
                 {})"#,
            answer("(local.get $n)")
        ),
    );
    let mut spec = spec();
    spec.limits.log_lines = 3;
    let plugin = policy(&sandbox(), &guest, spec);
    let lines = Lines::default();
    let seen = tracing::subscriber::with_default(lines.clone(), || answers(&plugin, &[1, 1]));
    assert_eq!(seen, [203, 203]);
    assert_eq!(lines.0.load(std::sync::atomic::Ordering::SeqCst), 6);
}

/// A subscriber that counts the lines of policies.
#[derive(Clone, Default)]
struct Lines(Arc<std::sync::atomic::AtomicUsize>);

impl tracing::Subscriber for Lines {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "policy"
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}
