//! Guests that take more than they may: each is stopped, and the next call is served.

use std::{sync::Arc, time::Duration};

use model::policy::{Decision, Plugin, PolicyFailure};
use sandbox::{Instances, LoadError, Sandbox};

use crate::kit::{
    exchange, on_request, policy, request_guest, request_guest_with, run, sandbox, sandbox_with,
    spec, status, try_policy, typed_module,
};

const LOOP: &str = "(loop (br 0))";

/// A guest that misbehaves in its request hook.
fn guest(body: &str) -> Vec<u8> {
    request_guest("", &format!("{body} (i32.const 64)"))
}

/// Binds with a short deadline.
fn bound(sandbox: &Arc<Sandbox>, wasm: &[u8]) -> Result<Arc<dyn Plugin>, LoadError> {
    let mut spec = spec();
    spec.limits.deadline_ms = 5;
    spec.limits.memory_bytes = 1 << 20;
    try_policy(sandbox, wasm, spec)
}

/// The failure of a call; the sandbox must serve a good plugin afterwards.
fn failure(sandbox: &Arc<Sandbox>, wasm: &[u8]) -> PolicyFailure {
    let plugin = bound(sandbox, wasm).expect("bound");
    let (exchange, outcome) = on_request(&plugin, 1);
    assert_eq!(&*exchange.id, "0192f3");
    let next = bound(sandbox, &guest("")).expect("bound");
    assert!(matches!(on_request(&next, 1).1, Ok(Decision::Continue)));
    assert_eq!(sandbox.instances_alive(), 0);
    outcome.expect_err("it fails")
}

#[test]
fn an_endless_loop_is_stopped_wherever_it_runs() {
    let sandbox = sandbox();
    assert_eq!(failure(&sandbox, &guest(LOOP)), PolicyFailure::Deadline);
    let hook = r#"(func (export "leanvibe:policy/request-hook@0.1.0#on-request")
        (result i32) (i32.const 64))"#;
    let start = typed_module("", &format!("(func $start {LOOP}) (start $start) {hook}"));
    let configure = typed_module(
        "",
        &format!(
            r#"(func (export "leanvibe:policy/lifecycle@0.1.0#configure")
                 (param i32 i32) (result i32) {LOOP} (i32.const 64)) {hook}"#
        ),
    );
    for wasm in [start, configure] {
        let error = bound(&sandbox, &wasm).expect_err("refused");
        assert_eq!(error, LoadError::Start(PolicyFailure::Deadline));
    }
}

#[test]
fn a_loop_in_the_allocator_or_after_the_return_is_stopped() {
    let sandbox = sandbox();
    let hook = "leanvibe:policy/request-hook@0.1.0#on-request";
    let after = typed_module(
        "",
        &format!(
            r#"(func (export "{hook}") (result i32) (i32.const 64))
               (func (export "cabi_post_{hook}") (param i32) {LOOP})"#
        ),
    );
    assert_eq!(failure(&sandbox, &after), PolicyFailure::Deadline);
}

#[test]
fn long_bulk_operations_are_stopped() {
    let body = "(loop (memory.fill (i32.const 1024) (i32.const 0) (i32.const 100000)) (br 0))";
    assert_eq!(failure(&sandbox(), &guest(body)), PolicyFailure::Deadline);
}

#[test]
fn while_one_guest_computes_the_worker_serves_others() {
    let sandbox = sandbox();
    let mut slow = spec();
    slow.limits.deadline_ms = 100;
    let slow = policy(&sandbox, &guest(LOOP), slow);
    let quick = bound(&sandbox, &guest("")).expect("bound");
    let order = run(async {
        let mut order = Vec::new();
        let mut slow = std::pin::pin!(slow.on_request(exchange(1)));
        for _ in 0..3 {
            // The slow guest gives the worker back before it is done.
            tokio::select! {
                biased;
                _ = &mut slow => order.push("slow"),
                () = tokio::task::yield_now() => {
                    let (_, outcome) = quick.on_request(exchange(2)).await;
                    order.push(if outcome.is_ok() { "quick" } else { "failed" });
                }
            }
        }
        let (_, outcome) = slow.await;
        order.push(outcome.expect_err("it never ends").label());
        order
    });
    assert_eq!(order, ["quick", "quick", "quick", "deadline"]);
}

