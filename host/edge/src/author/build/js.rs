//! JavaScript: QuickJS with the policy in it, by componentize-qjs.

use std::{path::Path, process::Command};

use anyhow::Result;

use super::{Project, WIT, WORLD, read, tools};
use crate::author::tools::Tool;

const COMPONENTIZE: Tool = Tool {
    programs: &["componentize-qjs"],
    package: "npm package componentize-qjs",
    install: "npm install",
};

pub(super) fn build(project: &Project, made: &Path) -> Result<Vec<u8>> {
    let program = COMPONENTIZE.find(&project.dir)?;
    let mut command = Command::new(program);
    command.args(["--wit", WIT, "--js", "policy.js", "--world", WORLD]);
    // A policy gets no WASI, and its hooks are synchronous. Not --opt-size: that runtime uses
    // tail calls, which the edge has off.
    command.args(["--stub-wasi", "--sync", "--output"]).arg(made);
    tools::run(command.current_dir(&project.dir))?;
    read(made)
}
