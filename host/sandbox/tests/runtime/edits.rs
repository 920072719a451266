//! Edits: what passes, what is refused with which error, and when they take effect.

use model::policy::{Decision, PolicyExchange, PolicyFailure};

use crate::kit::{
    on_request, on_response, policy, request_guest_with, response_guest, sandbox, spec, status,
    typed_module,
};

const SET: &str = r#"(import "leanvibe:policy/request@0.1.0" "set-header"
    (func $set (param i32 i32 i32 i32 i32)))"#;
const SET_PATH: &str = r#"(import "leanvibe:policy/request@0.1.0" "set-path-with-query"
    (func $set-path (param i32 i32 i32)))"#;

/// Code that answers 300 for an accepted edit whose result is at 32, else 400 + the error.
const REPORT: &str = "
    (i32.store8 (i32.const 68) (i32.const 2))
    (i32.store16 (i32.const 72) (i32.add (i32.load8_u (i32.const 36))
        (select (i32.const 400) (i32.const 300) (i32.load8_u (i32.const 32)))))
    (i32.const 64)";
const OK: u16 = 300;
const INVALID: u16 = 400;
const FORBIDDEN: u16 = 401;
const TOO_LARGE: u16 = 402;

/// The bytes as a WAT string.
fn escaped(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\{byte:02x}")).collect()
}

/// Sets a field in a request hook and reports how that went.
fn set(name: &str, value: &[u8]) -> (Box<PolicyExchange>, u16) {
    let text = format!("{}{}", escaped(name.as_bytes()), escaped(value));
    let body = format!(
        "(call $set (i32.const 200) (i32.const {}) (i32.const {}) (i32.const {}) (i32.const 32))
         {REPORT}",
        name.len(),
        200 + name.len(),
        value.len()
    );
    let plugin = policy(&sandbox(), &request_guest_with(SET, &text, &body), spec());
    let (exchange, outcome) = on_request(&plugin, 1);
    (exchange, status(&outcome))
}

#[test]
fn a_field_is_set_after_the_hook_returned() {
    let (exchange, answer) = set("X-New", b"value");
    assert_eq!(answer, OK);
    assert_eq!(exchange.request.headers["x-new"], "value");
    let (exchange, answer) = set("x-list", b"c");
    assert_eq!(answer, OK);
    assert_eq!(exchange.request.headers.get_all("x-list").iter().count(), 1);
}

#[test]
fn fields_that_clients_could_not_send_are_invalid() {
    for (name, value) in [
        ("x-a", &b"1\r\nx-b: 2"[..]),
        ("x-a", b"1\n"),
        ("x-a", b"1\r"),
        ("x-a", b"\0"),
        ("x-a", b" padded"),
        ("x\r\ny", b"1"),
        ("", b"1"),
        (":path", b"/"),
        ("x a", b"1"),
    ] {
        let (exchange, answer) = set(name, value);
        assert_eq!(answer, INVALID, "{name:?}: {value:?}");
        assert_eq!(exchange.request.headers.len(), 4);
    }
}

#[test]
fn fields_of_the_host_are_forbidden() {
    for name in [
        "Host",
        "content-length",
        "Transfer-Encoding",
        "connection",
        "upgrade",
        "te",
        "trailer",
        "x-tenant-id",
        "X_Tenant_Id",
        "x-request-id",
        "forwarded",
        "x-forwarded-for",
        "via",
        "traceparent",
        "date",
    ] {
        assert_eq!(set(name, b"1").1, FORBIDDEN, "{name}");
    }
}

#[test]
fn a_field_beyond_the_bounds_is_too_large() {
    assert_eq!(set("x-a", &[b'a'; 16 << 10]).1, TOO_LARGE);
    assert_eq!(set("x-a", &[b'a'; 15 << 10]).1, OK);
}

