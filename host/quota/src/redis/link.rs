//! One Redis server: its connection, its fence, and whether it may be asked now.
//!
//! A call takes at most the time limit; the first that fails opens the breaker, and from
//! then on every call is refused at once until a background probe has found the server
//! answering, and a master, again. Invariant: a command is sent at most once; after a
//! failure nobody knows whether it ran. Only a script that the server says it does not have
//! is sent a second time, since it did not run.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use model::ledger::{Fence, RedisFence};
use redis::{
    AsyncConnectionConfig, Client, ErrorKind, Script, ServerErrorKind, ToRedisArgs, Value,
    aio::MultiplexedConnection,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use super::{
    fence::{self, FenceKey, Unusable},
    target::RedisFencing,
};

/// Longest time to connect and probe, in ms: far beyond a healthy round trip, so that only
/// a server that does not answer is given up.
pub(super) const CONNECT_MS: u64 = 1_000;
/// First and longest pause between probes of a server that is away, in ms; doubles in
/// between, and a third is random, so that edges do not come back together.
const PROBE_MS: (u64, u64) = (50, 1_000);

/// Pause after a replica that did not follow, in ms: a refill every second may wait for it.
const REPLICA_AGAIN_MS: u64 = 1_000;

/// A connection, the fence at its other end, and from when on a replica is waited for.
type Probed = (MultiplexedConnection, RedisFence, Option<Instant>);

/// A server.
pub(crate) struct Link {
    client: Client,
    name: String,
    live: Mutex<Option<Live>>,
    lost: Notify,
    /// Whether a missing right was logged since it was connected to.
    complained: AtomicBool,
    /// Told whenever the server begins to answer.
    found: Arc<Notify>,
    call_limit: Duration,
    fencing: RedisFencing,
}

#[derive(Clone)]
struct Live {
    connection: MultiplexedConnection,
    fence: RedisFence,
    /// Which connection this is, so that an old one's failure does not end a new one.
    number: u64,
    /// From when on a replica is waited for after a grant; `None` where there is none.
    replica_from: Option<Instant>,
}

/// Why a server was of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LinkError {
    /// Nothing was sent: the breaker is open.
    #[error("the server is away")]
    Away,
    /// It was sent, and nobody knows what became of it.
    #[error("no answer: {0}")]
    Unknown(String),
    /// The server refused: nothing was done.
    #[error("the server refused: {0}")]
    Refused(String),
    /// The key is another node's; nothing was done.
    #[error("the key is another node's")]
    Moved,
    /// The user may not touch these keys, or not with this script; nothing was done. Says
    /// nothing about anybody else's keys, so the breaker stays closed.
    #[error("the user has no right to it: {0}")]
    Forbidden(String),
}

impl Link {
    pub(crate) fn new(
        client: Client,
        found: Arc<Notify>,
        call_limit: Duration,
        fencing: RedisFencing,
    ) -> Arc<Self> {
        let name = client.get_connection_info().addr().to_string();
        let live = Mutex::default();
        Arc::new(Self {
            client,
            name,
            live,
            lost: Notify::new(),
            complained: AtomicBool::new(false),
            found,
            call_limit,
            fencing,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) const fn client(&self) -> &Client {
        &self.client
    }

    fn live(&self) -> Option<Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The fence of the server, while it answers and is a master.
    pub(crate) fn fence(&self) -> Option<Fence> {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.as_ref().map(|live| Fence::Redis(live.fence))
    }

    /// A script said that the fence is another one now.
    pub(crate) fn learn(&self, fence: RedisFence) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(live) = live.as_mut() {
            live.fence = fence;
        }
    }

    /// Ends the use of the server until a probe finds it well.
    pub(crate) fn give_up(&self, reason: &str) {
        if let Some(live) = self.live() {
            self.lose(live.number, reason);
        }
    }

    fn lose(&self, number: u64, reason: &str) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if live.as_ref().is_some_and(|live| live.number == number) {
            *live = None;
            tracing::warn!(server = self.name, reason, "a Redis server is given up for now");
            self.lost.notify_one();
        }
    }

