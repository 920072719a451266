//! `serve`: everything, until a signal.

use std::sync::Arc;

use anyhow::Result;
use model::clock::SystemClock;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    config::{self, Config},
    run::{self, Running},
    telemetry,
};

/// Serves until SIGINT or SIGTERM.
pub(super) fn run(config: &Config) -> Result<()> {
    telemetry::install(&config.log)?;
    super::runtime()?.block_on(async {
        let clock = Arc::new(SystemClock::default());
        let running = run::start(config.clone(), clock, config::admin_token_from_env()).await?;
        announce(&running);
        until_stopped(running).await
    })
}

fn announce(running: &Running) {
    for addr in &running.edge {
        tracing::info!(%addr, "edge listens");
    }
    tracing::info!(addr = %running.control, "control API listens");
    if let Some(token) = &running.minted_admin_token {
        println!("admin token (shown once; store it): {}", token.expose());
    }
}

/// Reloads on SIGHUP; on SIGINT or SIGTERM drains and returns. A second one ends the
/// process at once.
pub(super) async fn until_stopped(running: Running) -> Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        tokio::select! {
            _ = hangup.recv() => running.reload(),
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        }
    }
    tracing::info!("draining; a second signal stops at once");
    tokio::select! {
        stopped = running.stop() => stopped,
        _ = interrupt.recv() => anyhow::bail!("stopped before the drain was over"),
        _ = terminate.recv() => anyhow::bail!("stopped before the drain was over"),
    }
}
