//! `demo`: `serve` with origins, tenants and a guide.

use anyhow::Result;

use crate::{config::Config, demo, telemetry};

/// Serves the demo until SIGINT or SIGTERM.
pub(super) fn run(config: &Config) -> Result<()> {
    telemetry::install(&config.log)?;
    super::runtime()?.block_on(async {
        let running = demo::start(config).await?;
        super::serve::until_stopped(running).await
    })
}