    /// Runs a script.
    pub(crate) async fn run<A: ToRedisArgs + Sync>(
        &self,
        script: &Script,
        keys: &[&str],
        arguments: &[A],
    ) -> Result<Value, LinkError> {
        let Some(mut live) = self.live() else { return Err(LinkError::Away) };
        let mut call = script.prepare_invoke();
        keys.iter().for_each(|key| {
            call.key(*key);
        });
        if self.fencing == RedisFencing::Connection
            && let Some(fence) = keys.first().and_then(|key| FenceKey::of(key))
        {
            call.key(fence.name());
        }
        arguments.iter().for_each(|argument| {
            call.arg(argument);
        });
        let answer = timeout(self.call_limit, call.invoke_async(&mut live.connection)).await;
        let error = match answer {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => judge(&error),
            Err(_) => LinkError::Unknown("it took too long".to_owned()),
        };
        match &error {
            LinkError::Moved => {}
            LinkError::Forbidden(_) => self.complain(&error, keys),
            _ => self.lose(live.number, &error.to_string()),
        }
        Err(error)
    }

    /// Tells the operator of a missing right, once a connection.
    fn complain(&self, error: &LinkError, keys: &[&str]) {
        if !self.complained.swap(true, Ordering::Relaxed) {
            let (server, key) = (&self.name, keys.first());
            tracing::error!(server, key, %error, "a right is missing in Redis; the README lists them");
        }
    }

    /// Connects, and connects again whenever the server was lost. Runs until dropped.
    pub(crate) async fn supervise(&self) {
        let (first, longest) = PROBE_MS;
        let (mut pause, mut number, mut told) = (first, 0, false);
        loop {
            let limit = Duration::from_millis(CONNECT_MS);
            let probe = timeout(limit, self.probe()).await;
            let silent = || Unusable::Away("it does not answer".to_owned());
            match probe.unwrap_or_else(|_| Err(silent())) {
                Ok((connection, fence, replica_from)) => {
                    number += 1;
                    pause = first;
                    self.complained.store(false, Ordering::Relaxed);
                    tracing::info!(server = self.name, "a Redis server dispatches quotas");
                    let live = Live { connection, fence, number, replica_from };
                    *self.live.lock().unwrap_or_else(PoisonError::into_inner) = Some(live);
                    self.found.notify_waiters();
                    self.lost.notified().await;
                    // Many edges may have lost it at the same moment.
                    sleep(Duration::from_millis(rand::random_range(0..=first))).await;
                }
                Err(unusable) => {
                    self.explain(unusable, &mut told);
                    let spread = rand::random_range(0..=pause / 3);
                    sleep(Duration::from_millis(pause + spread)).await;
                    pause = (pause * 2).min(longest);
                }
            }
        }
    }

    fn explain(&self, unusable: Unusable, told: &mut bool) {
        match unusable {
            Unusable::Hidden(reason) if !std::mem::replace(told, true) => tracing::error!(
                server = self.name,
                reason,
                "a Redis server is not used, because it hides run_id and master_replid: allow INFO \
                 to its user, or set quota.fence = \"connection\""
            ),
            Unusable::Away(reason) | Unusable::Hidden(reason) => {
                tracing::debug!(server = self.name, reason, "no use of a Redis server");
            }
        }
    }

    /// Waits until a replica has what was just granted, where there is one; false when none
    /// had it in time. Then none is waited for during the next second.
    pub(crate) async fn replicate(&self) -> bool {
        let Some(mut live) = self.live() else { return true };
        if live.replica_from.is_none_or(|from| Instant::now() < from) {
            return true;
        }
        let done = fence::replicated(&mut live.connection, self.call_limit).await;
        if !done {
            let again = Instant::now() + Duration::from_millis(REPLICA_AGAIN_MS);
            let mut now = self.live.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(now) = now.as_mut().filter(|now| now.number == live.number) {
                now.replica_from = Some(again);
            }
        }
        done
    }

    /// A new connection to a server that is a master now.
    async fn probe(&self) -> Result<Probed, Unusable> {
        // Time limits are this type's own.
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let away = |error: redis::RedisError| Unusable::Away(error.to_string());
        let connect = self.client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = connect.await.map_err(away)?;
        let fence = fence::fence_of(&mut connection, self.fencing).await?;
        let replica = self.fencing == RedisFencing::Connection
            && fence::replicated(&mut connection, fence::probe_limit()).await;
        Ok((connection, fence, replica.then(Instant::now)))
    }
}

fn judge(error: &redis::RedisError) -> LinkError {
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask) => LinkError::Moved,
        ErrorKind::Server(ServerErrorKind::NoPerm) => LinkError::Forbidden(error.to_string()),
        ErrorKind::Server(_) => LinkError::Refused(error.to_string()),
        _ => LinkError::Unknown(error.to_string()),
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Link").field(&self.name).finish()
    }
}