#[test]
fn memory_does_not_grow_past_its_limit() {
    let sandbox = sandbox();
    // Grows until refused, then answers 200 + the pages it has.
    let body = "(loop (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
        (i32.store8 (i32.const 68) (i32.const 2))
        (i32.store16 (i32.const 72) (i32.add (i32.const 200) (memory.size)))";
    let plugin = bound(&sandbox, &guest(body)).expect("bound");
    assert_eq!(status(&on_request(&plugin, 1).1), 216, "16 pages are 1 MiB");
    let large = typed_module(
        "",
        r#"(func (export "leanvibe:policy/request-hook@0.1.0#on-request")
             (result i32) (drop (memory.grow (i32.const 30000))) (i32.const 64))"#,
    );
    assert!(on_request(&bound(&sandbox, &large).expect("bound"), 1).1.is_ok());
}

#[test]
fn a_memory_that_starts_too_large_is_refused() {
    let sandbox = sandbox();
    let hook = "leanvibe:policy/request-hook@0.1.0#on-request";
    let text = format!(
        r#"(module (memory (export "memory") 17)
             (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
             (func (export "{hook}") (result i32) (i32.const 64)))"#
    );
    let module = crate::kit::typed(&text);
    let error = bound(&sandbox, &module).expect_err("refused");
    assert!(matches!(error, LoadError::Start(PolicyFailure::Trap(_))), "{error}");
}

#[test]
fn tables_do_not_grow_past_their_limit() {
    let sandbox = sandbox_with(|config| config.table_elements_max = 100);
    let hook = "leanvibe:policy/request-hook@0.1.0#on-request";
    let guest = typed_module(
        "",
        &format!(
            r#"(table $t 1 funcref)
               (func (export "{hook}") (result i32)
                 (if (i32.ne (table.grow $t (ref.null func) (i32.const 100)) (i32.const -1))
                   (then unreachable))
                 (i32.const 64))"#
        ),
    );
    assert!(on_request(&bound(&sandbox, &guest).expect("bound"), 1).1.is_ok());
}

#[test]
fn deep_recursion_is_a_trap() {
    let wasm = typed_module(
        "",
        r#"(func $down (param i64) (result i64)
             (i64.add (local.get 0) (call $down (i64.add (local.get 0) (i64.const 1)))))
           (func (export "leanvibe:policy/request-hook@0.1.0#on-request")
             (result i32) (drop (call $down (i64.const 0))) (i32.const 64))"#,
    );
    match failure(&sandbox(), &wasm) {
        PolicyFailure::Trap(text) => assert!(text.contains("stack"), "{text}"),
        other => panic!("{other}"),
    }
}

#[test]
fn a_text_of_a_gibibyte_is_not_read() {
    let imports =
        r#"(import "leanvibe:policy/config@0.1.0" "get" (func $get (param i32 i32 i32)))"#;
    for (pointer, length) in [(0, 0x4000_0000_u32), (0x7fff_ffff, 0x4000_0000), (0, 131_072)] {
        let body = format!(
            "(call $get (i32.const {pointer}) (i32.const {length}) (i32.const 32)) (i32.const 64)"
        );
        let sandbox = sandbox_with(|config| config.hostcall_bytes = 64 << 10);
        assert!(matches!(
            failure(&sandbox, &request_guest(imports, &body)),
            PolicyFailure::Trap(_)
        ));
    }
}

#[test]
fn a_million_headers_are_not_taken() {
    let imports = r#"(import "leanvibe:policy/request@0.1.0" "set-header-values"
        (func $set (param i32 i32 i32 i32 i32)))"#;
    // A list of a million values that all lie at 0, each of no byte: 8 MB in the guest.
    let body = "(drop (memory.grow (i32.const 14)))
        (call $set (i32.const 200) (i32.const 3) (i32.const 1024) (i32.const 100000) (i32.const 32))
        (i32.const 64)";
    let outcome = failure(&sandbox(), &request_guest_with(imports, "x-a", body));
    assert!(matches!(outcome, PolicyFailure::Trap(_)), "{outcome}");
}

