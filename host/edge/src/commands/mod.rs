//! The commands, one file each; those that call the API of a running edge share
//! `session.rs`.
//!
//! Exit codes: 0 done, 1 refused or failed, 2 the command line is wrong, 3 the server
//! cannot be reached. Invariant: what was asked for is on standard output, everything else
//! on standard error.

mod audit;
mod check;
mod compile_plugin;
mod demo;
mod migrate;
mod output;
mod period;
mod plugin;
mod quota;
mod serve;
mod session;
mod table;
mod tenant;
mod token;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};
use tokio::runtime::Runtime;

use crate::{client::ClientError, config::Config};

/// Threads for the control plane, compiling and lease refills; the data plane has its
/// own. Two, so that a slow query does not hold up a refill.
const CONTROL_THREADS: usize = 2;
/// The command line is wrong; the same as clap's.
const EXIT_USAGE: u8 = 2;
/// The server cannot be reached.
const EXIT_UNREACHABLE: u8 = 3;

/// A WebAssembly plugin host on an edge proxy, for multi-tenant SaaS.
#[derive(Debug, Parser)]
#[command(version, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Exit codes: 0 done, 1 refused or failed, 2 the command line is wrong, 3 the server cannot
be reached. `tenant`, `token` and `audit` call the API of a running edge; the others work
on the config and its database.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve: the edge and the control plane.
    Serve(ConfigArgs),
    /// Serve with demo origins for every region and demo tenants, and print what to try.
    Demo(ConfigArgs),
    /// Validate the config and the policies, and run the policies' golden cases.
    Check(ConfigArgs),
    /// Bring the database to this release's schema, without serving.
    Migrate(migrate::MigrateArgs),
    /// Create, show and change tenants of a running edge.
    Tenant(tenant::TenantArgs),
    /// Issue, list, rotate and revoke tokens of the control API.
    Token(token::TokenArgs),
    /// Verify the audit log of a running edge.
    Audit(audit::AuditArgs),
    /// Add up the quota accounts of a running edge.
    Quota(quota::QuotaArgs),
    /// Work on plugins.
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
    /// Compile a component from standard input to standard output: what the server starts
    /// for uploads, under its limits.
    #[command(hide = true)]
    CompilePlugin(compile_plugin::Args),
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
        Command::Migrate(args) => migrate::run(args),
        Command::Tenant(args) => tenant::run(args),
        Command::Token(args) => token::run(args),
        Command::Audit(args) => audit::run(args),
        Command::Quota(args) => quota::run(args),
        Command::Plugin(command) => plugin::run(command),
        Command::CompilePlugin(args) => compile_plugin::run(&args),
    }
}

/// The exit code that an error of [`run`] stands for.
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    match error.downcast_ref() {
        Some(ClientError::Usage(_)) => ExitCode::from(EXIT_USAGE),
        Some(
            ClientError::Unreachable { .. } | ClientError::Broken { .. } | ClientError::Slow { .. },
        ) => ExitCode::from(EXIT_UNREACHABLE),
        _ => ExitCode::FAILURE,
    }
}

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()?)
}

/// For commands that wait for one answer at a time.
fn client_runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

#[cfg(test)]
mod tests;
