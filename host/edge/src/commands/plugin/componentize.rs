//! `plugin componentize`: a core module with a component type becomes a component.

use std::path::PathBuf;

use anyhow::{Context, Result};

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
    if std::fs::read(output).is_ok_and(|before| before == component) {
        return Ok(());
    }
    // Rename, so that an edge that watches the file never reads half of it.
    let unfinished = output.with_extension("wasm.tmp");
    std::fs::write(&unfinished, component).with_context(|| unfinished.display().to_string())?;
    std::fs::rename(&unfinished, output).with_context(|| output.display().to_string())
}
