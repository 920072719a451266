//! `leanvibe:policy/keyvalue`: data of one tenant and policy.
//!
//! In this process, or in a store that edges share; then a call waits for it. Invariant: the
//! namespace is made from the exchange and the binding; nothing the guest passes reaches it.

use model::keyvalue::{KeyvalueError, Namespace};

use crate::{
    bindings::leanvibe::policy::keyvalue::{Error, Host},
    keyvalue::Own,
    limits::Capability,
    state::State,
};

impl From<KeyvalueError> for Error {
    fn from(error: KeyvalueError) -> Self {
        match error {
            KeyvalueError::QuotaExceeded => Self::QuotaExceeded,
            KeyvalueError::Unavailable => Self::Unavailable,
            KeyvalueError::Key(_)
            | KeyvalueError::Value(_)
            | KeyvalueError::NotANumber
            | KeyvalueError::Overflow => Self::Other(Some(error.to_string())),
        }
    }
}

impl State {
    /// The data of the call; none outside a hook, where there is no tenant.
    fn own_data(&mut self) -> wasmtime::Result<Result<Own, Error>> {
        self.charge()?;
        let context = &self.context;
        if !context.grants.has(Capability::Keyvalue) {
            return Ok(Err(Error::AccessDenied));
        }
        Ok(self.call.as_ref().ok_or(Error::Unavailable).map(|call| Own {
            namespace: Namespace {
                tenant: call.exchange.tenant.id(),
                policy: context.policy.clone(),
            },
            bytes: context.limits.keyvalue_bytes,
            now_ms: context.services.clock.monotonic_ms(),
        }))
    }
}

impl Host for State {
    async fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<Vec<u8>>, Error>> {
        Ok(match self.own_data()? {
            Ok(own) => self.context.services.keyvalue.get(&own, &key).await,
            Err(error) => return Ok(Err(error)),
        }
        .map_err(Error::from))
    }

    async fn set(
        &mut self,
        key: String,
        value: Vec<u8>,
        ttl_ms: Option<u64>,
    ) -> wasmtime::Result<Result<(), Error>> {
        Ok(match self.own_data()? {
            Ok(own) => self.context.services.keyvalue.set(&own, &key, value, ttl_ms).await,
            Err(error) => return Ok(Err(error)),
        }
        .map_err(Error::from))
    }

    async fn delete(&mut self, key: String) -> wasmtime::Result<Result<(), Error>> {
        Ok(match self.own_data()? {
            Ok(own) => self.context.services.keyvalue.delete(&own, &key).await,
            Err(error) => return Ok(Err(error)),
        }
        .map_err(Error::from))
    }

    async fn increment(
        &mut self,
        key: String,
        delta: i64,
        ttl_ms: Option<u64>,
    ) -> wasmtime::Result<Result<i64, Error>> {
        Ok(match self.own_data()? {
            Ok(own) => self.context.services.keyvalue.increment(&own, &key, delta, ttl_ms).await,
            Err(error) => return Ok(Err(error)),
        }
        .map_err(Error::from))
    }
}