#[test]
fn a_path_is_set_only_in_its_one_form() {
    for (path, answer) in [
        ("/new?x=1", OK),
        ("/..", INVALID),
        ("/a/../b", INVALID),
        ("/%2e%2e/b", INVALID),
        ("/a%2fb", INVALID),
        ("/a\\b", INVALID),
        ("//evil", INVALID),
        ("http://evil/", INVALID),
        ("", INVALID),
        ("/a b", INVALID),
        ("/a#b", INVALID),
    ] {
        let body = format!(
            "(call $set-path (i32.const 200) (i32.const {}) (i32.const 32)) {REPORT}",
            path.len()
        );
        let guest = request_guest_with(SET_PATH, &escaped(path.as_bytes()), &body);
        let plugin = policy(&sandbox(), &guest, spec());
        let (exchange, outcome) = on_request(&plugin, 1);
        assert_eq!(status(&outcome), answer, "{path}");
        let expected = if answer == OK { path } else { "/a/b?c=d" };
        assert_eq!(exchange.request.path_and_query.as_str(), expected);
    }
}

#[test]
fn reads_see_earlier_edits_of_the_same_hook() {
    let imports = format!(
        r#"{SET} (import "leanvibe:policy/request@0.1.0" "header"
             (func $header (param i32 i32 i32)))"#
    );
    // Sets x-list to `zzz` and answers 200 + the length of what it then reads.
    let body = "
        (call $set (i32.const 200) (i32.const 6) (i32.const 206) (i32.const 3) (i32.const 32))
        (call $header (i32.const 200) (i32.const 6) (i32.const 48))
        (i32.store8 (i32.const 68) (i32.const 2))
        (i32.store16 (i32.const 72) (i32.add (i32.const 200) (i32.load (i32.const 56))))
        (i32.const 64)";
    let plugin = policy(&sandbox(), &request_guest_with(&imports, "x-listzzz", body), spec());
    assert_eq!(status(&on_request(&plugin, 1).1), 203);
}

#[test]
fn repeated_fields_are_read_as_one_and_bytes_as_none() {
    let imports = r#"(import "leanvibe:policy/request@0.1.0" "header"
        (func $header (param i32 i32 i32)))"#;
    // Answers 200 + 100 * present + length.
    let body = |length: usize| {
        format!(
            "(call $header (i32.const 200) (i32.const {length}) (i32.const 48))
             (i32.store8 (i32.const 68) (i32.const 2))
             (i32.store16 (i32.const 72) (i32.add (i32.const 200)
                (i32.add (i32.mul (i32.const 100) (i32.load8_u (i32.const 48)))
                         (i32.load (i32.const 56)))))
             (i32.const 64)"
        )
    };
    for (name, expected) in [("X-List", 304), ("accept", 309), ("x-bytes", 200), ("x-none", 200)] {
        let guest = request_guest_with(imports, name, &body(name.len()));
        let plugin = policy(&sandbox(), &guest, spec());
        assert_eq!(status(&on_request(&plugin, 1).1), expected, "{name}");
    }
}

#[test]
fn edits_are_dropped_when_the_hook_fails() {
    let edit =
        "(call $set (i32.const 200) (i32.const 3) (i32.const 200) (i32.const 3) (i32.const 32))";
    for (end, failure) in [
        ("(i32.store8 (i32.const 64) (i32.const 1)) (i32.const 64)", "reported"),
        ("unreachable", "trap"),
        ("(loop (br 0)) (i32.const 64)", "deadline"),
        ("(i32.store8 (i32.const 68) (i32.const 2)) (i32.const 64)", "broken_rule"),
    ] {
        let guest = request_guest_with(SET, "x-a", &format!("{edit} {end}"));
        let mut spec = spec();
        spec.limits.deadline_ms = 5;
        let (exchange, outcome) = on_request(&policy(&sandbox(), &guest, spec), 1);
        assert_eq!(outcome.err().map(|failure| failure.label()), Some(failure));
        assert!(!exchange.request.headers.contains_key("x-a"), "{failure}");
    }
}

