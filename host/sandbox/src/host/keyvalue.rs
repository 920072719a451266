//! `leanvibe:policy/keyvalue`: data of one tenant and policy.
//!
//! Asynchronous in the bindings, so that a store over the network can take the place of
//! the one in this process. Invariant: the namespace is made from the exchange and the
//! binding; nothing the guest passes reaches it.

use crate::{
    bindings::leanvibe::policy::keyvalue::{Error, Host},
    keyvalue::{KeyvalueError, Namespace},
    limits::Capability,
    state::State,
};

impl From<KeyvalueError> for Error {
    fn from(error: KeyvalueError) -> Self {
        match error {
            KeyvalueError::QuotaExceeded => Self::QuotaExceeded,
            other => Self::Other(Some(other.to_string())),
        }
    }
}

impl State {
    /// The namespace of the call; none outside a hook, where there is no tenant.
    fn namespace(&mut self) -> wasmtime::Result<Result<Namespace, Error>> {
        self.charge()?;
        if !self.context.grants.has(Capability::Keyvalue) {
            return Ok(Err(Error::AccessDenied));
        }
        Ok(self.call.as_ref().ok_or(Error::Unavailable).map(|call| Namespace {
            tenant: call.exchange.tenant.id(),
            policy: self.context.policy.clone(),
        }))
    }

    fn now_ms(&self) -> u64 {
        self.context.services.clock.monotonic_ms()
    }
}

impl Host for State {
    async fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<Vec<u8>>, Error>> {
        let now = self.now_ms();
        Ok(self
            .namespace()?
            .and_then(|namespace| Ok(self.context.services.keyvalue.get(&namespace, &key, now)?)))
    }

    async fn set(
        &mut self,
        key: String,
        value: Vec<u8>,
        ttl_ms: Option<u64>,
    ) -> wasmtime::Result<Result<(), Error>> {
        let now = self.now_ms();
        Ok(self.namespace()?.and_then(|namespace| {
            Ok(self.context.services.keyvalue.set(&namespace, &key, value, ttl_ms, now)?)
        }))
    }

    async fn delete(&mut self, key: String) -> wasmtime::Result<Result<(), Error>> {
        Ok(self.namespace()?.map(|namespace| {
            self.context.services.keyvalue.delete(&namespace, &key);
        }))
    }

    async fn increment(
        &mut self,
        key: String,
        delta: i64,
        ttl_ms: Option<u64>,
    ) -> wasmtime::Result<Result<i64, Error>> {
        let now = self.now_ms();
        Ok(self.namespace()?.and_then(|namespace| {
            Ok(self.context.services.keyvalue.increment(&namespace, &key, delta, ttl_ms, now)?)
        }))
    }
}
