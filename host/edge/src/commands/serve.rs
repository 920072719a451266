//! `serve`: everything, until a signal.

use std::{future::Future, sync::Arc};

use anyhow::{Result, bail};
use model::clock::SystemClock;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::supervisor;
use crate::{
    config::{self, Config},
    run::{self, Running},
    telemetry,
};

/// Serves until SIGINT or SIGTERM.
pub(super) fn run(config: &Config) -> Result<()> {
    telemetry::install(&config.log)?;
    super::runtime()?.block_on(async {
        let signals = Signals::install()?;
        let clock = Arc::new(SystemClock::default());
        let token = config::admin_token_from_env()?;
        let start = async {
            let running = run::start(config.clone(), clock, token).await?;
            announce(&running);
            Ok(running)
        };
        serve(start, signals).await
    })
}

fn announce(running: &Running) {
    for addr in &running.edge {
        tracing::info!(%addr, "edge listens");
    }
    for addr in &running.edge_tls {
        tracing::info!(%addr, "edge listens under TLS");
    }
    tracing::info!(addr = %running.control, "control API listens");
    if let Some(token) = &running.minted_admin_token {
        println!("admin token (shown once; store it): {}", token.expose());
    }
}

/// The signals that the program answers; installed before anything starts, so that none
/// of them kills a half-started one.
pub(super) struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Must run on the runtime.
    pub(super) fn install() -> Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for SIGINT or SIGTERM.
    pub(super) async fn stop(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Starts; reloads on SIGHUP; on SIGINT or SIGTERM drains and returns. A second one ends
/// the process at once.
pub(super) async fn serve(
    start: impl Future<Output = Result<Running>>,
    mut signals: Signals,
) -> Result<()> {
    let mut running = tokio::select! {
        started = start => started?,
        () = signals.stop() => return Ok(()),
    };
    supervisor::ready();
    loop {
        tokio::select! {
            _ = signals.hangup.recv() => {
                supervisor::reloading(running.reload_status.clone());
                running.reload();
            }
            part = running.part_ended() => bail!("the {part} ended; see the log"),
            _ = signals.interrupt.recv() => break,
            _ = signals.terminate.recv() => break,
        }
    }
    supervisor::stopping();
    tracing::info!("draining; a second signal stops at once");
    tokio::select! {
        stopped = running.stop() => stopped,
        () = signals.stop() => bail!("stopped before the drain was over"),
    }
}
