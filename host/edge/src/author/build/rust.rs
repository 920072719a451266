//! Rust: a core module for `wasm32-unknown-unknown`, and the component by us.
//!
//! The standard library is rustup's where it is there; else Debian's `rustc-web` builds it;
//! else rustup is asked to add it.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::{Project, lifted, tools};
use crate::author::tools::Tool;

const TARGET: &str = "wasm32-unknown-unknown";
const CARGO: Tool = Tool {
    programs: &["cargo"],
    package: "Rust",
    install: "rustup, from the system's packages or rustup.rs",
};
/// Debian's compiler, and the sources that it builds the standard library of.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_SOURCES: &str = "/usr/lib/rustlib/src/rust/library";
/// Seconds that rustup may take to add the target: 30 MB.
const ADD_TARGET_SECONDS: u64 = 60;

pub(super) fn build(project: &Project) -> Result<Vec<u8>> {
    let cargo = CARGO.find(&project.dir)?;
    let mut build = Command::new(&cargo);
    build.args(["build", "--quiet", "--release", "--target", TARGET]).current_dir(&project.dir);
    let sysroot = PathBuf::from(line_of(Command::new("rustc").args(["--print", "sysroot"]))?);
    if !has_target(&sysroot) {
        if Path::new(DEBIAN_RUSTC).exists() && Path::new(DEBIAN_SOURCES).is_dir() {
            use_debian(&mut build, &sysroot)?;
        } else if !(add_target()? && has_target(&sysroot)) {
            bail!(
                "the standard library for {TARGET} is missing; install it with: \
                 rustup target add {TARGET} (or Debian's packages rustc-web and rust-web-src)"
            );
        }
    }
    tools::run(&mut build)?;
    lifted(&core_module(&cargo, project)?)
}

fn has_target(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib").join(TARGET).join("lib").is_dir()
}

/// Debian's compiler builds the standard library itself, and links with rustup's linker.
fn use_debian(build: &mut Command, sysroot: &Path) -> Result<()> {
    let version = line_of(Command::new("rustc").args(["-vV"]).env_remove("RUSTC"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let linkers = sysroot.join("lib/rustlib").join(host.unwrap_or_default()).join("bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = [linkers.clone(), linkers.join("gcc-ld")].into_iter();
    let path = std::env::join_paths(folders.chain(std::env::split_paths(&path)))?;
    build.env("PATH", path).env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
    build.arg("-Zbuild-std=std,panic_abort");
    Ok(())
}

/// Asks rustup for the target; false when it cannot be had.
fn add_target() -> Result<bool> {
    let mut rustup = Command::new("rustup");
    rustup.args(["target", "add", TARGET]);
    rustup.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let Ok(mut child) = rustup.spawn() else { return Ok(false) };
    for _ in 0..ADD_TARGET_SECONDS {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    child.kill()?;
    child.wait()?;
    Ok(false)
}

/// Where cargo put the module: it knows the target folder and the crate's name.
fn core_module(cargo: &Path, project: &Project) -> Result<PathBuf> {
    let mut metadata = Command::new(cargo);
    metadata.args(["metadata", "--no-deps", "--format-version", "1"]).current_dir(&project.dir);
    let metadata: serde_json::Value = serde_json::from_str(&line_of(&mut metadata)?)?;
    let folder = metadata.get("target_directory").and_then(|folder| folder.as_str());
    let targets = metadata.pointer("/packages/0/targets").and_then(|targets| targets.as_array());
    let is_library = |target: &&serde_json::Value| {
        let kinds = target.get("kind").and_then(|kinds| kinds.as_array());
        kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind == "cdylib"))
    };
    let library = targets.into_iter().flatten().find(is_library);
    let name = library.and_then(|target| target.get("name")?.as_str());
    let name = name.context("Cargo.toml: [lib] needs crate-type = [\"cdylib\"]")?;
    let file = format!("{}.wasm", name.replace('-', "_"));
    Ok(Path::new(folder.unwrap_or("target")).join(TARGET).join("release").join(file))
}

/// What a program prints, without the last line's end.
fn line_of(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("{name} does not run"))?;
    if !output.status.success() {
        bail!("{}\n{name}: {}", String::from_utf8_lossy(&output.stderr), output.status);
    }
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}
