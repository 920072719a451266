//! Misbehaving guests from WebAssembly text: core modules that follow the canonical ABI by
//! hand and carry their component type, as a toolchain's output does.
//!
//! Layout of a request hook's result at `p`: 0 = ok/err, 4 = decision (0 continue, 1
//! route, 2 respond), 8 = its payload. Zeroed memory is therefore `ok(continue)`.

use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

const WIT: &str = include_str!("../../../wit/policy.wit");

/// A guest whose request hook is `body`, which leaves a result's address on the stack.
/// `imports` come first in the module; `text` lies at 200.
pub fn guest(imports: &str, text: &str, body: &str) -> Vec<u8> {
    let module = format!(
        r#"(module {imports}
             (memory (export "memory") 1)
             (data (i32.const 200) "{text}")
             (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 16384))
             (func (export "leanvibe:policy/request-hook@0.1.0#on-request") (result i32) {body}))"#
    );
    let mut bytes = wat::parse_str(&module).unwrap_or_else(|error| panic!("{error}\n{module}"));
    let world = "package test:guest; world guest { include leanvibe:policy/capabilities@0.1.0; \
                 export leanvibe:policy/request-hook@0.1.0; }";
    let mut resolve = Resolve::default();
    resolve.push_source("policy.wit", WIT).expect("the contract parses");
    let package = resolve.push_source("guest.wit", world).expect("the world parses");
    let world = resolve.select_world(&[package], Some("guest")).expect("the world is there");
    embed_component_metadata(&mut bytes, &resolve, world, StringEncoding::UTF8)
        .expect("the type is embedded");
    bytes
}

/// Answers every request with `status` and an empty body.
pub fn responder(status: u16) -> Vec<u8> {
    let body = format!(
        "(i32.store (i32.const 68) (i32.const 2)) (i32.store16 (i32.const 72) (i32.const {status}))
         (i32.const 64)"
    );
    guest("", "", &body)
}

/// Asks for a region.
pub fn router(region: &str) -> Vec<u8> {
    let body = format!(
        "(i32.store (i32.const 68) (i32.const 1)) (i32.store (i32.const 76) (i32.const 200))
         (i32.store (i32.const 80) (i32.const {})) (i32.const 64)",
        region.len()
    );
    guest("", region, &body)
}
