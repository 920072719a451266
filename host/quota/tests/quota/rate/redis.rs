//! A `redis-server` of a test's own, on a socket in a folder that goes with it.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use model::BoxFuture;
use quota::{RATE_SCRIPT, RateAsk, RateLoan, RateStore, RateStoreAway};

pub(crate) struct Redis {
    server: Child,
    folder: tempfile::TempDir,
}

impl Redis {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(folder.path().join("redis"))
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is needed: apt-get install redis-server");
        let redis = Self { server, folder };
        let answers = || UnixStream::connect(redis.socket()).is_ok();
        for _ in 0..1_000 {
            if answers() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        redis
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("redis")
    }

    pub(crate) fn connect(&self) -> Arc<Client> {
        let stream = UnixStream::connect(self.socket()).expect("redis-server listens");
        let connection = Mutex::new(BufReader::new(stream));
        Arc::new(Client { connection, calls: AtomicU64::new(0), away: AtomicBool::new(false) })
    }

    pub(crate) fn ask_now(&self, ask: RateAsk) -> Result<RateLoan, RateStoreAway> {
        self.connect().eval(&ask)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// One connection of an edge.
pub(crate) struct Client {
    connection: Mutex<BufReader<UnixStream>>,
    pub(crate) calls: AtomicU64,
    pub(crate) away: AtomicBool,
}

impl Client {
    fn eval(&self, ask: &RateAsk) -> Result<RateLoan, RateStoreAway> {
        let mut words = vec!["EVAL", RATE_SCRIPT, "2"];
        words.extend(ask.keys.iter().chain(&ask.arguments).map(|word| &**word));
        let mut message = format!("*{}\r\n", words.len());
        for word in words {
            message.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        let mut connection = self.connection.lock().unwrap();
        connection.get_mut().write_all(message.as_bytes()).unwrap();
        let mut line = || {
            let mut line = String::new();
            connection.read_line(&mut line).unwrap();
            line.trim_end().to_owned()
        };
        let head = line();
        let count: usize = head.strip_prefix('*').expect(&head).parse().unwrap();
        let answer: Vec<i64> =
            (0..count).map(|_| line().strip_prefix(':').unwrap().parse().unwrap()).collect();
        RateLoan::from_answer(&answer).ok_or(RateStoreAway)
    }
}

impl RateStore for Client {
    fn ask(&self, ask: RateAsk) -> BoxFuture<'_, Result<RateLoan, RateStoreAway>> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            tokio::task::yield_now().await;
            if self.away.load(Ordering::SeqCst) {
                return Err(RateStoreAway);
            }
            self.eval(&ask)
        })
    }
}
