//! `compile-plugin`: the compiler's child process; see `crate::plugins`.

use anyhow::Result;

use crate::plugins;

/// The child's own limits.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Bytes of address space.
    #[arg(long)]
    memory_bytes: u64,
    /// Seconds of computing.
    #[arg(long)]
    cpu_s: u64,
}

/// Ends the process: its exit code is its answer.
pub(super) fn run(args: &Args) -> Result<()> {
    std::process::exit(plugins::compile_in_this_process(args.memory_bytes, args.cpu_s))
}
