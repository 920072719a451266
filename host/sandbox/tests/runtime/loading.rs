//! What is loaded and what is refused, and with which reason.

use model::policy::{Decision, Hooks};
use sandbox::{ComponentCaps, LoadError};

use crate::kit::{
    on_request, policy, request_guest, response_guest, sandbox, sandbox_with, spec, typed_module,
};

const CONTINUE: &str = "(i32.const 64)";

fn refusal(component: &str) -> LoadError {
    let bytes = wat::parse_str(component).expect("the text parses");
    sandbox().load(&bytes).expect_err("refused")
}

#[test]
fn a_core_module_with_a_component_type_is_lifted_and_runs() {
    let sandbox = sandbox();
    let module = request_guest("", CONTINUE);
    let version = sandbox.load(&module).expect("loaded");
    assert_eq!(version.hooks(), Hooks { request: true, ..Hooks::default() });
    assert_eq!(version.digest().len(), 64);
    assert_eq!(version.short_digest(), &version.digest()[..12]);
    assert_eq!(version.initial_memory_bytes(), 128 << 10);
    let plugin = policy(&sandbox, &module, spec());
    assert!(matches!(on_request(&plugin, 1).1, Ok(Decision::Continue)));
}

#[test]
fn a_lifted_component_is_the_same_plugin() {
    let component = sandbox::lift::componentize(&response_guest("", CONTINUE)).expect("lifted");
    let version = sandbox().load(&component).expect("loaded");
    assert_eq!(version.hooks(), Hooks { response: true, ..Hooks::default() });
}

#[test]
fn a_module_that_does_not_fit_its_type_is_refused() {
    // The export has a parameter that on-request has not.
    let hook = "leanvibe:policy/request-hook@0.1.0#on-request";
    let module = typed_module(
        "",
        &format!(r#"(func (export "{hook}") (param i64) (result i32) {CONTINUE})"#),
    );
    assert!(matches!(sandbox().load(&module), Err(LoadError::Lift(_))));
}

#[test]
fn files_that_are_no_component_are_refused_by_what_they_are() {
    let sandbox = sandbox_with(|config| config.component.bytes = 1000);
    for (bytes, reason) in [
        (&b""[..], "empty"),
        (b"PK\x03\x04rest", "zip"),
        (b"\0asm\x01\0\0\0", "component-type"),
        (&[0; 1001][..], "1001 bytes; at most 1000"),
    ] {
        let error = sandbox.load(bytes).expect_err("refused").to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn a_truncated_component_is_invalid_at_every_length() {
    let sandbox = sandbox();
    let whole = sandbox::lift::componentize(&request_guest("", CONTINUE)).expect("lifted");
    for length in (8..whole.len()).step_by(37) {
        let error = sandbox.load(&whole[..length]).expect_err("refused");
        let named = matches!(error, LoadError::Invalid(_) | LoadError::NoHook);
        assert!(named, "{length}: {error}");
    }
}

#[test]
fn imports_beyond_the_contract_are_refused_by_name() {
    for (import, reason) in [
        ("wasi:cli/environment@0.2.0", "WASI"),
        ("wasi:sockets/tcp@0.2.6", "WASI"),
        ("leanvibe:policy/secrets@0.1.0", "no such interface"),
        ("leanvibe:policy/request@0.2.0", "version 0.1"),
        ("other:thing/api", "leanvibe:policy/*"),
    ] {
        let text = format!(r#"(component (import "{import}" (instance)))"#);
        match refusal(&text) {
            LoadError::ForbiddenImport { name, why } => {
                assert_eq!(name, import);
                assert!(why.contains(reason), "{why}");
            }
            other => panic!("{import}: {other}"),
        }
    }
    let bare = refusal(r#"(component (import "exit" (func)))"#);
    assert!(bare.to_string().contains("imports exit"), "{bare}");
}

#[test]
fn a_function_of_a_later_contract_is_named() {
    let error = refusal(
        r#"(component (import "leanvibe:policy/request@0.1.9"
             (instance (export "trailers" (func (result string))))))"#,
    );
    assert_eq!(
        error,
        LoadError::UnknownFunction {
            interface: "leanvibe:policy/request@0.1.9".into(),
            function: "trailers".into()
        }
    );
}

#[test]
fn an_import_of_another_type_is_refused() {
    let error = refusal(
        r#"(component (import "leanvibe:policy/request@0.1.0"
             (instance (export "method" (func (result u32))))))"#,
    );
    assert!(matches!(&error, LoadError::TypeMismatch(text) if text.contains("method")), "{error}");
}

/// A component that exports an interface with one function of the given type.
fn exporting(interface: &str, function: &str, ty: &str, core: &str) -> String {
    format!(
        r#"(component
             (core module $m (memory (export "memory") 1) (func (export "f") {core}))
             (core instance $i (instantiate $m))
             (func $f {ty} (canon lift (core func $i "f") (memory (core memory $i "memory"))))
             (instance $e (export "{function}" (func $f)))
             (export "{interface}" (instance $e)))"#
    )
}

