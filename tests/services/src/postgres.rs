//! PostgreSQL for tests: one cluster per test process, one database per test.
//!
//! The cluster trusts loopback and promises no durability. Its only ordinary role,
//! `edge`, is what an operator would give the edge: no superuser, owner of its database,
//! allowed to make roles. Invariant: no test sees another one's database.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    guard::{Guard, Signals},
    port::free_port,
    server_user::ServerUser,
};

/// What to do when there is no server: the one line of the failure.
const MISSING: &str =
    "PostgreSQL 15 or later is needed by the tests: apt-get install postgresql (or set PATH)";
/// Where Debian keeps servers, one folder per version, outside of PATH.
const DEBIAN: &str = "/usr/lib/postgresql";
/// How long a start may take, in seconds: recovery on a busy machine included.
const START_SECONDS_MAX: u64 = 60;
/// Starts before giving up: another process may take the free port first.
const START_ATTEMPTS: u32 = 5;
/// A fast shutdown, and one without a checkpoint.
const SIGNALS: Signals = Signals { in_order: "INT", at_once: "QUIT" };
/// Speed instead of durability, and connections for many tests at a time. A commit outlives
/// [`Postgres::kill`] only where the session itself sets `synchronous_commit`, as the edge
/// does for what must last.
const SETTINGS: [&str; 9] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "max_connections=400",
    "shared_buffers=64MB",
];

/// A private cluster.
#[derive(Debug)]
pub struct Postgres {
    tools: PathBuf,
    user: ServerUser,
    folder: PathBuf,
    port: u16,
    running: Mutex<Option<Guard>>,
    databases: AtomicU32,
}

/// The cluster of this test process, started at the first call. Blocks while it starts.
///
/// # Panics
/// There is no PostgreSQL, or it does not start.
pub fn postgres() -> &'static Postgres {
    static SHARED: OnceLock<Postgres> = OnceLock::new();
    SHARED.get_or_init(Postgres::start)
}

impl Postgres {
    /// A cluster of the caller's own, for tests that stop it. Blocks while it starts.
    ///
    /// # Panics
    /// There is no PostgreSQL, or it does not start.
    #[must_use]
    pub fn start() -> Self {
        let tools = tools().expect(MISSING);
        let user = ServerUser::choose();
        let folder = tempfile::Builder::new().prefix("leanvibe-pg-").tempdir().expect("a folder");
        // The guard removes it, even when this process cannot.
        let folder = folder.keep();
        user.owns(&folder);
        let data = folder.join("data");
        let data = data.to_str().expect("a folder named in UTF-8");
        let mut initdb = Command::new(tools.join("initdb"));
        initdb.args(["-D", data, "-U", "postgres", "-E", "UTF8", "--no-locale", "-A", "trust"]);
        run(user.runs(initdb.arg("--no-sync").current_dir("/")));
        let mut cluster = Self {
            tools,
            user,
            folder,
            port: 0,
            running: Mutex::new(None),
            databases: AtomicU32::new(0),
        };
        let started = (0..START_ATTEMPTS).any(|_| {
            cluster.port = free_port();
            cluster.try_run()
        });
        assert!(started, "PostgreSQL does not start: {}", cluster.log());
        cluster.sql("postgres", "CREATE ROLE edge LOGIN CREATEROLE");
        cluster
    }

