//! What a hook call costs: CPU microseconds per call, fresh and reused.
//!
//! `cargo run --release -p leanvibe-sandbox --example call_cost [component.wasm [config.json]]`
//!
//! Without a component it measures a guest that continues, with nothing read: the floor.
//! Times are those of this thread's CPU clock, the median of several rounds.

#![allow(clippy::expect_used, clippy::print_stdout, reason = "a program for developers")]

#[path = "../tests/runtime/kit.rs"]
#[allow(dead_code, clippy::panic, clippy::indexing_slicing, reason = "shared with the tests")]
mod kit;

use std::{path::Path, sync::Arc};

use model::{clock::SystemClock, policy::Plugin};
use sandbox::{BindingSpec, Instances, Sandbox, SandboxConfig};

const ROUNDS: usize = 9;
const CALLS: u32 = 20_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let wasm = match arguments.first() {
        Some(file) => std::fs::read(Path::new(file)).expect("the component is readable"),
        None => kit::request_guest("", "(i32.const 64)"),
    };
    let mut spec = kit::spec();
    if let Some(file) = arguments.get(1) {
        let text = std::fs::read_to_string(Path::new(file)).expect("the config is readable");
        spec.config = serde_json::from_str(&text).expect("the config is JSON");
    }
    let sandbox = Sandbox::new(SandboxConfig::default(), Arc::new(SystemClock::default()))
        .expect("the engine starts");
    for (name, instances) in
        [("fresh", Instances::Fresh), ("reused", Instances::Reuse { requests_max: u32::MAX })]
    {
        let spec = BindingSpec { instances, ..spec.clone() };
        let plugin = kit::policy(&sandbox, &wasm, spec);
        let mut rounds: Vec<f64> = (0..ROUNDS).map(|_| round(&plugin)).collect();
        rounds.sort_by(f64::total_cmp);
        let median = rounds.get(ROUNDS / 2).copied().unwrap_or_default();
        println!("{name}: {median:.2} us per call");
    }
}

/// CPU microseconds per call of one round.
fn round(plugin: &Arc<dyn Plugin>) -> f64 {
    let exchange = kit::exchange(1);
    kit::run(async {
        let before = cpu_us();
        let mut exchange = exchange;
        for _ in 0..CALLS {
            let (back, outcome) = plugin.on_request(exchange).await;
            outcome.expect("the call succeeds");
            exchange = back;
        }
        (cpu_us() - before) / f64::from(CALLS)
    })
}

/// CPU time of this thread in microseconds, from the scheduler's own figures.
fn cpu_us() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanoseconds: f64 =
        text.split_whitespace().next().and_then(|field| field.parse().ok()).expect("a number");
    nanoseconds / 1000.0
}
