//! One `redis-server` and what can be done to it.
//!
//! Controls speak to the server's socket file as its default user. Invariant: a signal goes
//! only to the process that this very value started.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
    thread::sleep,
    time::{Duration, Instant},
};

use super::{RedisError, RedisOptions, Value, resp::Connection, stats::CommandStats, tls::Tls};
use crate::{
    guard::{Guard, Signals},
    port::free_port,
    server_user::ServerUser,
};

/// What to do when there is no server: the one line of the failure.
const MISSING: &str =
    "Redis 7 or later is needed by the tests: apt-get install redis-server (or set PATH)";
/// How long a start, a synchronisation or an end may take, in seconds.
const WAIT_SECONDS_MAX: u64 = 30;
/// Starts before giving up: another process may take the free port first.
const START_ATTEMPTS: u32 = 5;
/// A stop without a dump, and the end: a frozen process heeds nothing but SIGKILL.
const SIGNALS: Signals = Signals { in_order: "KILL", at_once: "KILL" };

/// What a restarted server finds on its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dump {
    /// What the last [`Redis::save`] wrote, however old, or the append-only file.
    Keep,
    /// Nothing.
    Delete,
}

/// A private server.
#[derive(Debug)]
pub struct Redis {
    options: RedisOptions,
    user: ServerUser,
    folder: PathBuf,
    port: u16,
    /// Of a node of a Cluster.
    bus_port: Option<u16>,
    /// Port of the master that it follows, across restarts.
    master: Mutex<Option<u16>>,
    running: Mutex<Option<Guard>>,
}

/// The plain server of this test process, started at the first call; for tests that keep to
/// keys of their own. Blocks while it starts.
///
/// # Panics
/// There is no Redis, or it does not start.
pub fn redis() -> &'static Redis {
    static SHARED: OnceLock<Redis> = OnceLock::new();
    SHARED.get_or_init(|| Redis::start(RedisOptions::default()))
}

impl Redis {
    /// A server of the caller's own. Blocks while it starts.
    ///
    /// # Panics
    /// There is no Redis, or it does not start.
    #[must_use]
    pub fn start(options: RedisOptions) -> Self {
        Self::begin(options, false)
    }

    /// A node of a Cluster that is still to be formed.
    pub(super) fn node(options: RedisOptions) -> Self {
        Self::begin(options, true)
    }

    fn begin(options: RedisOptions, node: bool) -> Self {
        let user = ServerUser::choose();
        let folder =
            tempfile::Builder::new().prefix("leanvibe-redis-").tempdir().expect("a folder");
        // The guard removes it, even when this process cannot.
        let folder = folder.keep();
        if options.tls {
            Tls::of_process().write(&folder);
        }
        user.owns(&folder);
        let (master, running) = (Mutex::new(options.replica_of), Mutex::new(None));
        let mut server = Self { options, user, folder, port: 0, bus_port: None, master, running };
        let started = (0..START_ATTEMPTS).any(|_| {
            (server.port, server.bus_port) = (free_port(), node.then(free_port));
            server.try_run()
        });
        if !started {
            let log = server.log();
            // Gone already: as wished.
            let _ = std::fs::remove_dir_all(&server.folder);
            panic!("Redis does not start: {log}");
        }
        server
    }

    /// A replica of this server with the same options; in step when this returns.
    ///
    /// # Panics
    /// It does not start, or does not get in step.
    #[must_use]
    pub fn replica(&self) -> Self {
        let options = RedisOptions { replica_of: Some(self.port), ..self.options.clone() };
        let replica = Self::start(options);
        replica.until("in step", |it| it.info("replication", "master_link_status") == "up");
        replica
    }

