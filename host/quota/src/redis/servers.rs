//! Which server has a key: the master among several, or the node of a Cluster's slot.
//!
//! An edge has one [`Servers`]: the ledger, the sessions and the rates send their scripts over
//! its connections, and one breaker stands before all three; `fence` says what fences each.
//! Looked at once per script. Invariant: a key goes to a server that said it is a master; that
//! it may hand out a tranche is checked again by the fence inside every script.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use redis::{Script, ToRedisArgs, Value};
use tokio::{
    sync::Notify,
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};

use super::{
    fence,
    link::{Link, LinkError},
    target::RedisTarget,
};
use crate::start::StartError;

/// Slots of a Cluster (Redis Cluster specification).
const SLOTS: u16 = 16_384;
/// Pause between looks at a Cluster's slots, in ms, when nobody says that one has moved.
const LOOK_MS: u64 = 5_000;
/// Shortest pause between two such looks, in ms: a resharding moves many slots.
const LOOK_AGAIN_MS: u64 = 100;

/// The Redis servers of this edge, with a connection to each.
pub struct Servers {
    target: RedisTarget,
    links: Mutex<Links>,
    moved: Notify,
    /// Told whenever a server begins to answer.
    found: Arc<Notify>,
    call_limit: Duration,
}

#[derive(Default)]
struct Links {
    all: HashMap<String, Arc<Link>>,
    /// The named servers, in their order; in a Cluster, where its slots are asked for.
    named: Vec<Arc<Link>>,
    /// Node of each range of slots `first..=last`.
    slots: Vec<(u16, u16, Arc<Link>)>,
    tasks: Vec<AbortHandle>,
}

impl Servers {
    /// Begins to connect, on the current tokio runtime, and does not wait for it. Every call
    /// ends after `call_limit`: the first that takes longer opens the breaker, so it is a
    /// hundred round trips (25 ms is right for a Redis nearby) and no more than the first
    /// request of an outage may have to wait. The connections end when it is dropped.
    ///
    /// # Errors
    /// A server's address or certificates cannot be used.
    pub fn connect(target: RedisTarget, call_limit: Duration) -> Result<Arc<Self>, StartError> {
        let servers = Arc::new(Self {
            links: Mutex::default(),
            moved: Notify::new(),
            found: Arc::new(Notify::new()),
            call_limit,
            target,
        });
        for client in servers.target.clients() {
            let link = servers.add(client?);
            servers.locked(|links| links.named.push(link));
        }
        if servers.target.is_cluster() {
            let weak = Arc::downgrade(&servers);
            let task = tokio::spawn(async move {
                while let Some(servers) = weak.upgrade() {
                    servers.look_at_slots().await;
                    sleep(Duration::from_millis(LOOK_AGAIN_MS)).await;
                    let pause = Duration::from_millis(LOOK_MS);
                    let _ = timeout(pause, servers.moved.notified()).await;
                }
            });
            servers.locked(|links| links.tasks.push(task.abort_handle()));
        }
        Ok(servers)
    }

