//! Servers and parsers of other families, as one question: which requests are in these bytes?
//!
//! Each runs as a process of its own with a Unix socket in its own folder, ends with the
//! test, and answers every request that it finds with a line `x-seen: METHOD TARGET`.
//! A reader that is not installed fails the run.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use services::Process;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use super::recorder::Recorded;
use crate::actors::eventually;

/// The last request of every stream: whoever finds it has found the end of the one before.
const LAST: &str = "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
/// Longest that a reader may think about one stream.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running reader.
#[derive(Debug)]
pub struct Reader {
    pub name: &'static str,
    process: Process,
}

/// All of them.
pub async fn start() -> Vec<Reader> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/readers");
    let python = python().display().to_string();
    let (py, js) = (here.join("read.py"), here.join("read.js"));
    let (py, js) = (py.display().to_string(), js.display().to_string());
    let conf = here.join("nginx.conf");
    let cfg = here.join("haproxy.cfg");
    let readers = vec![
        Reader::start("h11", |folder| {
            vec![python.clone(), py.clone(), "h11".into(), socket(folder)]
        }),
        Reader::start("gunicorn", |folder| {
            vec![python.clone(), py.clone(), "gunicorn".into(), socket(folder)]
        }),
        Reader::start("node", |folder| vec!["node".into(), js.clone(), socket(folder)]),
        Reader::start("nginx", |folder| {
            let conf = filled(&conf, folder);
            ["nginx", "-e", "stderr", "-c", &conf].map(str::to_owned).into()
        }),
        Reader::start("haproxy", |folder| {
            let cfg = filled(&cfg, folder);
            ["haproxy", "-db", "-f", &cfg].map(str::to_owned).into()
        }),
    ];
    for reader in &readers {
        let socket = reader.socket();
        eventually(reader.name, || async {
            assert!(reader.process.runs(), "{}: {}", reader.name, reader.process.log());
            UnixStream::connect(&socket).await.ok()
        })
        .await;
    }
    readers
}

/// Where `deploy/setup.sh test` puts it.
fn python() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").expect("a home")).join(".cache"));
    cache.join("leanvibe-edge/readers/bin/python3")
}

fn socket(folder: &Path) -> String {
    folder.join("socket").display().to_string()
}

/// A config with its folder filled in.
fn filled(template: &Path, folder: &Path) -> String {
    let text = std::fs::read_to_string(template).expect("a template");
    let file = folder.join("config");
    std::fs::write(&file, text.replace("FOLDER", &folder.display().to_string())).expect("a file");
    file.display().to_string()
}

impl Reader {
    fn start(name: &'static str, command: impl FnOnce(&Path) -> Vec<String>) -> Self {
        let folder = tempfile::tempdir().expect("a folder").keep();
        let command = command(&folder);
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        Self { name, process: Process::start(&folder, &[], &command) }
    }

    fn socket(&self) -> PathBuf {
        self.process.folder().join("socket")
    }

    /// What it finds in these, sent as one stream with [`LAST`] behind them.
    pub async fn read(&self, requests: &[Recorded]) -> Found {
        let mut wire: Vec<u8> = requests.iter().flat_map(|one| one.wire.iter().copied()).collect();
        wire.extend_from_slice(LAST.as_bytes());
        self.find(&wire).await
    }

    /// What it finds in bytes that hold no whole request.
    pub async fn read_unfinished(&self, wire: &[u8]) -> Found {
        self.find(wire).await
    }

    /// Whether it wants to see the end of a stream before it answers, or may see it. The
    /// others take it for a client that went away.
    pub fn reads_to_the_end(&self) -> bool {
        matches!(self.name, "h11" | "gunicorn" | "node")
    }

    async fn find(&self, wire: &[u8]) -> Found {
        let stream = UnixStream::connect(self.socket()).await.expect("a reader");
        let (mut from, mut to) = stream.into_split();
        let write = async {
            // A reader that refused has closed its side: its answer says so.
            let _closed = to.write_all(wire).await;
            if self.reads_to_the_end() {
                let _closed = to.shutdown().await;
            }
        };
        let mut answer = Vec::new();
        let read = async { from.read_to_end(&mut answer).await };
        let both = async { tokio::join!(write, read) };
        let ended = tokio::time::timeout(PATIENCE, both).await;
        let mut found = Found::default();
        for line in String::from_utf8_lossy(&answer).lines() {
            found.add(line);
        }
        found.refusals += usize::from(ended.is_err());
        found
    }
}

/// What a reader found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// `METHOD TARGET` of each request.
    pub requests: Vec<String>,
    /// How often it would not go on.
    pub refusals: usize,
}

impl Found {
    /// What everybody must find in a stream of [`Reader::read`].
    pub fn all(requests: &[Recorded]) -> Self {
        let lines = requests.iter().map(|one| one.line.clone());
        Self { requests: lines.chain(["GET /last".to_owned()]).collect(), refusals: 0 }
    }

    /// One line of an answer.
    fn add(&mut self, line: &str) {
        if let Some(seen) = line.strip_prefix("x-seen: ") {
            self.requests.push(seen.to_owned());
            return;
        }
        let status = line.strip_prefix("HTTP/1.1 ").or_else(|| line.strip_prefix("HTTP/1.0 "));
        let refused = status.is_some_and(|status| status.starts_with(['4', '5']));
        self.refusals += usize::from(refused || line.starts_with("refused"));
    }
}
