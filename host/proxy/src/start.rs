//! Starting and ending the data plane.
//!
//! Called by the edge once. Invariant: `start` returns with every address bound and every
//! thread running, or with nothing left behind.

use std::{io, net::SocketAddr, sync::Arc, thread, time::Duration};

use model::{
    clock::Clock, gate::Gate, level::LevelSink, limiter::Limiter, reservation::StorageGate,
    sessions::Sessions, snapshot::Snapshot, tenant::TenantId,
};
use tokio::sync::watch;

use crate::{
    config::ProxyConfig,
    local::{Local, LocalService},
    record::{Series, TenantSeries},
    server::{self, Command, Listeners, Thread, listen},
    tenant::{
        issuer::{IssuerError, Issuers},
        jwks,
    },
    tls::{self, LoadError, Reload, Stamps, Tls},
    worker::Shared,
};

/// Why the data plane cannot start. Each is one line for an operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {}", reason(.source))]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// No address was given.
    #[error("no address to listen on")]
    NoAddress,
    /// A limit cannot work.
    #[error("limits: {0}")]
    Limit(String),
    /// Another setting cannot work.
    #[error("{0}")]
    Setting(String),
    /// A JWT key cannot be used.
    #[error(transparent)]
    Issuer(#[from] IssuerError),
    /// There is no TLS.
    #[error("tls: {0}")]
    Tls(#[from] LoadError),
    /// A series is registered already.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The system has no thread for us.
    #[error("cannot start a worker: {0}")]
    Thread(#[source] io::Error),
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "the address is in use".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

/// What the data plane works with.
pub struct Ports {
    /// What it serves from. Until the first real snapshot (one with a base domain),
    /// requests are answered 503.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// The quotas.
    pub gate: Arc<dyn Gate>,
    /// The rates.
    pub limiter: Arc<dyn Limiter>,
    /// The user sessions.
    pub sessions: Arc<dyn Sessions>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where levels go that responses report.
    pub levels: Arc<dyn LevelSink>,
    /// Who sets room aside for what is stored or made.
    pub storage: Arc<dyn StorageGate>,
    /// Served on `api.<base domain>`, beside the tenants' own APIs.
    pub api: Option<Arc<dyn LocalService>>,
}

impl std::fmt::Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ports").field("clock", &self.clock).finish_non_exhaustive()
    }
}

/// The data plane.
#[derive(Debug)]
pub struct Proxy;

impl Proxy {
    /// Binds the addresses and starts the workers. Blocks only for reading key files.
    ///
    /// # Errors
    /// An address is taken, a limit or a key is unusable; nothing is left running.
    pub fn start(
        config: ProxyConfig,
        ports: Ports,
        registry: &prometheus::Registry,
    ) -> Result<Running, StartError> {
        let Ports { snapshots, gate, limiter, sessions, clock, levels, storage, api } = ports;
        if let Some(flaw) = config.limits.flaw() {
            return Err(StartError::Limit(flaw));
        }
        if let Some(flaw) = config.metrics.flaw() {
            return Err(StartError::Setting(flaw));
        }
        if let Some(flaw) = config.tls.flaw() {
            return Err(StartError::Setting(format!("tls.{flaw}")));
        }
        if config.listen.is_empty() && config.tls.listen.is_empty() {
            return Err(StartError::NoAddress);
        }
        let issuers = Issuers::load(&config.jwt, &clock)?;
        let remotes = issuers.remotes();
        let workers = config.workers.unwrap_or_else(available).max(1);
        let (addrs, mut sockets) = bind(&config.listen, workers)?;
        let (tls_addrs, mut tls_sockets) = bind(&config.tls.listen, workers)?;
        let stamps = Stamps::of(&config.tls);
        let tls = match config.tls.listen.is_empty() {
            true => None,
            false => Some(Tls::load(config.tls.clone(), tls::Meters::register(registry)?)?),
        };
        let series = Series::register(registry, &config.metrics, &clock)?;
        let fetches = jwks::Meters::register(registry)?;
        let shared = Arc::new(Shared {
            config,
            gate,
            limiter,
            clock,
            series,
            issuers,
            levels,
            storage,
            sessions,
            local: api.map(Local::new),
            tls: tls.clone(),
        });
        let (commands, heard) = watch::channel(Command::Serve);
        let tenants = Arc::clone(&shared.series.tenants);
        let reload = Reload::default();
        let mut running =
            Running { addrs, tls_addrs, reload, commands, threads: Vec::new(), tenants };
        if let Some(tls) = tls {
            let thread = tls::spawn(tls, stamps, running.reload.clone(), heard.clone());
            running.threads.push(thread.map_err(StartError::Thread)?);
        }
        if !remotes.is_empty() {
            let thread = jwks::spawn(remotes, fetches, heard.clone());
            running.threads.push(thread.map_err(StartError::Thread)?);
        }
        for number in 0..workers {
            let listeners = Listeners {
                clear: sockets.iter_mut().filter_map(Vec::pop).collect(),
                tls: tls_sockets.iter_mut().filter_map(Vec::pop).collect(),
            };
            let thread = server::spawn(
                number,
                Arc::clone(&shared),
                snapshots.clone(),
                listeners,
                heard.clone(),
            );
            // Dropping `running` stops those that run already.
            running.threads.push(thread.map_err(StartError::Thread)?);
        }
        Ok(running)
    }
}

fn available() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

type Sockets = Vec<Vec<std::net::TcpListener>>;

fn bind(listen: &[SocketAddr], workers: usize) -> Result<(Vec<SocketAddr>, Sockets), StartError> {
    let bound = listen.iter().map(|&address| {
        listen::bind(address, workers).map_err(|source| StartError::Bind { address, source })
    });
    Ok(bound.collect::<Result<Vec<_>, _>>()?.into_iter().unzip())
}

/// A started data plane. Dropping it cuts off what is open.
pub struct Running {
    addrs: Vec<SocketAddr>,
    tls_addrs: Vec<SocketAddr>,
    reload: Reload,
    commands: watch::Sender<Command>,
    threads: Vec<Thread>,
    tenants: Arc<TenantSeries>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("addrs", &self.addrs).finish_non_exhaustive()
    }
}

impl Running {
    /// The tenants that metrics show by name now: the busiest and the pinned; the gauges
    /// of levels by tenant are to be of these alone. The answer locks; for scrapes.
    pub fn shown_tenants(&self) -> impl Fn() -> Vec<TenantId> + Send + Sync + use<> {
        let tenants = Arc::clone(&self.tenants);
        move || tenants.elected()
    }

    /// The bound addresses, in the order of the configuration.
    #[must_use]
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// The bound addresses that speak TLS, in the order of the configuration.
    #[must_use]
    pub fn tls_addrs(&self) -> &[SocketAddr] {
        &self.tls_addrs
    }

    /// Looks for renewed certificates now, in the background; ones that cannot be used
    /// leave those in force.
    pub fn reload_certificates(&self) {
        self.reload.ask();
    }

    /// Stops accepting, lets open exchanges finish for up to `timeout` (idle connections
    /// are closed, HTTP/2 clients get GOAWAY), then ends the threads.
    pub async fn drain(mut self, timeout: Duration) {
        self.commands.send_replace(Command::Drain(timeout));
        for thread in std::mem::take(&mut self.threads) {
            // The sender is dropped by the thread's last act.
            let _ = thread.ended.await;
            let _ = thread.handle.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.commands.send_if_modified(|command| {
            let serving = *command == Command::Serve;
            if serving {
                *command = Command::Stop;
            }
            serving
        });
    }
}
