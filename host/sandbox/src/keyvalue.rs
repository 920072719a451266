//! Key-value data of policies: kept here where this process is alone, else where `data` is
//! told to.
//!
//! Called by host functions of a running policy; never blocks beyond a short lock of one
//! shard. What is kept here is lost at restart. Invariant: an entry is reachable only through the namespace
//! that it was written in, and every namespace and the whole are bounded in bytes.

mod data;
mod space;

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use model::{
    keyvalue::{KeyvalueError, Namespace, Room},
    tenant::TenantId,
};

pub(crate) use self::data::{Data, Own};
use self::space::Space;

/// Locks that the namespaces are spread over.
const SHARDS: usize = 64;

type Shard = HashMap<Namespace, Space>;

/// The data of every tenant and policy.
#[derive(Debug)]
pub(crate) struct Keyvalue {
    bytes_max: usize,
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
    bytes: AtomicUsize,
}

impl Keyvalue {
    /// Of `bytes_max` bytes in all.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            bytes: AtomicUsize::new(0),
        }
    }

    /// The value of a key that has not run out.
    pub(crate) fn get(&self, namespace: &Namespace, key: &str, now_ms: u64) -> Option<Vec<u8>> {
        let shard = self.shard(namespace);
        let value = shard.get(namespace).and_then(|space| space.get(key, now_ms));
        value.map(<[u8]>::to_vec)
    }

    /// Writes a key; `ttl_ms` from now, for ever without one.
    pub(crate) fn set(
        &self,
        namespace: &Namespace,
        key: &str,
        value: Vec<u8>,
        ttl_ms: Option<u64>,
        (room, now_ms): (Room, u64),
    ) -> Result<(), KeyvalueError> {
        let ends = ttl_ms.map(|ttl| now_ms.saturating_add(ttl));
        let mut shard = self.shard(namespace);
        self.put(&mut shard, namespace, key, (value, ends), (room, now_ms))
    }

    /// Removes a key.
    pub(crate) fn delete(&self, namespace: &Namespace, key: &str) {
        let mut shard = self.shard(namespace);
        let Some(space) = shard.get_mut(namespace) else { return };
        self.bytes.fetch_sub(space.remove(key), Ordering::Relaxed);
        if space.is_empty() {
            shard.remove(namespace);
        }
    }

    /// Adds to a number kept as decimal text; a missing key counts as 0 and gets the time
    /// to live.
    pub(crate) fn increment(
        &self,
        namespace: &Namespace,
        key: &str,
        delta: i64,
        ttl_ms: Option<u64>,
        (room, now_ms): (Room, u64),
    ) -> Result<i64, KeyvalueError> {
        let mut shard = self.shard(namespace);
        let space = shard.get(namespace);
        let (number, ends) = match space.and_then(|space| space.entry(key, now_ms)) {
            Some((value, ends)) => (number(value)?, ends),
            None => (0, ttl_ms.map(|ttl| now_ms.saturating_add(ttl))),
        };
        let sum = number.checked_add(delta).ok_or(KeyvalueError::Overflow)?;
        let text = sum.to_string().into_bytes();
        self.put(&mut shard, namespace, key, (text, ends), (room, now_ms))?;
        Ok(sum)
    }

    /// Forgets everything of a tenant.
    pub(crate) fn erase(&self, tenant: TenantId) {
        for shard in &self.shards {
            lock(shard).retain(|namespace, space| {
                let stays = namespace.tenant != tenant;
                if !stays {
                    self.bytes.fetch_sub(space.bytes(), Ordering::Relaxed);
                }
                stays
            });
        }
    }

    fn put(
        &self,
        shard: &mut Shard,
        namespace: &Namespace,
        key: &str,
        (value, ends_ms): (Vec<u8>, Option<u64>),
        (room, now_ms): (Room, u64),
    ) -> Result<(), KeyvalueError> {
        let space = shard.entry(namespace.clone()).or_default();
        if !self.fits(space, key, &value, room) {
            self.bytes.fetch_sub(space.purge(now_ms), Ordering::Relaxed);
        }
        if !self.fits(space, key, &value, room) {
            if space.is_empty() {
                shard.remove(namespace);
            }
            return Err(KeyvalueError::QuotaExceeded);
        }
        let before = space.bytes();
        space.put(key, value, ends_ms);
        self.bytes.fetch_add(space.bytes(), Ordering::Relaxed);
        self.bytes.fetch_sub(before, Ordering::Relaxed);
        Ok(())
    }

    /// Whether an entry has room: in its namespace and, but for writers of other shards at
    /// this very moment, in the whole.
    fn fits(&self, space: &Space, key: &str, value: &[u8], room: Room) -> bool {
        let growth = Space::cost(key, value).saturating_sub(space.cost_of(key));
        space.bytes() + growth <= room.bytes
            && (space.len() < room.keys || space.contains(key))
            && self.bytes.load(Ordering::Relaxed) + growth <= self.bytes_max
    }

    #[expect(clippy::indexing_slicing, reason = "the index is taken modulo the length")]
    fn shard(&self, namespace: &Namespace) -> MutexGuard<'_, Shard> {
        let hash = self.hasher.hash_one(namespace);
        lock(&self.shards[usize::try_from(hash % SHARDS as u64).unwrap_or(0)])
    }
}

/// A panic while the lock was held leaves the map itself sound.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn number(value: &[u8]) -> Result<i64, KeyvalueError> {
    std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(KeyvalueError::NotANumber)
}

#[cfg(test)]
mod tests;
