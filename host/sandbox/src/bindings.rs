//! Types and traits generated from `wit/policy.wit`.
//!
//! WIT types stop at `convert.rs` and the host modules. Invariant: nothing generated here
//! is public outside the crate.

#![allow(
    missing_docs,
    unreachable_pub,
    unsafe_code,
    dead_code,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "generated code"
)]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "full-policy",
    // Functions that may wait (Redis, DNS, an upstream) suspend the guest's fiber; the
    // others are plain calls, ten times cheaper.
    imports: {
        "leanvibe:policy/keyvalue": async | trappable,
        "leanvibe:policy/rate-limit": async | trappable,
        "leanvibe:policy/outbound": async | trappable,
        default: trappable,
    },
    exports: { default: async },
});
