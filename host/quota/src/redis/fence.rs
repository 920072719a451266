//! The fence of a server: which life of it, with which history of its data, answers.
//!
//! Read whenever a connection is made, and inside the scripts. A server shows both in `INFO`;
//! for one that hides them keys stand in. That of the quotas is renewed by every connection
//! before anything else is sent over it, so a server that started again, or another one, never
//! has the fence of ledgers that it was not given in this life; only what sits between the
//! edge and the server can hide a failover, and then one replica has what was granted, as a
//! rule. The sessions send over the same connections and have a key of their own, made once:
//! to renew it would make every new session wait, for each edge that comes. Rates have none.
//!
//! Invariant: where neither can be had, the server is not used.

use std::time::Duration;

use model::ledger::RedisFence;
use prometheus::{IntCounter, IntGauge, Registry};
use redis::{ErrorKind, RedisError, Script, ServerErrorKind, Value, aio::MultiplexedConnection};
use tokio::{task::JoinSet, time::timeout};
use uuid::Uuid;

use super::{
    link::CONNECT_MS,
    target::{RedisFencing, RedisTarget},
};

/// Time in which a replica has to take in what a probe wrote, in ms: far beyond a healthy one.
const REPLICA_MS: u64 = 100;
/// What stands before a script under [`RedisFencing::Connection`].
const PRELUDE: &str = include_str!("connection_fence.lua");

/// Whose scripts a key is the fence of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FenceKey {
    /// Renewed with every connection.
    Quotas,
    /// Made where there is none.
    Sessions,
}

/// Why a server cannot be used.
pub(super) enum Unusable {
    /// It does not answer, is no master, or not yet what it should be.
    Away(String),
    /// It answers, and hides what tells its lives apart.
    Hidden(String),
}

impl FenceKey {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Quotas => "q:fence",
            Self::Sessions => "s:fence",
        }
    }

    /// That of a script with this first key.
    pub(super) fn of(key: &str) -> Option<Self> {
        match key.split_once(':')?.0 {
            "q" => Some(Self::Quotas),
            "s" => Some(Self::Sessions),
            _ => None,
        }
    }
}

/// A script that reads its fence, as it is sent.
pub(super) fn script(fencing: RedisFencing, text: &str) -> Script {
    match fencing {
        RedisFencing::Connection => Script::new(&format!("{PRELUDE}{text}")),
        RedisFencing::Server => Script::new(text),
    }
}

/// The fence of the server at the other end of a new connection, which is a master.
pub(super) async fn fence_of(
    connection: &mut MultiplexedConnection,
    fencing: RedisFencing,
) -> Result<RedisFence, Unusable> {
    match fencing {
        RedisFencing::Server => shown(connection).await,
        RedisFencing::Connection => made(connection).await,
    }
}

async fn shown(connection: &mut MultiplexedConnection) -> Result<RedisFence, Unusable> {
    let mut info = redis::cmd("INFO");
    info.arg("server").arg("replication");
    let info: String = info.query_async(connection).await.map_err(|error| refused(&error))?;
    let field =
        |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    if field("role").is_some_and(|role| role.trim() != "master") {
        return Err(Unusable::Away("it is a replica".to_owned()));
    }
    let id = |name: &str| {
        let hidden = || Unusable::Hidden(format!("INFO shows no {name}"));
        field(name).and_then(|id| id.trim().parse().ok()).ok_or_else(hidden)
    };
    Ok(RedisFence { run_id: id("run_id")?, replid: id("master_replid")? })
}

/// What a server that refuses INFO means by it.
fn refused(error: &RedisError) -> Unusable {
    let hides = match error.kind() {
        ErrorKind::Server(ServerErrorKind::NoPerm) => true,
        _ => error.to_string().contains("unknown command"),
    };
    let reason = error.to_string();
    if hides { Unusable::Hidden(reason) } else { Unusable::Away(reason) }
}

