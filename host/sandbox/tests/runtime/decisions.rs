//! What hooks decide, what they fail with, and what becomes of the exchange.

use model::policy::{BodyDecision, Decision, PolicyFailure, ResponseDecision, Target};
use sandbox::LoadError;

use crate::kit::{
    on_body, on_request, on_response, policy, request_guest, request_guest_with, response_guest,
    sandbox, spec, status, try_policy, typed_module,
};

/// A `respond` decision at 64 with this status, and no fields and no body.
fn respond(status: i32) -> String {
    format!(
        "(i32.store8 (i32.const 68) (i32.const 2))
         (i32.store16 (i32.const 72) (i32.const {status}))
         (i32.const 64)"
    )
}

#[test]
fn a_response_reaches_the_proxy() {
    let sandbox = sandbox();
    let body = "(i32.store (i32.const 76) (i32.const 128)) (i32.store (i32.const 80) (i32.const 1))
        (i32.store (i32.const 128) (i32.const 200)) (i32.store (i32.const 132) (i32.const 3))
        (i32.store (i32.const 136) (i32.const 203)) (i32.store (i32.const 140) (i32.const 2))
        (i32.store8 (i32.const 84) (i32.const 1))
        (i32.store (i32.const 88) (i32.const 205)) (i32.store (i32.const 92) (i32.const 4))";
    let guest = request_guest_with("", "X-Ahino!!", &format!("{body} {}", respond(403)));
    let plugin = policy(&sandbox, &guest, spec());
    match on_request(&plugin, 1).1 {
        Ok(Decision::Respond(response)) => {
            assert_eq!(response.status, 403);
            assert_eq!(response.headers["x-a"], "hi");
            assert_eq!(response.body, "no!!");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_target_reaches_the_proxy() {
    let sandbox = sandbox();
    for (kind, expected) in
        [(0, Target::Region("eu-west-1".into())), (1, Target::Backend("eu-west-1".into()))]
    {
        let body = format!(
            "(i32.store8 (i32.const 68) (i32.const 1)) (i32.store8 (i32.const 72) (i32.const {kind}))
             (i32.store (i32.const 76) (i32.const 200)) (i32.store (i32.const 80) (i32.const 9))
             (i32.const 64)"
        );
        let guest = request_guest_with("", "eu-west-1", &body);
        let plugin = policy(&sandbox, &guest, spec());
        match on_request(&plugin, 1).1 {
            Ok(Decision::Route(target)) => assert_eq!(target, expected),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_status_that_is_not_final_breaks_a_rule() {
    let sandbox = sandbox();
    for bad in [0, 99, 100, 101, 199, 600, 1000, 65535] {
        let plugin = policy(&sandbox, &request_guest("", &respond(bad)), spec());
        let (exchange, outcome) = on_request(&plugin, 1);
        assert!(matches!(outcome, Err(PolicyFailure::BrokenRule(_))), "{bad}: {outcome:?}");
        assert_eq!(&*exchange.id, "0192f3");
    }
    let plugin = policy(&sandbox, &request_guest("", &respond(451)), spec());
    assert_eq!(status(&on_request(&plugin, 1).1), 451);
}

#[test]
fn an_err_is_reported_with_its_text() {
    let body =
        "(i32.store8 (i32.const 64) (i32.const 1)) (i32.store (i32.const 68) (i32.const 200))
        (i32.store (i32.const 72) (i32.const 8)) (i32.const 64)";
    let guest = request_guest_with("", "no table", body);
    let plugin = policy(&sandbox(), &guest, spec());
    assert_eq!(on_request(&plugin, 1).1.err(), Some(PolicyFailure::Reported("no table".into())));
}

#[test]
fn results_outside_the_type_are_traps() {
    let sandbox = sandbox();
    for (what, body) in [
        ("an unknown decision", "(i32.store8 (i32.const 68) (i32.const 7)) (i32.const 64)"),
        ("an unknown result", "(i32.store8 (i32.const 64) (i32.const 2)) (i32.const 64)"),
        ("an address outside memory", "(i32.const -4)"),
        ("an unaligned address", "(i32.const 65)"),
        (
            "a text outside memory",
            "(i32.store8 (i32.const 64) (i32.const 1)) (i32.store (i32.const 68) (i32.const -16))
             (i32.store (i32.const 72) (i32.const 8)) (i32.const 64)",
        ),
        (
            "a text that is not UTF-8",
            "(i32.store8 (i32.const 64) (i32.const 1)) (i32.store (i32.const 68) (i32.const 64))
             (i32.store (i32.const 72) (i32.const 4)) (i32.store8 (i32.const 65) (i32.const 255))
             (i32.const 64)",
        ),
        ("unreachable", "unreachable"),
        ("a division by zero", "(i32.div_u (i32.const 1) (i32.const 0))"),
    ] {
        let plugin = policy(&sandbox, &request_guest("", body), spec());
        let (exchange, outcome) = on_request(&plugin, 1);
        assert!(matches!(outcome, Err(PolicyFailure::Trap(_))), "{what}: {outcome:?}");
        assert_eq!(exchange.request.headers.len(), 4, "{what}");
    }
}

#[test]
fn a_body_is_seen_and_replaced() {
    let hook = "leanvibe:policy/request-body-hook@0.1.0#on-request-body";
    // Replaces the body by itself without its first byte.
    let guest = typed_module(
        "",
        &format!(
            r#"(func (export "{hook}") (param i32 i32) (result i32)
                 (i32.store8 (i32.const 68) (i32.const 1))
                 (i32.store8 (i32.const 72) (i32.const 2))
                 (i32.store (i32.const 76) (i32.add (local.get 0) (i32.const 1)))
                 (i32.store (i32.const 80) (i32.sub (local.get 1) (i32.const 1)))
                 (i32.const 64))"#
        ),
    );
    let mut spec = spec();
    spec.limits.body_bytes = 10_000;
    let plugin = policy(&sandbox(), &guest, spec);
    assert!(plugin.hooks().request_body && !plugin.hooks().request);
    match on_body(&plugin, b"xbody").1 {
        Ok(BodyDecision::Replace(body)) => assert_eq!(body, "body"),
        other => panic!("{other:?}"),
    }
    let (_, outcome) = on_body(&plugin, &[0; 10_001]);
    assert!(matches!(outcome, Err(PolicyFailure::BrokenRule(_))), "{outcome:?}");
    assert!(matches!(on_request(&plugin, 1).1, Ok(Decision::Continue)), "an absent hook");
}

#[test]
fn a_response_hook_may_put_another_response_in_place() {
    let body = "(i32.store8 (i32.const 68) (i32.const 1))
        (i32.store16 (i32.const 72) (i32.const 502)) (i32.const 64)";
    let plugin = policy(&sandbox(), &response_guest("", body), spec());
    match on_response(&plugin).1 {
        Ok(ResponseDecision::Respond(response)) => assert_eq!(response.status, 502),
        other => panic!("{other:?}"),
    }
}

/// A guest whose `configure` is `body` and whose request hook continues.
fn configured(body: &str) -> Vec<u8> {
    typed_module(
        "",
        &format!(
            r#"(data (i32.const 200) "bad key")
               (func (export "leanvibe:policy/lifecycle@0.1.0#configure")
                 (param i32 i32) (result i32) {body})
               (func (export "leanvibe:policy/request-hook@0.1.0#on-request")
                 (result i32) (i32.const 512))"#
        ),
    )
}

#[test]
fn a_configuration_that_the_plugin_rejects_is_refused_with_its_text() {
    let guest = configured(
        "(i32.store8 (i32.const 64) (i32.const 1)) (i32.store (i32.const 68) (i32.const 200))
         (i32.store (i32.const 72) (i32.const 7)) (i32.const 64)",
    );
    let error = try_policy(&sandbox(), &guest, spec()).expect_err("refused");
    assert_eq!(error, LoadError::Rejected("bad key".into()));
}

#[test]
fn configure_gets_the_configuration_before_the_first_hook() {
    // Traps unless the JSON has the length of `{"answer":42,"word":"yes"}`.
    let guest =
        configured("(if (i32.ne (local.get 1) (i32.const 26)) (then unreachable)) (i32.const 64)");
    let plugin = policy(&sandbox(), &guest, spec());
    assert!(matches!(on_request(&plugin, 1).1, Ok(Decision::Continue)));
    let error = try_policy(&sandbox(), &configured("unreachable"), spec()).expect_err("refused");
    assert!(matches!(error, LoadError::Start(PolicyFailure::Trap(_))), "{error}");
}
