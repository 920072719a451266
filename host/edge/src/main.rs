//! `leanvibe-edge`: the command line.

use clap::Parser;

/// The allocator was chosen by CPU and resident memory together (data-plane decision 19).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    match edge::commands::run(edge::commands::Cli::parse()) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("leanvibe-edge: {error:#}");
            edge::commands::exit_code(&error)
        }
    }
}
