//! Code that was compiled elsewhere, sealed, and loaded here.

use model::policy::Decision;
use sandbox::{ArtefactKey, Compiler, LoadError, SandboxConfig};

use crate::kit::{on_request, request_guest, run, sandbox, sandbox_with, spec};

const CONTINUE: &str = "(i32.const 64)";

#[test]
fn what_another_process_compiles_runs_here_like_what_was_compiled_here() {
    let sandbox = sandbox();
    let module = request_guest("", CONTINUE);
    let compiler = Compiler::new(SandboxConfig::default()).expect("a compiler");
    let code = compiler.compile(&module).expect("compiled");
    let (key, engine) = (ArtefactKey::new([1; 32]), sandbox.fingerprint());
    let sealed = key.seal([2; 32], engine, &code);
    let verified = key.open([2; 32], engine, &sealed).expect("the seal holds");
    let version = sandbox.load_precompiled(&verified, module.len()).expect("loaded");
    assert_eq!(version.size_bytes(), module.len());
    assert_eq!(version.hooks(), sandbox.load(&module).expect("loaded").hooks());
    assert_eq!(version.digest(), "02".repeat(32));
    let plugin = run(sandbox.bind(&version, spec())).expect("bound");
    assert!(matches!(on_request(&plugin, 1).1, Ok(Decision::Continue)));
}

#[test]
fn a_compiler_refuses_what_a_sandbox_would() {
    let compiler = Compiler::new(SandboxConfig::default()).expect("a compiler");
    let refused = compiler.compile(b"PK\x03\x04").expect_err("refused");
    assert_eq!(refused.code(), "plugin-not-wasm");
    let no_hook = wat::parse_str("(component)").expect("text");
    let code = compiler.compile(&no_hook).expect("a component");
    let sandbox = sandbox();
    let (key, engine) = (ArtefactKey::new([1; 32]), sandbox.fingerprint());
    let sealed = key.seal([0; 32], engine, &code);
    let verified = key.open([0; 32], engine, &sealed).expect("the seal holds");
    let refused = sandbox.load_precompiled(&verified, 8).expect_err("refused");
    assert_eq!(refused, LoadError::NoHook);
}

#[test]
fn sandboxes_of_one_configuration_share_a_fingerprint_whatever_their_slots() {
    assert_eq!(sandbox().fingerprint(), sandbox().fingerprint());
    let slots = sandbox_with(|config| config.slots = 7);
    assert_eq!(slots.fingerprint(), sandbox().fingerprint(), "slots are no part of the code");
}
