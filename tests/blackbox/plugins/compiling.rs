//! Rows 10 and 11 of the sandbox checklist: what happens to the compiler's process and to
//! its artefacts.

use std::{fmt::Write as _, path::PathBuf};

use super::{plugins_of, post_form, push};
use crate::actors::{
    EdgeProcess, Origin, World, WorldOptions, eventually, guest, prepare_policies, responder,
};

/// A plugin that takes the compiler a while: functions of thousands of branches.
fn slow_to_compile() -> Vec<u8> {
    let mut functions = String::new();
    for function in 0..6 {
        write!(functions, "(func $f{function} (param i32) (local {})", "i32 ".repeat(40))
            .expect("a string");
        for n in 0..8_000 {
            let (to, from) = (n % 40 + 1, n * 7 % 40 + 1);
            write!(
                functions,
                "(if (local.get {from}) (then (local.set {to} \
                 (i32.add (local.get {to}) (local.get {from})))))"
            )
            .expect("a string");
        }
        functions.push(')');
    }
    // The hook's own closing parenthesis is the helper's.
    guest("", "", &format!("(i32.const 64)) {functions} (func $last"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compilation_beyond_its_memory_or_time_is_refused_once_and_others_are_served() {
    let scripts = tempfile::tempdir().expect("a folder");
    let hangs = scripts.path().join("hangs");
    std::fs::write(&hangs, "#!/bin/sh\nexec sleep 600\n").expect("a script");
    let runs = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(&hangs, runs).expect("a script");
    for limits in [
        "compile_memory_mb = 60\n".to_owned(),
        "compile_cpu_s = 1\n".to_owned(),
        format!("compile_wall_s = 1\ncompiler = \"{}\"\n", hangs.display()),
    ] {
        let config = format!("[plugins]\n{limits}");
        let world = World::with(WorldOptions { config, prepare: None }).await;
        let acme = world.tenant("acme", "team", "us").await;
        let wasm = slow_to_compile();
        let parts: [(&str, &[u8]); 2] = [("name", b"bomb"), ("component", &wasm)];
        let refused = post_form(world.control(), &plugins_of(&acme), &parts).await;
        assert_eq!(refused.status.as_u16(), 422, "{limits}: {}", refused.text());
        assert_eq!(refused.code(), "plugin-too-costly", "{limits}");
        acme.get("/").await.expect(200);
    }
}

/// The children of a process that compile.
fn compilers_of(process: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten();
    let children = tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let children: Vec<u32> = children
        .flat_map(|list| list.split_whitespace().flat_map(str::parse).collect::<Vec<_>>())
        .collect();
    let compiles = |child: &u32| {
        let command = std::fs::read_to_string(format!("/proc/{child}/cmdline"));
        command.is_ok_and(|command| command.contains("compile-plugin"))
    };
    children.into_iter().filter(compiles).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compiler_that_is_killed_costs_its_upload_and_the_edge_goes_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let origin = Origin::start("all").await;
    prepare_policies(dir.path(), &origin);
    let edge = EdgeProcess::serve(dir.path()).await;
    let process = edge.child.id().expect("a living process");
    let control = edge.control;
    let upload = tokio::spawn(async move {
        let wasm = slow_to_compile();
        let parts: [(&str, &[u8]); 2] = [("name", b"slow"), ("component", &wasm)];
        post_form(control, "/api/v1/admin/plugins", &parts).await
    });
    let compiler =
        eventually("a compiler runs", || async { compilers_of(process).first().copied() }).await;
    let kill = tokio::process::Command::new("kill").args(["-9", &compiler.to_string()]).status();
    assert!(kill.await.expect("kill(1)").success());
    let refused = upload.await.expect("no panic");
    assert_eq!(refused.status.as_u16(), 422, "{}", refused.text());
    assert_eq!(refused.code(), "plugin-too-costly");
    eventually("it is not tried again", || async {
        compilers_of(process).is_empty().then_some(())
    })
    .await;
    let wasm = responder(418);
    let parts: [(&str, &[u8]); 3] =
        [("name", b"next"), ("component", &wasm), ("activate", b"true")];
    post_form(control, "/api/v1/admin/plugins", &parts).await.expect(201);
}

fn artefacts(world: &World) -> Vec<PathBuf> {
    let folder = world.dir.path().join("data/plugins");
    let files = std::fs::read_dir(folder).expect("a folder").flatten().map(|file| file.path());
    files.filter(|path| path.extension().is_some_and(|end| end == "artefact")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn machine_code_that_was_not_sealed_here_is_compiled_again_and_never_loaded() {
    let mut world = World::start().await;
    let acme = world.tenant("acme", "team", "us").await;
    push(world.control(), &acme, "gate", &responder(418)).await;
    let file = artefacts(&world).pop().expect("an artefact");
    let good = std::fs::read(&file).expect("bytes");
    let flipped = {
        let mut bytes = good.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        bytes
    };
    // The key of another edge: whatever it sealed is foreign here.
    for (tampered, key) in [
        (flipped, false),
        (good[..good.len() - 1].to_vec(), false),
        (b"short".to_vec(), false),
        (good.clone(), true),
    ] {
        world.stop().await;
        std::fs::write(&file, &tampered).expect("a file");
        if key {
            std::fs::write(world.dir.path().join("data/plugins/seal.key"), [7; 32])
                .expect("a file");
        }
        world.resume().await;
        acme.at(world.edge()).get("/").await.expect(418);
        let now = std::fs::read(&file).expect("bytes");
        assert_ne!(now, tampered, "it was made anew");
    }
}
