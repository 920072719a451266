//! The commands, one file each.

mod check;
mod demo;
mod plugin;
mod serve;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tokio::runtime::Runtime;

use crate::config::Config;

/// Threads for the control plane, compiling and lease refills; the data plane has its
/// own. Two, so that a slow query does not hold up a refill.
const CONTROL_THREADS: usize = 2;

/// A WebAssembly plugin host on an edge proxy, for multi-tenant SaaS.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve: the edge and the control plane.
    Serve(ConfigArgs),
    /// Serve with demo origins for every region and demo tenants, and print what to try.
    Demo(ConfigArgs),
    /// Validate the config and the policies, and run the policies' golden cases.
    Check(ConfigArgs),
    /// Work on plugins.
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
}

/// Where the settings come from.
#[derive(Debug, clap::Args)]
pub struct ConfigArgs {
    /// TOML file; see `deploy/edge.example.toml`. Without it every key has its default.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigArgs {
    fn load(&self) -> Result<Config> {
        Ok(Config::load(self.config.as_deref(), crate::config::env())?)
    }
}

/// Runs a command to its end.
///
/// # Errors
/// What went wrong, for a person.
pub fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Serve(args) => serve::run(&args.load()?),
        Command::Demo(args) => demo::run(&args.load()?),
        Command::Check(args) => check::run(&args.load()?),
        Command::Plugin(command) => plugin::run(command),
    }
}

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()?)
}
