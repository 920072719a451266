//! Where the data is, and the sizes that hold in either place.
//!
//! Invariant: no key or value beyond the configured size reaches a store.

use std::sync::Arc;

use model::keyvalue::{KeyvalueError, KeyvalueStore, Namespace, Room};

use super::Keyvalue;
use crate::config::KeyvalueConfig;

/// The data of every tenant and policy.
#[derive(Debug)]
pub(crate) struct Data {
    config: KeyvalueConfig,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Here(Keyvalue),
    Shared(Arc<dyn KeyvalueStore>),
}

/// One policy's data for one tenant, during one call.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) namespace: Namespace,
    /// Bytes that there is room for.
    pub(crate) bytes: usize,
    pub(crate) now_ms: u64,
}

impl Data {
    /// Shared with other edges, or in this process.
    pub(crate) fn new(config: KeyvalueConfig, shared: Option<Arc<dyn KeyvalueStore>>) -> Self {
        let here = || Place::Here(Keyvalue::new(config.bytes_max));
        Self { place: shared.map_or_else(here, Place::Shared), config }
    }

    /// What is kept in this process.
    pub(crate) const fn here(&self) -> Option<&Keyvalue> {
        match &self.place {
            Place::Here(data) => Some(data),
            Place::Shared(_) => None,
        }
    }

    pub(crate) async fn get(&self, own: &Own, key: &str) -> Result<Option<Vec<u8>>, KeyvalueError> {
        self.check_key(key)?;
        match &self.place {
            Place::Here(data) => Ok(data.get(&own.namespace, key, own.now_ms)),
            Place::Shared(store) => store.get(&own.namespace, key).await,
        }
    }

    pub(crate) async fn set(
        &self,
        own: &Own,
        key: &str,
        value: Vec<u8>,
        ttl_ms: Option<u64>,
    ) -> Result<(), KeyvalueError> {
        self.check_key(key)?;
        if value.len() > self.config.value_bytes_max {
            return Err(KeyvalueError::Value(self.config.value_bytes_max));
        }
        let (of, room) = (&own.namespace, self.room(own));
        match &self.place {
            Place::Here(data) => data.set(of, key, value, ttl_ms, (room, own.now_ms)),
            Place::Shared(store) => store.set(of, key, value, ttl_ms, room).await,
        }
    }

    pub(crate) async fn delete(&self, own: &Own, key: &str) -> Result<(), KeyvalueError> {
        self.check_key(key)?;
        match &self.place {
            Place::Here(data) => {
                data.delete(&own.namespace, key);
                Ok(())
            }
            Place::Shared(store) => store.delete(&own.namespace, key).await,
        }
    }

    pub(crate) async fn increment(
        &self,
        own: &Own,
        key: &str,
        delta: i64,
        ttl_ms: Option<u64>,
    ) -> Result<i64, KeyvalueError> {
        self.check_key(key)?;
        let (of, room) = (&own.namespace, self.room(own));
        match &self.place {
            Place::Here(data) => data.increment(of, key, delta, ttl_ms, (room, own.now_ms)),
            Place::Shared(store) => store.increment(of, key, delta, ttl_ms, room).await,
        }
    }

    fn room(&self, own: &Own) -> Room {
        Room { keys: self.config.keys_max, bytes: own.bytes }
    }

    fn check_key(&self, key: &str) -> Result<(), KeyvalueError> {
        if key.is_empty() || key.len() > self.config.key_bytes_max {
            return Err(KeyvalueError::Key(self.config.key_bytes_max));
        }
        Ok(())
    }
}