#[test]
fn host_calls_are_counted() {
    let imports = r#"(import "leanvibe:policy/telemetry@0.1.0" "log-enabled"
        (func $f (param i32) (result i32)))"#;
    let wasm =
        request_guest(imports, "(loop (drop (call $f (i32.const 0))) (br 0)) (i32.const 64)");
    let mut spec = spec();
    spec.limits.host_calls = 100;
    spec.limits.deadline_ms = 10_000;
    match on_request(&policy(&sandbox(), &wasm, spec), 1).1 {
        Err(PolicyFailure::Trap(text)) => assert!(text.contains("host calls"), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_wall_clock_stops_what_the_ticks_do_not() {
    let mut spec = spec();
    spec.limits.deadline_ms = 600_000;
    spec.limits.wall_ms = 20;
    let plugin = policy(&sandbox(), &guest(LOOP), spec);
    let (exchange, outcome) = on_request(&plugin, 1);
    assert_eq!(outcome.err(), Some(PolicyFailure::Deadline));
    assert_eq!(exchange.request.headers.len(), 4);
}

#[test]
fn a_cancelled_call_frees_its_slot() {
    let sandbox = sandbox_with(|config| config.tenant_calls_max = 1);
    let mut spec = spec();
    spec.limits.deadline_ms = 600_000;
    spec.limits.wall_ms = 600_000;
    spec.instances = Instances::Reuse { requests_max: 10 };
    let plugin = policy(&sandbox, &guest(LOOP), spec);
    for _ in 0..20 {
        run(async {
            let call = plugin.on_request(exchange(1));
            let cancelled = tokio::time::timeout(Duration::from_millis(3), call).await;
            assert!(cancelled.is_err());
            assert_eq!(sandbox.instances_alive(), 0);
        });
    }
}

#[test]
fn a_tenant_with_too_many_calls_is_shed_and_others_are_not() {
    let sandbox = sandbox_with(|config| config.tenant_calls_max = 2);
    let stuck = bound(&sandbox, &guest(LOOP)).expect("bound");
    let quick = bound(&sandbox, &guest("")).expect("bound");
    run(async {
        let mut first = std::pin::pin!(stuck.on_request(exchange(1)));
        let mut second = std::pin::pin!(stuck.on_request(exchange(1)));
        for call in [&mut first, &mut second] {
            assert!(futures_poll(call).await.is_none(), "it computes");
        }
        assert_eq!(quick.on_request(exchange(1)).await.1.err(), Some(PolicyFailure::NoSlot));
        assert!(quick.on_request(exchange(2)).await.1.is_ok());
        assert_eq!(first.await.1.err(), Some(PolicyFailure::Deadline));
        assert!(quick.on_request(exchange(1)).await.1.is_ok());
    });
}

#[test]
fn without_a_free_slot_a_call_is_shed() {
    let sandbox = sandbox_with(|config| config.slots = 2);
    let stuck = bound(&sandbox, &guest(LOOP)).expect("bound");
    let quick = bound(&sandbox, &guest("")).expect("bound");
    run(async {
        let mut first = std::pin::pin!(stuck.on_request(exchange(1)));
        let mut second = std::pin::pin!(stuck.on_request(exchange(2)));
        assert!(futures_poll(&mut first).await.is_none());
        assert!(futures_poll(&mut second).await.is_none());
        let (exchange, outcome) = quick.on_request(exchange(3)).await;
        assert_eq!(outcome.err(), Some(PolicyFailure::NoSlot));
        assert_eq!(&*exchange.id, "0192f3");
    });
    assert!(on_request(&quick, 3).1.is_ok());
}

/// Polls a call once.
async fn futures_poll<F: Future + Unpin>(call: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|cx| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut *call).poll(cx) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}
