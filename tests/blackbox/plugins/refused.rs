//! Row 9 of the sandbox checklist: what is refused, with a reason that an author
//! understands, while others are served.

use std::fmt::Write as _;

use super::{plugins_of, post_form};
use crate::actors::{World, WorldOptions, guest, responder};

/// A module's section: id, and its content behind its length.
fn section(id: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![id];
    leb(content.len(), &mut bytes);
    bytes.extend_from_slice(content);
    bytes
}

fn leb(mut value: usize, to: &mut Vec<u8>) {
    loop {
        let byte = u8::try_from(value & 0x7f).expect("seven bits");
        value >>= 7;
        if value == 0 {
            to.push(byte);
            return;
        }
        to.push(byte | 0x80);
    }
}

/// A component around a core module of one type and `functions` functions without bodies.
fn many_functions(functions: usize) -> Vec<u8> {
    let mut list = Vec::new();
    leb(functions, &mut list);
    list.resize(list.len() + functions, 0);
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    module.extend(section(1, &[1, 0x60, 0, 0]));
    module.extend(section(3, &list));
    let mut component = b"\0asm\x0d\0\x01\0".to_vec();
    component.extend(section(1, &module));
    component
}

fn with_body(body: &str) -> Vec<u8> {
    guest("", "", &format!("{body} (i32.const 64)"))
}

fn huge_branch_table() -> Vec<u8> {
    let targets = "0 ".repeat(600_000);
    with_body(&format!("(block (br_table {targets} (i32.const 0)))"))
}

fn many_locals() -> Vec<u8> {
    let locals = "i32 ".repeat(50_000);
    guest("", "", &format!("(i32.const 64)) (func $locals (local {locals})"))
}

fn large_function() -> Vec<u8> {
    with_body(&"(drop (i32.const 1))".repeat(300_000))
}

fn nested_components() -> Vec<u8> {
    let mut text = String::from("(component ");
    for n in 0..1_000 {
        write!(text, "(component $c{n})").expect("a string");
    }
    wat::parse_str(text + ")").expect("a component")
}

fn deep_components() -> Vec<u8> {
    let text = format!("{}{}", "(component ".repeat(40), ")".repeat(40));
    wat::parse_str(text).expect("a component")
}

fn importing(name: &str) -> Vec<u8> {
    let text = format!("(component (import \"{name}\" (instance)))");
    wat::parse_str(text).expect("a component")
}

fn hostile() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let good = responder(418);
    vec![
        ("nothing", Vec::new(), "plugin-not-wasm"),
        ("half of a plugin", good[..good.len() / 2].to_vec(), "plugin-"),
        ("gzip", b"\x1f\x8b\x08\0rest".to_vec(), "plugin-not-wasm"),
        ("a zip", b"PK\x03\x04rest".to_vec(), "plugin-not-wasm"),
        ("text", b"(module)".to_vec(), "plugin-not-wasm"),
        ("a bare module", b"\0asm\x01\0\0\0".to_vec(), "plugin-not-wasm"),
        ("a million functions", many_functions(1_000_000), "plugin-too-complex"),
        ("a huge function", large_function(), "plugin-too-complex"),
        ("50,000 locals", many_locals(), "plugin-"),
        ("a huge br_table", huge_branch_table(), "plugin-too-complex"),
        ("1,000 nested components", nested_components(), "plugin-too-complex"),
        ("40 levels of components", deep_components(), "plugin-"),
        ("WASI", importing("wasi:cli/environment@0.2.0"), "plugin-forbidden-import"),
        ("a stranger's import", importing("evil:host/shell@1.0.0"), "plugin-forbidden-import"),
        ("no hook", wat::parse_str("(component)").expect("text"), "plugin-no-hook"),
        ("a trap in its hook", guest("", "", "unreachable"), "plugin-probe-failed"),
        ("an endless loop", guest("", "", "(loop (br 0)) (i32.const 64)"), "plugin-probe-failed"),
        ("a status of no response", responder(99), "plugin-probe-failed"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_upload_is_refused_by_name_and_nobody_else_notices() {
    let world = World::start().await;
    let acme = world.tenant("acme", "team", "us").await;
    let other = world.tenant("other", "team", "us").await;
    let path = plugins_of(&acme);
    for (what, wasm, code) in hostile() {
        let parts: [(&str, &[u8]); 3] =
            [("name", b"bad"), ("component", &wasm), ("activate", b"true")];
        let refused = post_form(world.control(), &path, &parts).await;
        assert_eq!(refused.status.as_u16(), 422, "{what}: {}", refused.text());
        assert!(refused.code().starts_with(code), "{what}: {}", refused.text());
        let detail = refused.json()["detail"].as_str().unwrap_or_default().to_owned();
        assert!(detail.len() > 10 && !detail.contains('\n'), "{what}: {detail:?}");
        other.get("/").await.expect(200);
    }
    acme.get("/").await.expect(200);
    let listed = world.admin("GET", &path, None).await.expect(200).json();
    assert_eq!(listed["items"], serde_json::json!([]), "nothing of them is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_who_asks_for_signatures_gets_signed_plugins_only() {
    let key = "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=";
    let config = format!("[plugins]\nrequire_signature = true\npublic_keys = [\"{key}\"]\n");
    let world = World::with(WorldOptions { config, prepare: None }).await;
    let acme = world.tenant("acme", "team", "us").await;
    let wasm = responder(418);
    let parts: [(&str, &[u8]); 2] = [("name", b"gate"), ("component", &wasm)];
    let unsigned = post_form(world.control(), &plugins_of(&acme), &parts).await;
    assert_eq!(unsigned.expect(422).code(), "plugin-unsigned");
    let forged = [b'A'; 86];
    let forged = [&forged[..], b"=="].concat();
    let parts: [(&str, &[u8]); 3] =
        [("name", b"gate"), ("component", &wasm), ("signature", &forged)];
    let forged = post_form(world.control(), &plugins_of(&acme), &parts).await;
    assert_eq!(forged.expect(422).code(), "plugin-bad-signature");
}
