//! The edges: real processes on one database, each with its own data folder and its own
//! proxy to every Redis.

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use services::{FaultProxy, Process};

use crate::{admin, stores::Stores, visitors};

/// Longest start of an edge on a busy machine.
const START_MAX: Duration = Duration::from_secs(90);
/// After a disturbance an answer may be missing for so long: connections that the kernel
/// took for a process that is gone are still to break.
const AFTERMATH: Duration = Duration::from_secs(3);

/// One edge.
#[derive(Debug)]
struct Edge {
    process: Process,
    addr: SocketAddr,
    control: SocketAddr,
    /// To each Redis, in their order.
    proxies: Vec<FaultProxy>,
    /// Since when and until when it is killed or frozen; no end while that lasts.
    disturbance: Mutex<Option<(Instant, Option<Instant>)>>,
}

/// All of them.
#[derive(Debug)]
pub struct Edges(Vec<Edge>);

/// What every edge is given.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    /// Scratch folder.
    pub dir: &'a Path,
    /// The binary.
    pub binary: &'a Path,
    /// Where the backend listens.
    pub backend: SocketAddr,
    /// `store.url`.
    pub store: &'a str,
    /// The Redis servers; none is the dispatcher in the process.
    pub redis: Option<&'a Stores>,
    /// `plans.toml`.
    pub plans: &'a str,
}

impl Edges {
    /// Starts `count` of them and waits until each is ready.
    ///
    /// # Errors
    /// A folder cannot be made, or an edge does not become ready.
    pub fn start(count: usize, setup: Setup<'_>) -> Result<Self> {
        let policies = setup.dir.join("policies");
        declare(&policies, setup)?;
        let mut edges = Vec::with_capacity(count);
        for number in 0..count {
            let edge = Edge::start(number, setup, &policies)?;
            edge.until_ready()?;
            edges.push(edge);
        }
        Ok(Self(edges))
    }

    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.0.len()
    }

    /// Where an edge serves.
    #[must_use]
    pub fn addr(&self, edge: usize) -> SocketAddr {
        self.0.get(edge).map_or_else(|| SocketAddr::from(([127, 0, 0, 1], 1)), |edge| edge.addr)
    }

    /// The control APIs, all of them.
    pub fn controls(&self) -> impl Iterator<Item = SocketAddr> {
        self.0.iter().map(|edge| edge.control)
    }

    /// The proxies of one edge, or of all.
    pub fn proxies(&self, edge: Option<usize>) -> impl Iterator<Item = &FaultProxy> {
        let of = move |(number, _): &(usize, &Edge)| edge.is_none_or(|edge| edge == *number);
        self.0.iter().enumerate().filter(of).flat_map(|(_, edge)| &edge.proxies)
    }

    /// The proxy of one edge to one Redis.
    #[must_use]
    pub fn proxy(&self, edge: usize, server: usize) -> Option<&FaultProxy> {
        self.0.get(edge)?.proxies.get(server)
    }

    /// SIGKILL.
    pub fn kill(&self, edge: usize) {
        if let Some(edge) = self.0.get(edge) {
            edge.disturb();
            edge.process.kill();
        }
    }

    /// Starts a killed one again on the same ports; with an empty data folder when `lost`.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn restart(&self, edge: usize, lost: bool) -> Result<()> {
        let Some(edge) = self.0.get(edge) else { return Ok(()) };
        if lost {
            std::fs::remove_dir_all(edge.process.folder().join("data"))?;
        }
        edge.process.restart();
        edge.until_ready()
    }

    /// SIGSTOP for a while.
    pub fn freeze(&self, edge: usize, time: Duration) {
        let Some(edge) = self.0.get(edge) else { return };
        edge.disturb();
        edge.process.signal("STOP");
        sleep(time);
        edge.process.signal("CONT");
        edge.undisturbed();
    }

    /// Whether an edge was killed or frozen at any time of the last `span`, or shortly before.
    #[must_use]
    pub fn disturbed(&self, edge: usize, span: Duration) -> bool {
        let Some(edge) = self.0.get(edge) else { return false };
        let disturbance = edge.disturbance.lock().unwrap_or_else(PoisonError::into_inner);
        disturbance.is_some_and(|(_, end)| end.is_none_or(|end| end.elapsed() < span + AFTERMATH))
    }

    /// The edges that ended by themselves, with the ends of their logs.
    pub fn dead(&self) -> Vec<String> {
        let dead = |(number, edge): (usize, &Edge)| {
            let disturbance = edge.disturbance.lock().unwrap_or_else(PoisonError::into_inner);
            let killed = disturbance.is_some_and(|(_, end)| end.is_none());
            (!killed && !edge.process.runs())
                .then(|| format!("edge {number} ended by itself: {}", last(&edge.process.log())))
        };
        self.0.iter().enumerate().filter_map(dead).collect()
    }

    /// Copies the logs and the metrics to a folder that stays.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn keep_logs(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder)?;
        for (number, edge) in self.0.iter().enumerate() {
            std::fs::write(folder.join(format!("edge-{number}.log")), edge.process.log())?;
            let metrics = admin::metrics(edge.control).unwrap_or_else(|error| error.to_string());
            std::fs::write(folder.join(format!("edge-{number}.metrics")), metrics)?;
        }
        Ok(())
    }
}

