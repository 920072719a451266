//! Python: CPython with the policy in it, by componentize-py.

use std::{path::Path, process::Command};

use anyhow::Result;

use super::{Project, WIT, WORLD, read, tools};
use crate::author::tools::Tool;

const COMPONENTIZE: Tool = Tool {
    programs: &["componentize-py"],
    package: "PyPI package componentize-py",
    install: "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt",
};
/// The module of the policy.
const MODULE: &str = "policy";

pub(super) fn build(project: &Project, made: &Path) -> Result<Vec<u8>> {
    let program = COMPONENTIZE.find(&project.dir)?;
    let mut command = Command::new(program);
    command.args(["--quiet", "--wit-path", WIT, "--world", WORLD, "componentize"]);
    // A policy gets no WASI.
    command.args(["--stub-wasi", MODULE, "--output"]).arg(made);
    tools::run(command.current_dir(&project.dir))?;
    read(made)
}