#[test]
fn a_hook_of_another_type_is_refused() {
    let hook = "leanvibe:policy/request-hook@0.1.0";
    let wrong = exporting(hook, "on-request", "(result u32)", "(result i32) i32.const 0");
    let error = refusal(&wrong);
    assert!(matches!(&error, LoadError::TypeMismatch(text) if text.contains("on-request")));
    let other = exporting(hook, "on-reqest", "(result u32)", "(result i32) i32.const 0");
    assert!(matches!(refusal(&other), LoadError::TypeMismatch(text) if text.contains("without")));
}

#[test]
fn a_component_without_a_hook_is_refused_and_other_exports_do_not_matter() {
    assert_eq!(refusal("(component)"), LoadError::NoHook);
    let unrelated = exporting("my:own/thing", "f", "(result u32)", "(result i32) i32.const 0");
    assert_eq!(refusal(&unrelated), LoadError::NoHook);
    let later = "leanvibe:policy/request-hook@0.2.0";
    assert_eq!(
        refusal(&exporting(later, "f", "(result u32)", "(result i32) i32.const 0")),
        LoadError::NoHook
    );
    let module = typed_module(
        "",
        r#"(func (export "leanvibe:policy/request-hook@0.1.0#on-request") (result i32) i32.const 64)
           (func (export "cabi_post_leanvibe:policy/request-hook@0.1.0#on-request") (param i32))"#,
    );
    assert!(sandbox().load(&module).is_ok());
}

/// Two nested components that hand a text over: wasmtime makes an adapter between them,
/// which reads one memory and writes the other.
const ADAPTED: &str = r#"(component
    (component $callee
        (core module $m
            (memory (export "memory") 1)
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 64)
            (func (export "f") (param i32 i32)))
        (core instance $i (instantiate $m))
        (func (export "f") (param "text" string)
            (canon lift (core func $i "f")
                (memory (core memory $i "memory")) (realloc (core func $i "realloc")))))
    (component $caller
        (import "f" (func $f (param "text" string)))
        (core module $memory (memory (export "memory") 1))
        (core instance $memory (instantiate $memory))
        (core func $lowered (canon lower (func $f) (memory (core memory $memory "memory"))))
        (core module $m
            (import "" "f" (func $f (param i32 i32)))
            (func (export "g") (call $f (i32.const 0) (i32.const 0))))
        (core instance $i (instantiate $m
            (with "" (instance (export "f" (func $lowered))))))
        (func (export "g") (canon lift (core func $i "g"))))
    (instance $callee (instantiate $callee))
    (instance $caller (instantiate $caller (with "f" (func $callee "f"))))
    (export "g" (func $caller "g")))"#;

#[test]
fn nested_components_that_hand_texts_over_are_compiled() {
    assert_eq!(refusal(ADAPTED), LoadError::NoHook);
}

#[test]
fn a_module_with_two_memories_is_refused_before_it_is_compiled() {
    let two = "(component (core module (memory 1) (memory 1)))";
    assert!(matches!(refusal(two), LoadError::Invalid(reason) if reason.contains("memories")));
}

#[test]
fn what_compile_time_grows_with_is_capped() {
    let sandbox = sandbox_with(|config| {
        config.component = ComponentCaps {
            modules: 3,
            depth: 2,
            components: 4,
            instances: 5,
            items: 6,
            functions: 7,
            body_bytes: 100,
            locals: 8,
            segments: 2,
            ..ComponentCaps::default()
        };
    });
    for (text, what) in [
        ("(component (core module) (core module) (core module) (core module))".into(), "modules"),
        ("(component (component (component (component))))".into(), "levels"),
        (format!("(component {})", "(component)".repeat(5)), "nested components"),
        (
            format!(
                "(component (core module $m) {})",
                "(core instance (instantiate $m))".repeat(6)
            ),
            "instances",
        ),
        (format!("(component {})", "(type (tuple u8))".repeat(7)), "types"),
        (format!("(component (core module {}))", "(func)".repeat(8)), "functions"),
        (
            format!("(component (core module (func {})))", "nop ".repeat(200)),
            "bytes in a function body",
        ),
        (
            "(component (core module (func (local i32 i32 i32 i32 i64 i64 i64 i64 f32))))".into(),
            "locals",
        ),
        (
            format!(
                "(component (core module (memory 1) {}))",
                "(data (i32.const 0) \"a\")".repeat(3)
            ),
            "data segments",
        ),
    ] {
        let bytes = wat::parse_str(&text).expect("the text parses");
        match sandbox.load(&bytes) {
            Err(LoadError::TooComplex { what: found, .. }) => {
                assert!(found.contains(what), "{found}")
            }
            other => panic!("{what}: {other:?}"),
        }
    }
}

#[test]
fn proposals_that_are_off_make_a_component_invalid() {
    for body in [
        "(memory i64 1)",
        "(memory 1 1 shared)",
        "(memory 1) (memory 1)",
        "(func $f return_call $f)",
        "(tag)",
        "(type (struct))",
        "(table 1 externref)",
        "(func (result v128) v128.const i64x2 0 0 v128.const i64x2 0 0 i32x4.relaxed_trunc_f32x4_s drop)",
    ] {
        let Ok(bytes) = wat::parse_str(format!("(component (core module {body}))")) else {
            panic!("{body} does not parse")
        };
        assert!(matches!(sandbox().load(&bytes), Err(LoadError::Invalid(_))), "{body}");
    }
}
