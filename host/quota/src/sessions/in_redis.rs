//! The registry in Redis, for any number of edges: one sorted set per tenant, changed by
//! one script (`sessions.lua`).
//!
//! Redis may lose its memory, so a set counts only under a guard: a key bound to the life
//! and history of the server (the fence), recorded by the authority. Invariant: the first
//! guard that a family ever has holds at once; every later one admits renewals only, until
//! each session that may have been lost with the old set is back or closed. A message is
//! sent once: an answer that did not come means "nobody knows".

use std::{sync::Arc, time::Duration};

use ::redis::{Script, Value};
use model::{
    BoxFuture,
    sessions::{GUARD_HOLD_MS, GuardRecord, GuardStore, Member, SessionId, TTL_MS},
    tenant::TenantId,
};
use tokio::time::sleep;

use super::registry::{Admission, Registry, Terms, Unreachable};
use crate::redis::Servers;

/// Attempts of one call to find a guard (3): one that misses it, one after somebody else
/// made it, one after making it oneself.
const ATTEMPTS: usize = 3;
/// Milliseconds in which the winner of a guard's record has put it in place (100): two
/// round trips.
const WINNER_MS: u64 = 100;

/// What a server answers that has become a replica.
const NOT_MASTER: &str = "NOTMASTER";

/// Runs a script where its keys live, within a time limit. All keys are of one slot.
pub(crate) trait Scripts: Send + Sync {
    /// A script in the form in which it is sent.
    fn script(&self, text: &str) -> Script {
        Script::new(text)
    }

    /// Sends it at most once.
    fn run<'a>(
        &'a self,
        script: &'a Script,
        keys: &'a [&'a str],
        arguments: &'a [String],
    ) -> BoxFuture<'a, Result<Value, Unreachable>>;
}

impl Scripts for Servers {
    fn script(&self, text: &str) -> Script {
        self.script(text)
    }

    fn run<'a>(
        &'a self,
        script: &'a Script,
        keys: &'a [&'a str],
        arguments: &'a [String],
    ) -> BoxFuture<'a, Result<Value, Unreachable>> {
        Box::pin(async move {
            let (link, value) = self.run(script, keys, arguments).await.map_err(|error| {
                tracing::debug!(%error, "a script of sessions has no answer");
                Unreachable
            })?;
            if word(&value) == Some(NOT_MASTER) {
                link.give_up("it is no master any more");
            }
            Ok(value)
        })
    }
}

/// The registry of a Redis.
#[derive(Clone)]
pub(crate) struct InRedis {
    scripts: Arc<dyn Scripts>,
    guards: Arc<dyn GuardStore>,
    script: Arc<Script>,
    ttl_ms: u64,
    hold_ms: u64,
}

/// What the script answered: a word, then numbers or texts.
struct Answer {
    word: String,
    rest: Vec<Value>,
}

impl Answer {
    fn read(value: Value) -> Option<Self> {
        let word = word(&value)?.to_owned();
        let Value::Array(parts) = value else { return None };
        Some(Self { word, rest: parts.into_iter().skip(1).collect() })
    }

    fn number(&self, index: usize) -> Option<u64> {
        match self.rest.get(index)? {
            Value::Int(number) => u64::try_from(*number).ok(),
            other => text(other)?.parse().ok(),
        }
    }
}