    /// Its TCP port, with TLS where the options say so.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// `redis://127.0.0.1:PORT`, or `rediss://`; with the password of the default user.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.options.tls { "rediss" } else { "redis" };
        let login = self.options.password.as_ref().map(|password| format!(":{password}@"));
        format!("{scheme}://{}127.0.0.1:{}", login.unwrap_or_default(), self.port)
    }

    /// Its socket file.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    /// PEM of the authority that signed the certificate of every server with TLS.
    #[must_use]
    pub fn ca_pem() -> &'static str {
        Tls::of_process().ca()
    }

    /// Process id of the running server.
    ///
    /// # Panics
    /// It does not run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.lock().as_ref().expect("a running Redis").pid()
    }

    /// One command as the default user, over the socket file.
    ///
    /// # Errors
    /// The server refused, or does not answer.
    pub fn cli(&self, command: &[&str]) -> Result<Value, RedisError> {
        let mut connection = Connection::open(&self.socket())?;
        if let Some(password) = &self.options.password {
            connection.call(&["AUTH", password])?;
        }
        connection.call(command)
    }

    /// A command that must succeed.
    fn command(&self, command: &[&str]) -> Value {
        self.cli(command).unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// SIGKILL, and waits for the end. Unsaved data is lost.
    ///
    /// # Panics
    /// It does not run.
    pub fn kill(&self) {
        self.lock().take().expect("a running Redis").stop();
    }

    /// SIGSTOP: it takes connections and bytes, and answers nothing.
    ///
    /// # Panics
    /// It does not run.
    pub fn sigstop(&self) {
        self.lock().as_ref().expect("a running Redis").signal("STOP");
    }

    /// SIGCONT.
    ///
    /// # Panics
    /// It does not run.
    pub fn sigcont(&self) {
        self.lock().as_ref().expect("a running Redis").signal("CONT");
    }

    /// Starts it again on the same port in the role that it had; kills it first when it runs.
    /// Whether it still should have that role is not its to know: so split brains begin.
    ///
    /// # Panics
    /// It does not start.
    pub fn restart(&self, dump: Dump) {
        if let Some(guard) = self.lock().take() {
            guard.stop();
        }
        if dump == Dump::Delete {
            let gone = std::fs::remove_file(self.folder.join("dump.rdb"));
            let gone = gone.or_else(|error| absent(&error).then_some(()).ok_or(error));
            gone.expect("a dump that can be deleted");
            let gone = std::fs::remove_dir_all(self.folder.join("appendonlydir"));
            let gone = gone.or_else(|error| absent(&error).then_some(()).ok_or(error));
            gone.expect("an append-only file that can be deleted");
        }
        assert!(self.try_run(), "Redis does not start again: {}", self.log());
    }

    /// FLUSHALL.
    ///
    /// # Panics
    /// It does not answer.
    pub fn flush(&self) {
        self.command(&["FLUSHALL"]);
    }

    /// SAVE: the dump that later restarts find.
    ///
    /// # Panics
    /// It does not answer.
    pub fn save(&self) {
        self.command(&["SAVE"]);
    }

    /// REPLICAOF NO ONE; a master when this returns.
    ///
    /// # Panics
    /// It does not answer.
    pub fn promote(&self) {
        self.command(&["REPLICAOF", "NO", "ONE"]);
        *self.master.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.until("a master", |it| it.info("replication", "role") == "master");
    }

    /// REPLICAOF another server; in step with it when this returns.
    ///
    /// # Panics
    /// It does not answer, or does not get in step.
    pub fn demote_to(&self, master: &Self) {
        self.command(&["REPLICAOF", "127.0.0.1", &master.port.to_string()]);
        *self.master.lock().unwrap_or_else(PoisonError::into_inner) = Some(master.port);
        self.until("in step", |it| it.info("replication", "master_link_status") == "up");
    }

    /// CLIENT PAUSE for all commands: later ones of anybody wait that long.
    ///
    /// # Panics
    /// It does not answer.
    pub fn client_pause(&self, ms: u64) {
        self.command(&["CLIENT", "PAUSE", &ms.to_string(), "ALL"]);
    }

    /// What was called how often since the start or CONFIG RESETSTAT.
    ///
    /// # Panics
    /// It does not answer.
    #[must_use]
    pub fn command_stats(&self) -> CommandStats {
        CommandStats::parse(&self.command(&["INFO", "commandstats"]).text())
    }

    /// One field of a section of INFO; empty when absent.
    ///
    /// # Panics
    /// It does not answer.
    #[must_use]
    pub fn info(&self, section: &str, field: &str) -> String {
        let text = self.command(&["INFO", section]).text();
        let mut lines = text.lines().filter_map(|line| line.split_once(':'));
        lines
            .find(|(name, _)| *name == field)
            .map(|(_, value)| value.to_owned())
            .unwrap_or_default()
    }

    /// Waits until something comes true.
    pub(super) fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            let waited = begun.elapsed();
            assert!(
                waited < Duration::from_secs(WAIT_SECONDS_MAX),
                "Redis is never {what}: {}",
                self.log()
            );
            sleep(Duration::from_millis(10));
        }
    }

    pub(super) const fn bus_port(&self) -> Option<u16> {
        self.bus_port
    }

    /// The folder of its files.
    #[cfg(test)]
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Guard>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the server until it answers; false when it died, or took too long.
    fn try_run(&self) -> bool {
        let program = program().expect(MISSING);
        let config = self.folder.join("redis.conf");
        let mut text = self.options.config(&self.folder, self.port, self.bus_port);
        if let Some(master) = *self.master.lock().unwrap_or_else(PoisonError::into_inner) {
            text.push_str(&format!("replicaof 127.0.0.1 {master}\n"));
        }
        std::fs::write(&config, text).expect("a config file");
        let env = self.options.env.iter().map(|(key, value)| format!("{key}={value}"));
        let command: Vec<String> = std::iter::once("env".to_owned())
            .chain(env)
            .chain([program.display().to_string(), config.display().to_string()])
            .collect();
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let guard = Guard::start(self.user, &self.folder, SIGNALS, &command);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(WAIT_SECONDS_MAX) {
            if self.cli(&["PING"]).is_ok() {
                *self.lock() = Some(guard);
                return true;
            }
            if guard.ended() {
                break;
            }
            sleep(Duration::from_millis(10));
        }
        guard.stop();
        false
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

fn absent(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::NotFound
}

/// The `redis-server` in PATH.
fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder: PathBuf| folder.join("redis-server"))
        .find(|file: &PathBuf| Path::is_file(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_told_at_once_and_another_one_serves() {
        let mut server = Redis::start(RedisOptions::default());
        server.kill();
        let (taken, own) = (redis().port(), server.port);
        server.port = taken;
        assert!(!server.try_run());
        server.port = own;
        server.restart(Dump::Keep);
        assert!(server.cli(&["PING"]).is_ok());
    }
}
