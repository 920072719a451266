//! C: bindings by wit-bindgen, a core module by zig's clang, and the component by us.

use std::{path::Path, process::Command};

use anyhow::Result;

use super::{Project, WIT, WORLD, lifted, tools};
use crate::author::tools::Tool;

const WIT_BINDGEN: Tool = Tool {
    programs: &["wit-bindgen"],
    package: "crate wit-bindgen-cli",
    install: "cargo install wit-bindgen-cli --version 0.63.0 --no-default-features --features c",
};
const ZIG: Tool = Tool {
    programs: &["python-zig", "zig"],
    package: "PyPI package ziglang",
    install: "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt",
};
/// Folder of the generated bindings.
const GENERATED: &str = "gen";
/// Bytes of stack: with data and heap it is what a fresh instance has to reset.
const STACK: &str = "-Wl,-z,stack-size=65536";

pub(super) fn build(project: &Project, made: &Path) -> Result<Vec<u8>> {
    let bindgen = WIT_BINDGEN.find(&project.dir)?;
    let zig = ZIG.find(&project.dir)?;
    let mut bindings = Command::new(bindgen);
    bindings.args(["c", WIT, "--world", WORLD, "--autodrop-borrows", "yes"]);
    tools::run(bindings.args(["--out-dir", GENERATED]).current_dir(&project.dir))?;
    let mut compile = Command::new(zig);
    compile.args(["cc", "-target", "wasm32-wasi", "-mexec-model=reactor", "-Oz", "-s", STACK]);
    compile.args(["-Wall", "-I", GENERATED, "policy.c"]);
    // wit-bindgen names its files after the world.
    compile.args(["gen/request_policy.c", "gen/request_policy_component_type.o", "-o"]).arg(made);
    tools::run(compile.current_dir(&project.dir))?;
    lifted(made)
}
