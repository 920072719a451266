//! The log: text for people or JSON lines, to standard error, so that standard output
//! stays with what a command prints.

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, LogSection};

/// Installs the subscriber; the second call of a process changes nothing.
///
/// # Errors
/// A level that is no filter.
pub fn install(log: &LogSection) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&log.level)
        .map_err(|error| anyhow::anyhow!("log.level: `{}`: {error}", log.level))?;
    let base = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _already_installed = match log.format {
        LogFormat::Text => base.try_init().is_err(),
        LogFormat::Json => base.json().flatten_event(true).try_init().is_err(),
    };
    Ok(())
}