impl Edge {
    fn start(number: usize, setup: Setup<'_>, policies: &Path) -> Result<Self> {
        let folder = setup.dir.join(format!("edge-{number}"));
        std::fs::create_dir_all(&folder)?;
        let proxies: Vec<FaultProxy> = setup
            .redis
            .map_or_else(Vec::new, Stores::ports)
            .into_iter()
            .map(|port| FaultProxy::start(SocketAddr::from(([127, 0, 0, 1], port))))
            .collect();
        let (addr, control) = (free_addr()?, free_addr()?);
        let env: Vec<(String, String)> = [
            ("EDGE__LISTEN", addr.to_string()),
            ("EDGE__WORKERS", "1".into()),
            ("CONTROL__LISTEN", control.to_string()),
            ("POLICIES__DIR", policies.display().to_string()),
            ("POLICIES__WATCH", "false".into()),
            ("DATA__DIR", folder.join("data").display().to_string()),
            ("DATA__KEYS_DIR", setup.dir.join("keys").display().to_string()),
            ("STORE__URL", setup.store.to_owned()),
            (
                "QUOTA__URL",
                setup.redis.map_or_else(|| "memory:".into(), |redis| redis.url(&proxies)),
            ),
            ("SANDBOX__SLOTS", "4".into()),
            ("LOG__LEVEL", "info,access=off".into()),
        ]
        .into_iter()
        .chain(setup.redis.and_then(Stores::ca).map(|ca| ("QUOTA__TLS_CA", ca)))
        .map(|(key, value): (_, String)| (format!("LEANVIBE_EDGE__{key}"), value))
        .chain([("LEANVIBE_EDGE_ADMIN_TOKEN".to_owned(), admin::TOKEN.to_owned())])
        .collect();
        let binary = setup.binary.display().to_string();
        let process = Process::start(&folder, &env, &[&binary, "serve"]);
        let disturbance = Mutex::new(Some((Instant::now(), None)));
        Ok(Self { process, addr, control, proxies, disturbance })
    }

    fn until_ready(&self) -> Result<()> {
        let began = Instant::now();
        while !admin::is_ready(self.control) {
            if !self.process.runs() || began.elapsed() > START_MAX {
                bail!("an edge does not start: {}", last(&self.process.log()));
            }
            sleep(Duration::from_millis(20));
        }
        self.undisturbed();
        Ok(())
    }

    fn disturb(&self) {
        *self.disturbance.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((Instant::now(), None));
    }

    fn undisturbed(&self) {
        let mut disturbance = self.disturbance.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, end)) = disturbance.as_mut() {
            *end = Some(Instant::now());
        }
    }
}

/// The last lines of a log.
fn last(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(5)).copied().collect::<Vec<_>>().join(" | ")
}

/// A port that was free a moment ago.
fn free_addr() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// The declarations of the run: one region, its plans, no policies.
fn declare(policies: &Path, setup: Setup<'_>) -> Result<()> {
    let backend = setup.backend;
    std::fs::create_dir_all(policies)?;
    let regions = format!(
        "[[region]]\nname = \"here-1\"\nupstreams = [\"{backend}\"]\n\
         [[group]]\nname = \"here\"\nregions = [\"here-1\"]\n"
    );
    let routes = format!(
        "{}[[route]]\nname = \"ai\"\npath = \"/v1/ai/**\"\ntags = [\"ai\"]\n\
         [[route]]\nname = \"default\"\npath = \"/**\"\n",
        visitors::ROUTES
    );
    std::fs::write(policies.join("regions.toml"), regions)?;
    std::fs::write(policies.join("routes.toml"), routes)?;
    Ok(std::fs::write(policies.join("plans.toml"), setup.plans)?)
}

/// The binary of `LEANVIBE_EDGE_BIN`, else the one beside this program.
///
/// # Errors
/// There is none.
pub fn binary() -> Result<PathBuf> {
    let beside = std::env::current_exe()?.with_file_name("leanvibe-edge");
    let binary = std::env::var_os("LEANVIBE_EDGE_BIN").map_or(beside, PathBuf::from);
    if !binary.is_file() {
        bail!("{} is missing; use `make chaos`", binary.display());
    }
    Ok(binary)
}