    fn locked<T>(&self, work: impl FnOnce(&mut Links) -> T) -> T {
        work(&mut self.links.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The link to a client's server, made and supervised when it is new.
    fn add(&self, client: redis::Client) -> Arc<Link> {
        let fencing = self.target.fencing();
        let link = Link::new(client, Arc::clone(&self.found), self.call_limit, fencing);
        self.locked(|links| {
            if let Some(known) = links.all.get(link.name()) {
                return Arc::clone(known);
            }
            links.all.insert(link.name().to_owned(), Arc::clone(&link));
            let supervised = Arc::clone(&link);
            let task = tokio::spawn(async move { supervised.supervise().await });
            links.tasks.push(task.abort_handle());
            link
        })
    }

    /// Told whenever a server begins to answer.
    pub(crate) const fn found(&self) -> &Arc<Notify> {
        &self.found
    }

    /// The server of a key, if it answers.
    pub(crate) fn of(&self, key: &str) -> Option<Arc<Link>> {
        self.locked(|links| {
            let of_key = if self.target.is_cluster() {
                let slot = slot(key);
                let found = links.slots.iter().find(|(a, b, _)| (*a..=*b).contains(&slot));
                found.map(|(_, _, link)| link)
            } else {
                links.named.iter().find(|link| link.fence().is_some())
            };
            of_key.filter(|link| link.fence().is_some()).map(Arc::clone)
        })
    }

    /// All servers.
    pub(crate) fn all(&self) -> Vec<Arc<Link>> {
        self.locked(|links| links.all.values().map(Arc::clone).collect())
    }

    /// Where they are.
    pub(crate) const fn target(&self) -> &RedisTarget {
        &self.target
    }

    /// A script that reads its fence, in the form in which these servers get it.
    pub(crate) fn script(&self, text: &str) -> Script {
        fence::script(self.target.fencing(), text)
    }

    /// Runs a script where its first key lives. All keys must be of one slot.
    pub(crate) async fn run(
        &self,
        script: &Script,
        keys: &[&str],
        arguments: &[String],
    ) -> Result<(Arc<Link>, Value), LinkError> {
        self.run_bytes(script, keys, arguments).await
    }

    /// The same with arguments that need not be text.
    pub(super) async fn run_bytes<A: ToRedisArgs + Sync>(
        &self,
        script: &Script,
        keys: &[&str],
        arguments: &[A],
    ) -> Result<(Arc<Link>, Value), LinkError> {
        let link = keys.first().and_then(|key| self.of(key)).ok_or(LinkError::Away)?;
        let answer = link.run(script, keys, arguments).await;
        if matches!(answer, Err(LinkError::Moved)) {
            self.moved.notify_one();
        }
        Ok((link, answer?))
    }

    /// Asks any node which nodes have which slots.
    async fn look_at_slots(&self) {
        let mut asked = JoinSet::new();
        for link in self.all() {
            let client = link.client().clone();
            asked.spawn(async move {
                let mut connection = client.get_multiplexed_async_connection().await?;
                redis::cmd("CLUSTER").arg("SLOTS").query_async::<Value>(&mut connection).await
            });
        }
        while let Some(answer) = asked.join_next().await {
            if let Ok(Ok(Value::Array(ranges))) = answer
                && !ranges.is_empty()
            {
                let slots = ranges.iter().filter_map(|range| self.range(range)).collect();
                self.locked(|links| links.slots = slots);
                return;
            }
        }
    }

    /// One range of the answer: first, last, `[host, port, …]` of its master, replicas.
    fn range(&self, range: &Value) -> Option<(u16, u16, Arc<Link>)> {
        let Value::Array(parts) = range else { return None };
        let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = parts.as_slice()
        else {
            return None;
        };
        let [host, Value::Int(port), ..] = master.as_slice() else { return None };
        let host: String = redis::from_redis_value(host.clone()).ok()?;
        let client = self.target.node(&host, u16::try_from(*port).ok()?)?.ok()?;
        Some((u16::try_from(*first).ok()?, u16::try_from(*last).ok()?, self.add(client)))
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.locked(|links| links.tasks.iter().for_each(AbortHandle::abort));
    }
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Servers").field(&self.target).finish()
    }
}

/// The slot of a key: CRC16 (XMODEM) of its hash tag, or of all of it.
fn slot(key: &str) -> u16 {
    let tag = key
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'))
        .map(|(tag, _)| tag)
        .filter(|tag| !tag.is_empty())
        .unwrap_or(key);
    tag.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ u16::from(byte) << 8, |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 }
        })
    }) % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_cluster_specification() {
        // CRC16 of "123456789" is 0x31C3; the others are what CLUSTER KEYSLOT answers.
        assert_eq!(slot("123456789"), 0x31c3 % SLOTS);
        assert_eq!(slot("foo"), 12_182);
        assert_eq!(slot("{user1000}.following"), slot("{user1000}.followers"));
        assert_eq!(slot("user1000"), slot("a{user1000}b"));
        assert_eq!(slot("{}x"), slot("{}x"));
    }
}
