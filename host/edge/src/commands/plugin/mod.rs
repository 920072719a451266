//! `plugin`: from source to component, and from component to live traffic.
//!
//! One file a subcommand: its arguments (`Args`) and its `run`. To add one, give it a
//! file, a variant below and a line in [`run`].

mod activate;
mod build;
mod check;
mod componentize;
mod list;
mod new;
mod push;
mod rollback;
mod run;
mod scope;
mod show;
mod test;
mod view;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Subcommand;

use crate::author::Project;

/// Commands on plugins.
#[derive(Debug, Subcommand)]
pub(super) enum PluginCommand {
    New(new::Args),
    Build(build::Args),
    Check(check::Args),
    Test(test::Args),
    Run(run::Args),
    Componentize(componentize::Args),
    Push(push::Args),
    List(list::Args),
    Show(show::Args),
    Activate(activate::Args),
    Rollback(rollback::Args),
}

pub(super) fn run(command: PluginCommand) -> Result<()> {
    match command {
        PluginCommand::New(args) => new::run(&args),
        PluginCommand::Build(args) => build::run(&args),
        PluginCommand::Check(args) => check::run(&args),
        PluginCommand::Test(args) => test::run(&args),
        PluginCommand::Run(args) => run::run(&args),
        PluginCommand::Componentize(args) => componentize::run(&args),
        PluginCommand::Push(args) => push::run(args),
        PluginCommand::List(args) => list::run(args),
        PluginCommand::Show(args) => show::run(args),
        PluginCommand::Activate(args) => activate::run(args),
        PluginCommand::Rollback(args) => rollback::run(args),
    }
}

/// Which project.
#[derive(Debug, clap::Args)]
struct ProjectArgs {
    /// The plugin's folder; without it, the present one.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl ProjectArgs {
    fn dir(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(|| Path::new(".").to_owned())
    }

    fn open(&self) -> Result<Project> {
        Project::open(&self.dir())
    }
}

/// For whom the output is.
#[derive(Debug, clap::Args)]
struct Format {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The component of a project.
fn built(project: &Project) -> Result<PathBuf> {
    let file = project.component();
    if !file.is_file() {
        bail!("{} is missing; build it with `leanvibe-edge plugin build`", file.display());
    }
    Ok(file)
}
