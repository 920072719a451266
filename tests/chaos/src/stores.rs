//! The Redis servers: a master and its replica, which change places, or a Cluster.
//!
//! Also the oracle of round trips: what the servers themselves count, added up over all
//! their lives. Invariant: whoever asks for the server to be broken gets one that serves.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::sleep,
    time::Duration,
};

use services::{CommandStats, Dump, FaultProxy, Redis, RedisCluster, RedisOptions, Value};

use crate::{options::Dispatch, time};

/// The servers.
#[derive(Debug)]
pub struct Stores {
    servers: Servers,
    /// PEM file of the authority of their certificates, where they speak TLS.
    ca: Option<tempfile::NamedTempFile>,
    /// The last count of scripts seen of each life of a server.
    scripts: Mutex<BTreeMap<String, u64>>,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one of it in a run")]
enum Servers {
    /// And the index of the master.
    Pair([Redis; 2], Mutex<usize>),
    /// And which node is broken next.
    Cluster(RedisCluster, AtomicUsize),
}

impl Stores {
    /// What the options want; `None` when that is no Redis.
    ///
    /// # Errors
    /// The certificate cannot be written.
    pub fn start(dispatch: Dispatch) -> anyhow::Result<Option<Self>> {
        let tls = dispatch == Dispatch::Pair { tls: true };
        let options = RedisOptions { env: time::of_redis(), tls, ..RedisOptions::default() };
        let servers = match dispatch {
            Dispatch::InProcess => return Ok(None),
            Dispatch::Pair { .. } => {
                let master = Redis::start(options);
                let replica = master.replica();
                Servers::Pair([master, replica], Mutex::new(0))
            }
            Dispatch::Cluster => {
                // A node that is away takes its own families with it and nobody else's.
                let lines = vec!["cluster-require-full-coverage no".to_owned()];
                let cluster = RedisCluster::start(RedisOptions { lines, ..options });
                Servers::Cluster(cluster, AtomicUsize::new(0))
            }
        };
        let ca = tls.then(|| {
            let file = tempfile::NamedTempFile::new()?;
            std::fs::write(file.path(), Redis::ca_pem())?;
            Ok::<_, std::io::Error>(file)
        });
        Ok(Some(Self { servers, ca: ca.transpose()?, scripts: Mutex::default() }))
    }

    /// The ports that edges reach through proxies; a Cluster tells edges its own.
    #[must_use]
    pub fn ports(&self) -> Vec<u16> {
        match &self.servers {
            Servers::Pair(pair, _) => pair.iter().map(Redis::port).collect(),
            Servers::Cluster(..) => Vec::new(),
        }
    }

    /// `quota.url` of an edge with these proxies.
    #[must_use]
    pub fn url(&self, proxies: &[FaultProxy]) -> String {
        let servers: Vec<String> = proxies.iter().map(|proxy| proxy.addr().to_string()).collect();
        match &self.servers {
            Servers::Cluster(cluster, _) => cluster.url(),
            Servers::Pair(..) if self.ca.is_some() => format!("rediss://{}", servers.join(",")),
            Servers::Pair(..) => format!("redis://{}", servers.join(",")),
        }
    }

    /// `quota.tls_ca` of the edges.
    #[must_use]
    pub fn ca(&self) -> Option<String> {
        self.ca.as_ref().map(|file| file.path().display().to_string())
    }

    fn all(&self) -> &[Redis] {
        match &self.servers {
            Servers::Pair(pair, _) => pair,
            Servers::Cluster(cluster, _) => cluster.nodes(),
        }
    }

    /// The master and the replica, as they are at rest; `None` of a Cluster.
    #[must_use]
    pub fn pair(&self) -> Option<(&Redis, &Redis)> {
        let Servers::Pair([first, second], _) = &self.servers else { return None };
        Some(if self.master_index() == 0 { (first, second) } else { (second, first) })
    }

    /// A server that dispatches: the master, or the next node of the Cluster.
    #[must_use]
    pub fn target(&self) -> &Redis {
        match &self.servers {
            Servers::Pair([first, second], _) => match self.master_index() {
                0 => first,
                _ => second,
            },
            Servers::Cluster(cluster, turn) => cluster.node(turn.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// Index of the master among [`Self::ports`].
    #[must_use]
    pub fn master_index(&self) -> usize {
        match &self.servers {
            Servers::Pair(_, master) => *master.lock().unwrap_or_else(PoisonError::into_inner),
            Servers::Cluster(..) => 0,
        }
    }

    /// SIGKILL to a server; it comes back `down` later with what its disk has.
    pub fn crash(&self, down: Duration, dump: Dump) {
        let server = self.target();
        self.count();
        server.kill();
        sleep(down);
        server.restart(dump);
    }

    /// SIGSTOP to a server for a while.
    pub fn freeze(&self, time: Duration) {
        let server = self.target();
        server.sigstop();
        sleep(time);
        server.sigcont();
    }

    /// The master dies, the replica is promoted, and the old master is back: two of them,
    /// until [`Self::heal`].
    pub fn fail_over(&self, unseen: Duration) {
        let Some((master, replica)) = self.pair() else { return };
        self.count();
        master.kill();
        sleep(unseen);
        replica.promote();
        sleep(unseen);
        master.restart(Dump::Keep);
    }

    /// The replica is promoted while the master lives: two of them, until [`Self::heal`].
    pub fn split(&self) {
        if let Some((_, replica)) = self.pair() {
            replica.promote();
        }
    }

    /// The old master follows the promoted replica.
    pub fn heal(&self) {
        self.count();
        let (Some((old, new)), Servers::Pair(_, master)) = (self.pair(), &self.servers) else {
            return;
        };
        old.demote_to(new);
        let mut master = master.lock().unwrap_or_else(PoisonError::into_inner);
        *master = 1 - *master;
    }

    /// Adds up what the servers count; called often, and before one is killed.
    pub fn count(&self) {
        for server in self.all() {
            let Ok(text) = server.cli(&["INFO", "everything"]).map(|info| info.text()) else {
                continue;
            };
            let life = text.lines().find_map(|line| line.strip_prefix("run_id:"));
            if let Some(life) = life {
                let mut scripts = self.scripts.lock().unwrap_or_else(PoisonError::into_inner);
                scripts.insert(life.to_owned(), CommandStats::parse(&text).scripts());
            }
        }
    }

    /// Script calls from outside, over all lives of all servers; replicated ones are none.
    #[must_use]
    pub fn scripts(&self) -> u64 {
        self.count();
        self.scripts.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }

    /// Whether the master answers as one and the replica follows it, or every node of the
    /// Cluster serves.
    #[must_use]
    pub fn whole(&self) -> bool {
        let role = |server: &Redis| server.cli(&["ROLE"]).ok();
        let is = |answer: Option<Value>, word: &str| {
            matches!(answer, Some(Value::List(parts))
                if parts.first().is_some_and(|part| part.text() == word))
        };
        match self.pair() {
            Some((master, replica)) => is(role(master), "master") && is(role(replica), "slave"),
            None => self.all().iter().all(|node| {
                let info = node.cli(&["CLUSTER", "INFO"]);
                info.is_ok_and(|info| info.text().contains("cluster_state:ok"))
            }),
        }
    }
}
