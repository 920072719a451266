//! `plugin componentize`: a core module with a component type becomes a component.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::author::output;

/// Turns a core module that carries a component type (as wit-bindgen makes it) into a
/// component.
#[derive(Debug, clap::Args)]
pub(in crate::commands) struct Args {
    /// The core module.
    module: PathBuf,
    /// Where the component goes; rewritten only when its bytes change.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let Args { module, output } = args;
    let bytes = std::fs::read(module).with_context(|| module.display().to_string())?;
    let component = sandbox::lift::componentize(&bytes)
        .with_context(|| format!("{} cannot be made a component", module.display()))?;
    output::replace(output, &component).map(drop)
}
