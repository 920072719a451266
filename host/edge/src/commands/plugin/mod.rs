//! `plugin`: from source to component, and from component to live traffic.
//!
//! One file a subcommand: its arguments (`Args`) and its `run`. To add one, give it a
//! file, a variant below and a line in [`run`].

mod componentize;

use anyhow::Result;
use clap::Subcommand;

/// Commands on plugins.
#[derive(Debug, Subcommand)]
pub(super) enum PluginCommand {
    Componentize(componentize::Args),
}

pub(super) fn run(command: PluginCommand) -> Result<()> {
    match command {
        PluginCommand::Componentize(args) => componentize::run(&args),
    }
}
