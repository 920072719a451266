//! The two Redis servers: one is the master, the other its replica, and they change places.
//!
//! Also the oracle of round trips: what the servers themselves count, added up over all
//! their lives.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    thread::sleep,
    time::Duration,
};

use services::{CommandStats, Dump, Redis, RedisOptions, Value};

use crate::time;

/// The pair.
#[derive(Debug)]
pub struct Stores {
    servers: [Redis; 2],
    /// Index of the master.
    master: Mutex<usize>,
    /// The last count of scripts seen of each life of a server.
    scripts: Mutex<BTreeMap<String, u64>>,
}

impl Stores {
    /// A master with its replica.
    #[must_use]
    pub fn start() -> Self {
        let master =
            Redis::start(RedisOptions { env: time::of_redis(), ..RedisOptions::default() });
        let replica = master.replica();
        Self { servers: [master, replica], master: Mutex::new(0), scripts: Mutex::default() }
    }

    /// Their ports.
    #[must_use]
    pub fn ports(&self) -> [u16; 2] {
        self.servers.each_ref().map(Redis::port)
    }

    /// The master and the replica, as they are at rest.
    #[must_use]
    pub fn pair(&self) -> (&Redis, &Redis) {
        let [first, second] = &self.servers;
        if self.master_index() == 0 { (first, second) } else { (second, first) }
    }

    /// Index of the master among [`Self::ports`].
    #[must_use]
    pub fn master_index(&self) -> usize {
        *self.master.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// SIGKILL to the master; it comes back `down` later with what its disk has.
    pub fn crash(&self, down: Duration, dump: Dump) {
        let (master, _) = self.pair();
        self.count();
        master.kill();
        sleep(down);
        master.restart(dump);
    }

    /// SIGSTOP to the master for a while.
    pub fn freeze(&self, time: Duration) {
        let (master, _) = self.pair();
        master.sigstop();
        sleep(time);
        master.sigcont();
    }

    /// The master dies, the replica is promoted, and the old master is back: two of them,
    /// until [`Self::heal`].
    pub fn fail_over(&self, unseen: Duration) {
        let (master, replica) = self.pair();
        self.count();
        master.kill();
        sleep(unseen);
        replica.promote();
        sleep(unseen);
        master.restart(Dump::Keep);
    }

    /// The replica is promoted while the master lives: two of them, until [`Self::heal`].
    pub fn split(&self) {
        self.pair().1.promote();
    }

    /// The old master follows the promoted replica.
    pub fn heal(&self) {
        self.count();
        let (old, new) = self.pair();
        old.demote_to(new);
        let mut master = self.master.lock().unwrap_or_else(PoisonError::into_inner);
        *master = 1 - *master;
    }

    /// Adds up what the servers count; called often, and before one is killed.
    pub fn count(&self) {
        for server in &self.servers {
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

    /// Script calls from outside, over all lives of both servers; replicated ones are none.
    #[must_use]
    pub fn scripts(&self) -> u64 {
        self.count();
        self.scripts.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }

    /// Whether the master answers as one and the replica follows it.
    #[must_use]
    pub fn whole(&self) -> bool {
        let role = |server: &Redis| server.cli(&["ROLE"]).ok();
        let is = |answer: Option<Value>, word: &str| {
            matches!(answer, Some(Value::List(parts))
                if parts.first().is_some_and(|part| part.text() == word))
        };
        let (master, replica) = self.pair();
        is(role(master), "master") && is(role(replica), "slave")
    }
}
