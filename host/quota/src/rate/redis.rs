//! The store of the rates in Redis.
//!
//! Invariant: a question is sent at most once; whatever fails is "away".

use std::sync::Arc;

use model::BoxFuture;
use redis::{Script, Value};

use super::{RATE_SCRIPT, RateAsk, RateLoan, RateStore, RateStoreAway};
use crate::redis::Servers;

/// Buckets in Redis.
pub(crate) struct RedisRates {
    servers: Arc<Servers>,
    script: Script,
}

impl RedisRates {
    pub(crate) fn new(servers: Arc<Servers>) -> Self {
        Self { servers, script: Script::new(RATE_SCRIPT) }
    }

    async fn run(&self, ask: &RateAsk) -> Option<RateLoan> {
        let keys = ask.keys.each_ref().map(|key| &**key);
        let arguments = ask.arguments.each_ref().map(|argument| argument.to_string());
        let (_, answer) = self.servers.run(&self.script, &keys, &arguments).await.ok()?;
        let Value::Array(items) = answer else { return None };
        let number = |item: &Value| match item {
            Value::Int(number) => Some(*number),
            _ => None,
        };
        let numbers: Vec<i64> = items.iter().map(number).collect::<Option<_>>()?;
        RateLoan::from_answer(&numbers)
    }
}

impl RateStore for RedisRates {
    fn ask(&self, ask: RateAsk) -> BoxFuture<'_, Result<RateLoan, RateStoreAway>> {
        Box::pin(async move { self.run(&ask).await.ok_or(RateStoreAway) })
    }
}