/// The word of an answer.
fn word(value: &Value) -> Option<&str> {
    let Value::Array(parts) = value else { return None };
    parts.first().and_then(text)
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

/// The name of a session there.
fn hex(id: SessionId) -> String {
    id.as_bytes().iter().fold(String::with_capacity(32), |mut name, byte| {
        name.extend(
            [byte >> 4, byte & 15].into_iter().filter_map(|n| char::from_digit(n.into(), 16)),
        );
        name
    })
}

impl InRedis {
    pub(crate) fn new(scripts: Arc<dyn Scripts>, guards: Arc<dyn GuardStore>) -> Self {
        let script = Arc::new(scripts.script(include_str!("sessions.lua")));
        Self { scripts, guards, script, ttl_ms: TTL_MS, hold_ms: GUARD_HOLD_MS }
    }

    /// The same with other times, for tests that cannot move the clock of a Redis.
    #[cfg(test)]
    pub(crate) fn with_times(mut self, ttl_ms: u64, hold_ms: u64) -> Self {
        (self.ttl_ms, self.hold_ms) = (ttl_ms, hold_ms);
        self
    }

    async fn run(
        &self,
        tenant: TenantId,
        operation: &str,
        rest: Vec<String>,
    ) -> Result<Answer, Unreachable> {
        // The family's slot; a tenant is its own family as long as no pool counts sessions.
        let live = format!("s:{{{tenant}}}:{tenant}", tenant = tenant.0);
        let (order, gone) = (format!("{live}:order"), format!("{live}:gone"));
        let guard = format!("s:{{{}}}:guard", tenant.0);
        let mut arguments = vec![operation.to_owned(), self.ttl_ms.to_string()];
        arguments.extend(rest);
        let keys = [live.as_str(), order.as_str(), gone.as_str(), guard.as_str()];
        let value = self.scripts.run(&self.script, &keys, &arguments).await?;
        Answer::read(value).ok_or(Unreachable)
    }

    /// Runs an operation, and makes the guard where there is none.
    async fn call(
        &self,
        tenant: TenantId,
        operation: &str,
        rest: Vec<String>,
    ) -> Result<Answer, Unreachable> {
        let mut known = 0;
        for _ in 0..ATTEMPTS {
            let answer = self.run(tenant, operation, rest.clone()).await?;
            match answer.word.as_str() {
                "OK" | "PRESENT" | "FULL" | "HELD" => return Ok(answer),
                "NOGUARD" => {
                    let fence = answer.rest.first().and_then(text).ok_or(Unreachable)?.to_owned();
                    let missed_at = answer.number(1).ok_or(Unreachable)?;
                    let this = self.clone();
                    // Goes on when the caller does not wait: a recorded guard that is never
                    // put in place costs the next one its hold.
                    let made =
                        tokio::spawn(
                            async move { this.guard(tenant, fence, missed_at, known).await },
                        );
                    known = made.await.map_err(|_| Unreachable)??;
                }
                _ => return Err(Unreachable),
            }
        }
        Err(Unreachable)
    }

    /// Records a guard and puts it in place, or leaves that to who was faster. Answers the
    /// number of the latest that is recorded.
    async fn guard(
        &self,
        tenant: TenantId,
        fence: String,
        missed_at: u64,
        known: u64,
    ) -> Result<u64, Unreachable> {
        let recorded = self.guards.record_guard(tenant, fence.clone(), known).await;
        match recorded.map_err(|_| Unreachable)? {
            GuardRecord::Recorded { number } => {
                let hold_ms = if number == 1 { 0 } else { self.hold_ms };
                tracing::info!(%tenant, number, "a new guard of sessions");
                let rest = vec![fence, missed_at.to_string(), hold_ms.to_string()];
                self.run(tenant, "guard", rest).await?;
                Ok(number)
            }
            GuardRecord::Lost { number } => {
                sleep(Duration::from_millis(WINNER_MS)).await;
                Ok(number)
            }
        }
    }

    async fn admit_now(&self, member: Member, terms: Terms) -> Result<Admission, Unreachable> {
        let evict = u8::from(terms.evict_oldest).to_string();
        let rest = vec![terms.limit.to_string(), evict, hex(member.id)];
        let answer = self.call(member.tenant, "admit", rest).await?;
        match answer.word.as_str() {
            "OK" => Ok(Admission::Admitted),
            "PRESENT" => Ok(Admission::Present),
            "FULL" => Ok(Admission::Full),
            _ => Ok(Admission::Held { ms: answer.number(0).ok_or(Unreachable)? }),
        }
    }

    async fn renew_now(
        &self,
        tenant: TenantId,
        limit: u64,
        ids: Vec<SessionId>,
    ) -> Result<Vec<bool>, Unreachable> {
        let mut rest = vec![limit.to_string()];
        rest.extend(ids.iter().copied().map(hex));
        let answer = self.call(tenant, "renew", rest).await?;
        let counts = |index| answer.number(index).map(|counts| counts == 1);
        (0..ids.len()).map(counts).collect::<Option<_>>().ok_or(Unreachable)
    }
}

impl Registry for InRedis {
    fn admit(&self, member: Member, terms: Terms) -> BoxFuture<'_, Result<Admission, Unreachable>> {
        Box::pin(self.admit_now(member, terms))
    }

    fn renew(
        &self,
        tenant: TenantId,
        limit: u64,
        ids: Vec<SessionId>,
    ) -> BoxFuture<'_, Result<Vec<bool>, Unreachable>> {
        Box::pin(self.renew_now(tenant, limit, ids))
    }

    fn end(&self, member: Member) -> BoxFuture<'_, Result<(), Unreachable>> {
        Box::pin(async move {
            // Without a guard there is nothing to end.
            self.run(member.tenant, "end", vec![hex(member.id)]).await.map(drop)
        })
    }

    fn count(&self, tenant: TenantId) -> BoxFuture<'_, Result<u64, Unreachable>> {
        Box::pin(async move {
            let answer = self.run(tenant, "count", Vec::new()).await?;
            answer.number(0).filter(|_| answer.word == "OK").ok_or(Unreachable)
        })
    }
}
