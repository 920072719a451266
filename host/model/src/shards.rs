//! A map whose next version shares with the last one whatever did not change.
//!
//! Holds the tenants of a directory and of a snapshot: a change copies the shards it
//! touches and counts the others, so that it costs the same with a hundred thousand
//! tenants as with ten; a look-up hashes once and looks in one table. Every request looks
//! up, publishing changes. Invariant: a clone never sees what is changed after it, and all
//! maps of a process hash alike, so that two versions can be compared shard by shard.

use std::{
    fmt,
    hash::{BuildHasher, Hash, RandomState},
    sync::{Arc, LazyLock},
};

use hashbrown::HashTable;

/// Parts of a map, a power of two: of 100,000 tenants a change copies about 100, and
/// counts 1,024 that it shares.
const SHARDS: usize = 1_024;
/// Which bits of a hash choose the shard; a table uses the lowest and the highest ones.
const SHARD_SHIFT: u32 = 40;

/// Random for each process, so that no tenant can choose names that fall together.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Something that is found by a part of itself.
pub trait Keyed: Clone {
    /// What it is found by.
    type Key: Hash + Eq + ?Sized;

    /// Its key, which never changes.
    fn key(&self) -> &Self::Key;

    /// Whether it is the very thing that `other` is.
    fn is_same(&self, other: &Self) -> bool;
}

/// The map.
pub struct Shards<T> {
    shards: Box<[Arc<HashTable<T>>]>,
    len: usize,
}

/// What makes one version of a map of another.
#[derive(Debug)]
pub struct Changes<T> {
    /// What is new, or in the place of something else.
    pub put: Vec<T>,
    /// What is no longer there.
    pub gone: Vec<T>,
}

impl<T: Keyed> Shards<T> {
    /// What has this key.
    #[must_use]
    pub fn find(&self, key: &T::Key) -> Option<&T> {
        let hash = HASHER.hash_one(key);
        self.shards.get(shard_of(hash))?.find(hash, |held| held.key() == key)
    }

    /// Puts `item` in, in the place of what has its key.
    pub fn insert(&mut self, item: T) {
        let hash = hash_of(&item);
        let Some(shard) = self.shards.get_mut(shard_of(hash)) else { return };
        let shard = Arc::make_mut(shard);
        match shard.find_mut(hash, |held| held.key() == item.key()) {
            Some(held) => *held = item,
            None => {
                shard.insert_unique(hash, item, hash_of);
                self.len += 1;
            }
        }
    }

    /// Takes out what has this key.
    pub fn remove(&mut self, key: &T::Key) -> Option<T> {
        // A shard that does not have it is not copied.
        self.find(key)?;
        let hash = HASHER.hash_one(key);
        let shard = Arc::make_mut(self.shards.get_mut(shard_of(hash))?);
        let found = shard.find_entry(hash, |held| held.key() == key).ok()?;
        self.len -= 1;
        Some(found.remove().0)
    }

    /// What became of `before` to make it this one: as long as the two have most shards in
    /// common, only the others are looked at.
    #[must_use]
    pub fn changes_since(&self, before: &Self) -> Changes<T> {
        let mut changes = Changes { put: Vec::new(), gone: Vec::new() };
        let pairs = self.shards.iter().zip(&before.shards);
        for (now, before) in pairs.filter(|(now, before)| !Arc::ptr_eq(now, before)) {
            let is_there = |item: &&T| find(before, *item).is_some_and(|held| held.is_same(item));
            changes.put.extend(now.iter().filter(|item| !is_there(item)).cloned());
            changes.gone.extend(before.iter().filter(|held| find(now, *held).is_none()).cloned());
        }
        changes
    }
}

impl<T> Shards<T> {
    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }
}

impl<T> Default for Shards<T> {
    fn default() -> Self {
        let empty = Arc::new(HashTable::new());
        Self { shards: vec![empty; SHARDS].into(), len: 0 }
    }
}

impl<T> Clone for Shards<T> {
    fn clone(&self) -> Self {
        Self { shards: self.shards.clone(), len: self.len }
    }
}

impl<T: Keyed> FromIterator<T> for Shards<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut shards = Self::default();
        items.into_iter().for_each(|item| shards.insert(item));
        shards
    }
}

impl<T> fmt::Debug for Shards<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shards").field("len", &self.len).finish_non_exhaustive()
    }
}

fn find<'a, T: Keyed>(shard: &'a HashTable<T>, like: &T) -> Option<&'a T> {
    shard.find(hash_of(like), |held| held.key() == like.key())
}

fn hash_of<T: Keyed>(item: &T) -> u64 {
    HASHER.hash_one(item.key())
}

const fn shard_of(hash: u64) -> usize {
    (hash >> SHARD_SHIFT) as usize & (SHARDS - 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Item {
        key: u16,
        value: Arc<u32>,
    }

    impl Keyed for Item {
        type Key = u16;
        fn key(&self) -> &u16 {
            &self.key
        }
        fn is_same(&self, other: &Self) -> bool {
            Arc::ptr_eq(&self.value, &other.value)
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u16, u32),
        Remove(u16),
        Remember,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0_u16..300, any::<u32>()).prop_map(|(key, value)| Step::Insert(key, value)),
            3 => (0_u16..300).prop_map(Step::Remove),
            1 => Just(Step::Remember),
        ]
    }

    fn shape(map: &Shards<Item>) -> BTreeMap<u16, u32> {
        map.iter().map(|item| (item.key, *item.value)).collect()
    }

    proptest! {
        #[test]
        fn it_is_a_map_and_a_clone_keeps_what_it_was(steps in vec(step(), 0..400)) {
            let mut map = Shards::default();
            let mut model = BTreeMap::new();
            let mut remembered = vec![(map.clone(), model.clone())];
            for step in steps {
                match step {
                    Step::Insert(key, value) => {
                        map.insert(Item { key, value: Arc::new(value) });
                        model.insert(key, value);
                    }
                    Step::Remove(key) => {
                        let removed = map.remove(&key).map(|item| *item.value);
                        prop_assert_eq!(removed, model.remove(&key));
                    }
                    Step::Remember => remembered.push((map.clone(), model.clone())),
                }
            }
            prop_assert_eq!(map.len(), model.len());
            for key in 0..300 {
                prop_assert_eq!(map.find(&key).map(|item| *item.value), model.get(&key).copied());
            }
            for (mut then, model) in remembered {
                prop_assert_eq!(shape(&then), model);
                let changes = map.changes_since(&then);
                for gone in &changes.gone {
                    prop_assert!(then.remove(&gone.key).is_some(), "gone, and was never there");
                }
                changes.put.into_iter().for_each(|item| then.insert(item));
                prop_assert_eq!(shape(&then), shape(&map));
            }
        }
    }

    #[test]
    fn only_what_changed_is_a_change() {
        let before: Shards<Item> =
            (0..10_000).map(|key| Item { key, value: Arc::new(u32::from(key)) }).collect();
        let mut after = before.clone();
        after.insert(Item { key: 7, value: Arc::new(7) });
        after.remove(&9_999);
        let changes = after.changes_since(&before);
        assert_eq!(changes.put.iter().map(|item| item.key).collect::<Vec<_>>(), [7]);
        assert_eq!(changes.gone.iter().map(|item| item.key).collect::<Vec<_>>(), [9_999]);
        let shared = after.shards.iter().zip(&before.shards);
        let copied = shared.filter(|(now, then)| !Arc::ptr_eq(now, then)).count();
        assert!(copied <= 2, "{copied} shards of {SHARDS} were copied");
    }
}
