//! `plugin`: from source to component, and from component to live traffic.
//!
//! One file a subcommand: its arguments (`Args`) and its `run`. To add one, give it a
//! file, a variant below and a line in [`run`].

mod activate;
mod componentize;
mod list;
mod push;
mod rollback;
mod scope;
mod show;
mod view;

use anyhow::Result;
use clap::Subcommand;

/// Commands on plugins.
#[derive(Debug, Subcommand)]
pub(super) enum PluginCommand {
    Componentize(componentize::Args),
    Push(push::Args),
    List(list::Args),
    Show(show::Args),
    Activate(activate::Args),
    Rollback(rollback::Args),
}

pub(super) fn run(command: PluginCommand) -> Result<()> {
    match command {
        PluginCommand::Componentize(args) => componentize::run(&args),
        PluginCommand::Push(args) => push::run(args),
        PluginCommand::List(args) => list::run(args),
        PluginCommand::Show(args) => show::run(args),
        PluginCommand::Activate(args) => activate::run(args),
        PluginCommand::Rollback(args) => rollback::run(args),
    }
}