    /// Makes an empty database that `edge` owns; its URL. Blocks for some milliseconds.
    ///
    /// # Panics
    /// The cluster does not run.
    #[must_use]
    pub fn database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name} OWNER edge"));
        format!("postgres://edge@127.0.0.1:{}/{name}", self.port)
    }

    /// Runs statements as the superuser in the database of a URL of [`Self::database`];
    /// what they return, one row a line, columns split by `|`.
    ///
    /// # Panics
    /// A statement failed.
    pub fn superuser(&self, url: &str, statements: &str) -> String {
        let database = url.rsplit('/').next().unwrap_or(url);
        self.sql(database, statements)
    }

    /// SIGKILL to the whole server: a crash, which it recovers from at [`Self::resume`].
    ///
    /// # Panics
    /// It does not run.
    pub fn kill(&self) {
        let guard = self.lock().take().expect("a running PostgreSQL");
        guard.signal("KILL");
        guard.stop();
    }

    /// Stops the cluster; its data stays.
    pub fn stop(&self) {
        if let Some(guard) = self.lock().take() {
            guard.stop();
        }
    }

    /// Starts a stopped cluster on the same port.
    ///
    /// # Panics
    /// It does not start.
    pub fn resume(&self) {
        // After a kill the last of the old processes may hold the memory for a moment.
        let started = (0..START_ATTEMPTS).any(|attempt| {
            sleep(Duration::from_millis(100 * u64::from(attempt)));
            self.try_run()
        });
        assert!(started, "PostgreSQL does not start again: {}", self.log());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Guard>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the server until it answers; false when it died, or took too long.
    fn try_run(&self) -> bool {
        let (server, data) = (self.tools.join("postgres"), self.folder.join("data"));
        let port = format!("port={}", self.port);
        let mut command =
            vec![server.to_str().expect("UTF-8"), "-D", data.to_str().expect("UTF-8")];
        for setting in SETTINGS.iter().copied().chain([port.as_str()]) {
            command.extend(["-c", setting]);
        }
        let guard = Guard::start(self.user, &self.folder, SIGNALS, &command);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(START_SECONDS_MAX) {
            if self.psql("postgres", "SELECT 1").status.success() {
                *self.lock() = Some(guard);
                return true;
            }
            if guard.ended() {
                break;
            }
            sleep(Duration::from_millis(20));
        }
        guard.stop();
        false
    }

    fn sql(&self, database: &str, statements: &str) -> String {
        let output = self.psql(database, statements);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{statements}: {complaint}");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    fn psql(&self, database: &str, statements: &str) -> Output {
        let port = self.port.to_string();
        Command::new(self.tools.join("psql"))
            .args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-d", database])
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statements])
            .output()
            .expect("psql")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

/// The folder of the server's programs: that of the `postgres` in PATH, else Debian's
/// newest.
fn tools() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).filter_map(|folder| {
        let server = std::fs::canonicalize(folder.join("postgres")).ok()?;
        server.parent().map(Path::to_owned)
    });
    let mut versions: Vec<PathBuf> = std::fs::read_dir(DEBIAN)
        .into_iter()
        .flatten()
        .filter_map(|version| Some(version.ok()?.path().join("bin")))
        .collect();
    versions.sort_by_key(|folder| version_of(folder));
    let complete = |folder: &PathBuf| {
        ["postgres", "initdb", "psql"].iter().all(|tool| folder.join(tool).is_file())
    };
    in_path.chain(versions.into_iter().rev()).find(complete)
}

/// The version in `…/15/bin`; 0 where there is none.
fn version_of(folder: &Path) -> u32 {
    let version = folder.parent().and_then(Path::file_name).and_then(|name| name.to_str());
    version.and_then(|version| version.parse().ok()).unwrap_or(0)
}

fn run(command: &mut Command) {
    let output = command.output().expect("a program that starts");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {complaint}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_database_is_empty_and_its_owner_is_no_superuser() {
        let cluster = postgres();
        let (one, two) = (cluster.database(), cluster.database());
        cluster.superuser(&one, "CREATE TABLE mark (x int)");
        assert_eq!(
            cluster.superuser(&two, "SELECT count(*) FROM pg_tables WHERE tablename = 'mark'"),
            "0"
        );
        assert_eq!(
            cluster.superuser(&one, "SELECT rolsuper FROM pg_roles WHERE rolname = 'edge'"),
            "f"
        );
    }

    #[test]
    fn a_stopped_cluster_comes_back_with_its_data_and_leaves_nothing_in_the_end() {
        let cluster = Postgres::start();
        let url = cluster.database();
        cluster.superuser(&url, "CREATE TABLE mark AS SELECT 7 AS x");
        cluster.stop();
        assert!(!cluster.psql("postgres", "SELECT 1").status.success());
        cluster.resume();
        assert_eq!(cluster.superuser(&url, "SELECT x FROM mark"), "7");
        cluster.superuser(&url, "SET synchronous_commit = on; UPDATE mark SET x = 8");
        cluster.kill();
        cluster.resume();
        assert_eq!(cluster.superuser(&url, "SELECT x FROM mark"), "8", "a commit was lost");
        let folder = cluster.folder.clone();
        drop(cluster);
        assert!(!folder.exists());
    }
}
