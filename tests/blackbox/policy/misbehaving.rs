//! Guests that trap, loop, grow, lie: the answer the design says, the process lives, and
//! the next request is served.

use crate::actors::{World, WorldOptions, eventually, guest, responder, router};

use super::{declare, link};

const LIMITS: &str = "[limits]\ndeadline_ms = 20\nmemory_bytes = 1048576\n";

/// A world where tenant `bad` runs the guest, and tenant `good` does not.
async fn world_with(wasm: Vec<u8>, on_failure: &'static str) -> World {
    World::with(WorldOptions {
        config: String::new(),
        prepare: Some(Box::new(move |policies| {
            declare(policies, "evil", &wasm, LIMITS);
            link(policies, "bad", "evil", &format!("on_failure = \"{on_failure}\"\n"));
        })),
    })
    .await
}

fn misdeeds() -> Vec<(&'static str, Vec<u8>)> {
    let set_header = r#"(import "leanvibe:policy/request@0.1.0" "set-header" (func $set (param i32 i32 i32 i32 i32)))"#;
    vec![
        ("traps", guest("", "", "unreachable")),
        ("loops for ever", guest("", "", "(loop (br 0)) (i32.const 64)")),
        (
            "recurses for ever",
            guest("", "", "(call $deep) (i32.const 64)) (func $deep (call $deep)"),
        ),
        (
            "traps when it may not grow",
            guest(
                "",
                "",
                "(if (i32.eq (memory.grow (i32.const 1000)) (i32.const -1)) (then unreachable)) (i32.const 64)",
            ),
        ),
        (
            "returns a decision that there is none of",
            guest("", "", "(i32.store (i32.const 68) (i32.const 9)) (i32.const 64)"),
        ),
        ("returns an address outside its memory", guest("", "", "(i32.const -8)")),
        (
            "reports a failure",
            guest(
                "",
                "it broke",
                "(i32.store (i32.const 64) (i32.const 1)) (i32.store (i32.const 68) (i32.const 200)) (i32.store (i32.const 72) (i32.const 8)) (i32.const 64)",
            ),
        ),
        ("answers with a status of no response", responder(99)),
        ("answers with a switch of protocols", responder(101)),
        ("asks for a region outside the group", router("eu-central-1")),
        (
            "hands over a string of a gibibyte",
            guest(
                set_header,
                "x-a",
                "(call $set (i32.const 200) (i32.const 1073741824) (i32.const 200) (i32.const 3) (i32.const 128)) (i32.const 64)",
            ),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_on_closed_refuses_that_request_only() {
    for (deed, wasm) in misdeeds() {
        let world = world_with(wasm, "closed").await;
        let bad = world.tenant("bad", "team", "us").await;
        let good = world.tenant("good", "team", "us").await;
        for _ in 0..2 {
            let refused = bad.get("/").await;
            assert_eq!(refused.status, 503, "{deed}: {}", refused.text());
            assert_eq!(refused.code(), "policy-unavailable", "{deed}");
            good.get("/").await.expect(200);
        }
        assert_eq!(world.origin("eu-central-1").arrivals(), 0, "{deed}");
        let usage = world.usage(&bad).await;
        assert_eq!(usage["current_usage"]["api_calls_this_month"], 0, "{deed}: not charged");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_on_open_goes_on_without_the_policy_and_inside_the_group() {
    for (deed, wasm) in misdeeds() {
        let world = world_with(wasm, "open").await;
        let bad = world.tenant("bad", "team", "us").await;
        let reply = bad.get("/").await.expect(200);
        assert_eq!(reply.json()["region"], "us-east-1", "{deed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policys_own_answer_is_sent_and_not_charged() {
    let world = world_with(responder(418), "closed").await;
    let bad = world.tenant("bad", "team", "us").await;
    bad.get("/").await.expect(418);
    assert_eq!(world.arrivals(), 0);
    assert_eq!(world.usage(&bad).await["current_usage"]["api_calls_this_month"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_imports_what_it_may_not_is_refused_by_name() {
    let stranger = r#"(component (import "wasi:filesystem/preopens@0.2.0" (instance)))"#;
    let wasm = wat::parse_str(stranger).expect("WAT");
    let options = WorldOptions {
        config: String::new(),
        prepare: Some(Box::new(move |policies| declare(policies, "evil", &wasm, ""))),
    };
    let error = World::start_error(options).await;
    assert!(error.contains("evil/policy.toml: component"), "{error}");
    assert!(error.contains("wasi:filesystem/preopens"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_traps_leaves_the_others_served() {
    let world = world_with(guest("", "", "(loop (br 0)) (i32.const 64)"), "closed").await;
    let bad = world.tenant("bad", "team", "us").await;
    let good = world.tenant("good", "team", "us").await;
    let storm: Vec<_> = (0..40)
        .map(|_| {
            let bad = bad.clone();
            tokio::spawn(async move { bad.get("/").await.status.as_u16() })
        })
        .collect();
    for _ in 0..20 {
        good.get("/").await.expect(200);
    }
    for stuck in storm {
        assert_eq!(stuck.await.expect("no panic"), 503);
    }
    eventually("every slot is free again", || async {
        let page = world.admin("GET", "/metrics", None).await.text();
        let alive = page.lines().find(|line| line.starts_with("leanvibe_sandbox_instances"))?;
        alive.ends_with(" 0").then_some(())
    })
    .await;
}
