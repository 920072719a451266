//! `plugin`: what an author needs on the way from source to component.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Subcommand;

/// Commands on plugins.
#[derive(Debug, Subcommand)]
pub(super) enum PluginCommand {
    /// Turn a core module that carries a component type (as wit-bindgen makes it) into a
    /// component.
    Componentize {
        /// The core module.
        module: PathBuf,
        /// Where the component goes; rewritten only when its bytes change.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
}

pub(super) fn run(command: PluginCommand) -> Result<()> {
    match command {
        PluginCommand::Componentize { module, output } => componentize(&module, &output),
    }
}

fn componentize(module: &PathBuf, output: &PathBuf) -> Result<()> {
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
