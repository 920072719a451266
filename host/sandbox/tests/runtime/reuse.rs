//! Kept instances: for whom, for how long, and when they are dropped.

use std::sync::Arc;

use model::{
    clock::{ManualClock, UnixMs},
    policy::{Plugin, PolicyFailure},
    tenant::TenantId,
};
use sandbox::{BindingSpec, Instances, Sandbox, SandboxConfig};

use crate::kit::{on_request, policy, request_guest, sandbox, sandbox_with, spec, status};

/// Answers 200 + how often this instance was called before; on the call numbered by
/// `trap_at` it traps.
fn counter(trap_at: i32) -> Vec<u8> {
    let body = format!(
        "(i32.store (i32.const 1024) (i32.add (i32.load (i32.const 1024)) (i32.const 1)))
         (if (i32.eq (i32.load (i32.const 1024)) (i32.const {trap_at})) (then unreachable))
         (i32.store8 (i32.const 68) (i32.const 2))
         (i32.store16 (i32.const 72) (i32.add (i32.const 199) (i32.load (i32.const 1024))))
         (i32.const 64)"
    );
    request_guest("", &body)
}

fn reused(requests_max: u32) -> BindingSpec {
    BindingSpec { instances: Instances::Reuse { requests_max }, ..spec() }
}

fn answers(plugin: &Arc<dyn Plugin>, tenants: &[u128]) -> Vec<u16> {
    tenants.iter().map(|tenant| status(&on_request(plugin, *tenant).1)).collect()
}

#[test]
fn a_fresh_instance_remembers_nothing() {
    let sandbox = sandbox();
    let plugin = policy(&sandbox, &counter(0), spec());
    assert_eq!(answers(&plugin, &[1, 1, 1]), [200, 200, 200]);
    assert_eq!(sandbox.instances_alive(), 0);
}

#[test]
fn an_instance_serves_one_tenant_only() {
    let plugin = policy(&sandbox(), &counter(0), reused(100));
    assert_eq!(answers(&plugin, &[1, 1, 2, 1, 2, 3]), [200, 201, 200, 202, 201, 200]);
}

#[test]
fn an_instance_serves_one_binding_only() {
    let sandbox = sandbox();
    let version = sandbox.load(&counter(0)).expect("loaded");
    let first = crate::kit::run(sandbox.bind(&version, reused(100))).expect("bound");
    let second = crate::kit::run(sandbox.bind(&version, reused(100))).expect("bound");
    assert_eq!(answers(&first, &[1, 1]), [200, 201]);
    assert_eq!(answers(&second, &[1, 1]), [200, 201]);
    drop(first);
    assert_eq!(sandbox.instances_alive(), 1, "only the second binding's is kept");
}

#[test]
fn an_instance_is_dropped_after_so_many_calls() {
    let sandbox = sandbox();
    let plugin = policy(&sandbox, &counter(0), reused(3));
    assert_eq!(answers(&plugin, &[1, 1, 1, 1]), [200, 201, 202, 200]);
}

#[test]
fn after_a_trap_the_next_call_gets_a_new_instance() {
    let sandbox = sandbox();
    let plugin = policy(&sandbox, &counter(3), reused(100));
    assert_eq!(answers(&plugin, &[1, 1]), [200, 201]);
    assert!(matches!(on_request(&plugin, 1).1, Err(PolicyFailure::Trap(_))));
    assert_eq!(sandbox.instances_alive(), 0);
    assert_eq!(answers(&plugin, &[1, 1]), [200, 201]);
}

#[test]
fn an_instance_is_dropped_after_an_err_and_after_a_broken_rule() {
    let sandbox = sandbox();
    for body in [
        "(i32.store8 (i32.const 64) (i32.const 1)) (i32.const 64)",
        "(i32.store8 (i32.const 68) (i32.const 2)) (i32.const 64)",
    ] {
        let plugin = policy(&sandbox, &request_guest("", body), reused(100));
        assert!(on_request(&plugin, 1).1.is_err());
        assert_eq!(sandbox.instances_alive(), 0);
    }
}

#[test]
fn idle_instances_are_bounded_and_the_longest_idle_goes_first() {
    let sandbox = sandbox_with(|config| config.idle_instances_max = 2);
    let plugin = policy(&sandbox, &counter(0), reused(100));
    assert_eq!(answers(&plugin, &[1, 2, 3]), [200, 200, 200]);
    assert_eq!(sandbox.instances_alive(), 2);
    assert_eq!(answers(&plugin, &[3]), [201]);
}

#[test]
fn idle_instances_end_after_a_while() {
    let clock = Arc::new(ManualClock::at(UnixMs(0)));
    let config = SandboxConfig { slots: 8, idle_ms_max: 5_000, ..SandboxConfig::default() };
    let sandbox = Sandbox::new(config, Arc::clone(&clock) as _).expect("the engine starts");
    let plugin = policy(&sandbox, &counter(0), reused(100));
    clock.advance_ms(10_000);
    assert_eq!(answers(&plugin, &[1, 2]), [200, 200]);
    clock.advance_ms(5_001);
    assert_eq!(answers(&plugin, &[2, 3]), [201, 200]);
    assert_eq!(sandbox.instances_alive(), 2, "the first tenant's is gone");
}

#[test]
fn an_idle_instance_gives_way_when_slots_run_out() {
    let sandbox = sandbox_with(|config| config.slots = 1);
    let plugin = policy(&sandbox, &counter(0), reused(100));
    assert_eq!(answers(&plugin, &[1, 2, 1]), [200, 200, 200]);
    assert_eq!(sandbox.instances_alive(), 1);
}

#[test]
fn instances_go_with_their_binding_and_their_tenant() {
    let sandbox = sandbox();
    let plugin = policy(&sandbox, &counter(0), reused(100));
    assert_eq!(answers(&plugin, &[1, 2]), [200, 200]);
    sandbox.erase_tenant(TenantId(uuid::Uuid::from_u128(1)));
    assert_eq!(sandbox.instances_alive(), 1);
    drop(plugin);
    assert_eq!(sandbox.instances_alive(), 0);
}

#[test]
fn a_reused_instance_gets_its_full_deadline_each_time() {
    // Each call computes for a while; together they would pass the deadline of one.
    let body = "(local $i i32)
        (loop (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br_if 0 (i32.lt_u (local.get $i) (i32.const 3000000))))
        (i32.const 64)";
    let mut spec = reused(1_000);
    spec.limits.deadline_ms = 1_000;
    let plugin = policy(&sandbox(), &request_guest("", body), spec);
    let before = std::time::Instant::now();
    let mut calls = 0;
    while before.elapsed() < std::time::Duration::from_millis(1_500) {
        let (_, outcome) = on_request(&plugin, 1);
        assert!(outcome.is_ok(), "call {calls}: {outcome:?}");
        calls += 1;
    }
}
