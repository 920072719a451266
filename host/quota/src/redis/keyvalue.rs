//! Key-value data of policies in Redis, for edges that share one.
//!
//! One script an operation, over the connections and behind the breaker of the quotas: a
//! server that is away costs a policy nothing but the error. Data has no fence: a Redis that
//! loses it answers that there is none. Invariant: the names of Redis keys are made of the
//! tenant's id and the policy's name alone.

use std::{fmt, sync::Arc};

use model::keyvalue::{KeyvalueError, KeyvalueStore, Namespace, Room, Stored};
use redis::{Script, Value};

use super::Servers;

const SCRIPT: &str = include_str!("keyvalue.lua");
/// Longest time to live in ms (some 285 years): what a sorted set counts exactly, with now.
const TTL_MS_MAX: u64 = 1 << 43;

/// The data in Redis.
pub struct RedisKeyvalue {
    servers: Arc<Servers>,
    script: Script,
}

/// What the script answered.
enum Answer {
    Value(Vec<u8>),
    None,
    Ok,
}

impl RedisKeyvalue {
    /// Over the connections of an edge.
    #[must_use]
    pub fn new(servers: Arc<Servers>) -> Self {
        Self { servers, script: Script::new(SCRIPT) }
    }

    async fn run(&self, of: &Namespace, arguments: [Vec<u8>; 6]) -> Result<Answer, KeyvalueError> {
        let Namespace { tenant, policy } = of;
        let values = format!("kv:{{{tenant}}}:v:{policy}");
        let ends = format!("kv:{{{tenant}}}:e:{policy}");
        let called = self.servers.run_bytes(&self.script, &[&values, &ends], &arguments).await;
        let (_, answer) = called.map_err(|_| KeyvalueError::Unavailable)?;
        read(answer)
    }
}

fn read(answer: Value) -> Result<Answer, KeyvalueError> {
    let Value::Array(items) = answer else { return Err(KeyvalueError::Unavailable) };
    let mut items = items.into_iter();
    let Some(Value::BulkString(code)) = items.next() else {
        return Err(KeyvalueError::Unavailable);
    };
    match (&*code, items.next()) {
        (b"VALUE", Some(Value::BulkString(value))) => Ok(Answer::Value(value)),
        (b"NONE", None) => Ok(Answer::None),
        (b"OK", None) => Ok(Answer::Ok),
        (b"FULL", None) => Err(KeyvalueError::QuotaExceeded),
        (b"NUMBER", None) => Err(KeyvalueError::NotANumber),
        (b"OVERFLOW", None) => Err(KeyvalueError::Overflow),
        _ => Err(KeyvalueError::Unavailable),
    }
}

fn arguments(op: &str, key: &str, value: Vec<u8>, ttl_ms: Option<u64>, room: Room) -> [Vec<u8>; 6] {
    let ttl = ttl_ms.map(|ms| ms.min(TTL_MS_MAX).to_string()).unwrap_or_default();
    let (bytes, keys) = (room.bytes.to_string(), room.keys.to_string());
    [op.into(), key.into(), value, ttl.into(), bytes.into(), keys.into()]
}

/// Of an operation that adds nothing.
const NO_ROOM: Room = Room { keys: 0, bytes: 0 };

impl KeyvalueStore for RedisKeyvalue {
    fn get<'a>(&'a self, of: &'a Namespace, key: &'a str) -> Stored<'a, Option<Vec<u8>>> {
        Box::pin(async move {
            match self.run(of, arguments("get", key, Vec::new(), None, NO_ROOM)).await? {
                Answer::Value(value) => Ok(Some(value)),
                Answer::None => Ok(None),
                Answer::Ok => Err(KeyvalueError::Unavailable),
            }
        })
    }

    fn set<'a>(
        &'a self,
        of: &'a Namespace,
        key: &'a str,
        value: Vec<u8>,
        ttl_ms: Option<u64>,
        room: Room,
    ) -> Stored<'a, ()> {
        Box::pin(
            async move { self.run(of, arguments("set", key, value, ttl_ms, room)).await.map(drop) },
        )
    }

    fn delete<'a>(&'a self, of: &'a Namespace, key: &'a str) -> Stored<'a, ()> {
        Box::pin(async move {
            self.run(of, arguments("delete", key, Vec::new(), None, NO_ROOM)).await.map(drop)
        })
    }

    fn increment<'a>(
        &'a self,
        of: &'a Namespace,
        key: &'a str,
        delta: i64,
        ttl_ms: Option<u64>,
        room: Room,
    ) -> Stored<'a, i64> {
        Box::pin(async move {
            let delta = delta.to_string().into_bytes();
            match self.run(of, arguments("add", key, delta, ttl_ms, room)).await? {
                Answer::Value(sum) => std::str::from_utf8(&sum)
                    .ok()
                    .and_then(|sum| sum.parse().ok())
                    .ok_or(KeyvalueError::NotANumber),
                Answer::None | Answer::Ok => Err(KeyvalueError::Unavailable),
            }
        })
    }
}

impl fmt::Debug for RedisKeyvalue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedisKeyvalue").field(&self.servers).finish()
    }
}

#[cfg(test)]
mod tests;