/// Makes the keys. A replica refuses the write, so whoever takes it is a master.
async fn made(connection: &mut MultiplexedConnection) -> Result<RedisFence, Unusable> {
    let away = |error: RedisError| Unusable::Away(error.to_string());
    let (quotas, sessions) = (FenceKey::Quotas.name(), FenceKey::Sessions.name());
    let mut set = redis::cmd("SET");
    let _: Value = set.arg(quotas).arg(random_id()).query_async(connection).await.map_err(away)?;
    let mut set = redis::cmd("SET");
    let set = set.arg(sessions).arg(random_id()).arg("NX").query_async::<Value>(connection).await;
    // A right that is missing for sessions is told of by their first script, and costs the
    // quotas nothing.
    if let Err(error) = set
        && !matches!(error.kind(), ErrorKind::Server(ServerErrorKind::NoPerm))
    {
        return Err(away(error));
    }
    let id: Option<String> =
        redis::cmd("GET").arg(quotas).query_async(connection).await.map_err(away)?;
    let broken = || Unusable::Away(format!("{quotas} holds no fence"));
    let run_id = id.and_then(|id| id.parse().ok()).ok_or_else(broken)?;
    let replid = "0".repeat(40).parse().map_err(|_| broken())?;
    Ok(RedisFence { run_id, replid })
}

/// Forty random hexadecimal digits, as in a `run_id`.
fn random_id() -> String {
    let (one, two) = (Uuid::new_v4().simple().to_string(), Uuid::new_v4().simple().to_string());
    one.chars().chain(two.chars()).take(40).collect()
}

/// Whether a replica takes in what was written over a connection, within a limit.
pub(super) async fn replicated(connection: &mut MultiplexedConnection, limit: Duration) -> bool {
    let ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).max(1);
    let mut wait = redis::cmd("WAIT");
    wait.arg(1).arg(ms);
    let answer = timeout(limit * 2, wait.query_async::<u64>(connection)).await;
    answer.is_ok_and(|answer| answer.is_ok_and(|replicas| replicas > 0))
}

/// Time that a probe gives a replica.
pub(super) const fn probe_limit() -> Duration {
    Duration::from_millis(REPLICA_MS)
}

/// A named server that answers and hides what tells its lives apart, with what it says; `None`
/// also while none answers.
pub(crate) async fn hidden(target: &RedisTarget) -> Option<(String, String)> {
    if target.fencing() != RedisFencing::Server {
        return None;
    }
    let mut asked = JoinSet::new();
    for client in target.clients().filter_map(Result::ok) {
        asked.spawn(async move {
            let mut connection = client.get_multiplexed_async_connection().await.ok()?;
            let name = client.get_connection_info().addr().to_string();
            match shown(&mut connection).await {
                Err(Unusable::Hidden(reason)) => Some((name, reason)),
                Ok(_) | Err(Unusable::Away(_)) => None,
            }
        });
    }
    let first = async {
        while let Some(answer) = asked.join_next().await {
            if let Ok(Some(found)) = answer {
                return Some(found);
            }
        }
        None
    };
    timeout(Duration::from_millis(CONNECT_MS), first).await.ok().flatten()
}

/// What says that the fence is the weaker one.
#[derive(Clone, Debug)]
pub(crate) struct Probabilistic {
    pub(super) unreplicated: IntCounter,
}

impl Probabilistic {
    /// Registers both metrics, and says it in the log.
    pub(crate) fn announce(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = IntGauge::new(
            "quota_fence_probabilistic",
            "1: quota.fence is \"connection\", and exactness across a failover of Redis probabilistic",
        )?;
        let unreplicated = IntCounter::new(
            "quota_unreplicated_grants_total",
            "Grants that no replica had in time, under quota.fence = \"connection\"",
        )?;
        registry.register(Box::new(gauge.clone()))?;
        registry.register(Box::new(unreplicated.clone()))?;
        gauge.set(1);
        tracing::warn!(
            "quota.fence is \"connection\": quotas stay exact through restarts and lost data of \
             Redis, but across a failover only as a rule"
        );
        Ok(Self { unreplicated })
    }
}
