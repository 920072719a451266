//! `demo`: `serve` with origins, tenants and a guide.

use anyhow::Result;

use crate::{config::Config, demo, telemetry};

use super::serve::{Signals, serve};

/// Serves the demo until SIGINT or SIGTERM.
pub(super) fn run(config: &Config) -> Result<()> {
    telemetry::install(&config.log)?;
    super::runtime()?.block_on(async {
        let signals = Signals::install()?;
        serve(demo::start(config), signals).await
    })
}
