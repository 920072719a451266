//! The entries of one namespace, with their bytes counted.
//!
//! Invariant: `bytes` is the sum of [`Space::cost`] over the entries that are present,
//! expired ones included until they are purged.

use std::collections::HashMap;

use model::keyvalue::ENTRY_BYTES;

#[derive(Debug)]
struct Entry {
    value: Box<[u8]>,
    ends_ms: Option<u64>,
}

impl Entry {
    fn lives(&self, now_ms: u64) -> bool {
        self.ends_ms.is_none_or(|ends| now_ms < ends)
    }
}

/// The entries of one tenant and policy.
#[derive(Debug, Default)]
pub(super) struct Space {
    entries: HashMap<Box<str>, Entry>,
    bytes: usize,
}

impl Space {
    /// What an entry counts.
    pub(super) const fn cost(key: &str, value: &[u8]) -> usize {
        key.len() + value.len() + ENTRY_BYTES
    }

    /// What the present entry of a key counts; 0 without one.
    pub(super) fn cost_of(&self, key: &str) -> usize {
        self.entries.get(key).map_or(0, |entry| Self::cost(key, &entry.value))
    }

    pub(super) fn get(&self, key: &str, now_ms: u64) -> Option<&[u8]> {
        self.entry(key, now_ms).map(|(value, _)| value)
    }

    /// The value of a living entry and when it ends.
    pub(super) fn entry(&self, key: &str, now_ms: u64) -> Option<(&[u8], Option<u64>)> {
        let entry = self.entries.get(key).filter(|entry| entry.lives(now_ms))?;
        Some((&entry.value, entry.ends_ms))
    }

    /// Writes an entry.
    pub(super) fn put(&mut self, key: &str, value: Vec<u8>, ends_ms: Option<u64>) {
        self.bytes = self.bytes - self.cost_of(key) + Self::cost(key, &value);
        let entry = Entry { value: value.into(), ends_ms };
        match self.entries.get_mut(key) {
            Some(present) => *present = entry,
            None => {
                self.entries.insert(key.into(), entry);
            }
        }
    }

    /// Removes an entry; the bytes it counted.
    pub(super) fn remove(&mut self, key: &str) -> usize {
        let freed = self.cost_of(key);
        self.entries.remove(key);
        self.bytes -= freed;
        freed
    }

    /// Removes what has run out; the bytes it counted.
    pub(super) fn purge(&mut self, now_ms: u64) -> usize {
        let before = self.bytes;
        self.entries.retain(|key, entry| {
            let lives = entry.lives(now_ms);
            if !lives {
                self.bytes -= Self::cost(key, &entry.value);
            }
            lives
        });
        before - self.bytes
    }

    pub(super) fn contains(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}