#[test]
fn a_request_edit_in_a_response_hook_is_too_late() {
    let body =
        "(call $set (i32.const 200) (i32.const 3) (i32.const 200) (i32.const 3) (i32.const 32))
         (if (i32.ne (i32.load8_u (i32.const 36)) (i32.const 3)) (then unreachable))
         (i32.const 64)";
    let plugin = policy(&sandbox(), &response_guest(SET, body), spec());
    let (exchange, outcome) = on_response(&plugin);
    assert!(outcome.is_ok(), "{outcome:?}");
    assert_eq!(exchange.request.headers.len(), 4);
}

#[test]
fn a_response_is_edited_by_the_same_rules() {
    let imports = r#"
        (import "leanvibe:policy/response@0.1.0" "set-status" (func $status (param i32 i32)))
        (import "leanvibe:policy/response@0.1.0" "set-header"
          (func $set (param i32 i32 i32 i32 i32)))"#;
    let hook = "leanvibe:policy/response-hook@0.1.0#on-response";
    let guest = typed_module(
        imports,
        &format!(
            r#"(data (i32.const 200) "x-acontent-lengthserver")
               (func $expect (param i32)
                 (if (i32.ne (local.get 0) (i32.load (i32.const 32))) (then unreachable)))
               (func (export "{hook}") (result i32)
                 (call $status (i32.const 404) (i32.const 32))
                 (call $expect (i32.const 0))
                 (call $status (i32.const 101) (i32.const 32))
                 (call $expect (i32.const 1))
                 (i32.store (i32.const 32) (i32.const 0))
                 (call $set (i32.const 200) (i32.const 3) (i32.const 200) (i32.const 3) (i32.const 32))
                 (call $expect (i32.const 0))
                 (call $set (i32.const 203) (i32.const 14) (i32.const 200) (i32.const 3) (i32.const 32))
                 (call $expect (i32.const 1))
                 (i32.const 64))"#
        ),
    );
    let (exchange, outcome) = on_response(&policy(&sandbox(), &guest, spec()));
    assert!(outcome.is_ok(), "{outcome:?}");
    let response = exchange.response.expect("a response");
    assert_eq!(response.status, 404);
    assert_eq!(response.headers["x-a"], "x-a");
    assert_eq!(response.headers["server"], "origin");
    assert!(!response.headers.contains_key("content-length"));
}

#[test]
fn a_message_outside_its_hook_is_a_trap() {
    let response = r#"(import "leanvibe:policy/response@0.1.0" "status" (func $f (result i32)))"#;
    let guest = request_guest_with(response, "", "(drop (call $f)) (i32.const 64)");
    let (_, outcome) = on_request(&policy(&sandbox(), &guest, spec()), 1);
    match outcome {
        Err(PolicyFailure::Trap(text)) => assert!(text.contains("response hook only"), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn no_message_or_tenant_exists_while_configuring() {
    for import in ["request@0.1.0\" \"method", "tenant@0.1.0\" \"slug"] {
        let guest = typed_module(
            &format!(r#"(import "leanvibe:policy/{import}" (func $f (param i32)))"#),
            r#"(func (export "leanvibe:policy/lifecycle@0.1.0#configure")
                 (param i32 i32) (result i32) (call $f (i32.const 32)) (i32.const 64))
               (func (export "leanvibe:policy/request-hook@0.1.0#on-request")
                 (result i32) (i32.const 64))"#,
        );
        let error = crate::kit::try_policy(&sandbox(), &guest, spec()).expect_err("refused");
        assert!(error.to_string().contains("in a hook only"), "{error}");
    }
}

#[test]
fn a_hook_that_edits_nothing_changes_nothing() {
    let guest = request_guest_with("", "", "(i32.const 64)");
    let (exchange, outcome) = on_request(&policy(&sandbox(), &guest, spec()), 1);
    assert!(matches!(outcome, Ok(Decision::Continue)));
    assert_eq!(exchange.request.headers, crate::kit::exchange(1).request.headers);
}
