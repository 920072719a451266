//! The buckets of the keys that policies count, by tenant and policy.
//!
//! A policy makes keys as it likes (an address, a subject), so their number is bounded per
//! tenant and policy: then those that are full again go first, which loses nothing, and
//! after them the one that would be full soonest. Invariant: nobody's keys make those of
//! another tenant or policy go.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, PoisonError},
};

use model::{limiter::NamedKey, tenant::TenantId};

use super::bucket::KeyBucket;

/// Locks that the namespaces are spread over.
const SHARDS: usize = 32;
/// Keys of one tenant and policy: about 3 MB of them.
const KEYS_MAX: usize = 10_000;
/// Keys that go at once when none is full: so a flood pays for a look at all of them only
/// now and then.
const DROPPED: usize = KEYS_MAX / 16;
/// Keys from which on those that are full are looked for, whenever their number has doubled.
const SWEEP_FROM: usize = 64;

/// Whose keys: a tenant's, in one policy.
type Namespace = (TenantId, Box<str>);

/// All of them.
#[derive(Default)]
pub(crate) struct Keys {
    shards: [Mutex<HashMap<Namespace, Space>>; SHARDS],
    hasher: RandomState,
}

#[derive(Default)]
struct Space {
    /// By limit and key.
    buckets: HashMap<(Box<str>, Box<str>), Arc<KeyBucket>>,
    sweep_at: usize,
}

impl Keys {
    /// The bucket of a key, made when there is none.
    pub(crate) fn find(
        &self,
        tenant: TenantId,
        key: NamedKey<'_>,
        now_ms: u64,
        new: impl FnOnce() -> KeyBucket,
    ) -> Arc<KeyBucket> {
        let namespace: Namespace = (tenant, key.policy.into());
        let index = usize::try_from(self.hasher.hash_one(&namespace)).unwrap_or(0);
        let Some(shard) = self.shards.get(index % SHARDS) else { return Arc::new(new()) };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let space = shard.entry(namespace).or_default();
        let name: (Box<str>, Box<str>) = (key.limit.into(), key.key.into());
        if let Some(bucket) = space.buckets.get(&name) {
            return Arc::clone(bucket);
        }
        space.make_room(now_ms);
        let bucket = Arc::new(new());
        space.buckets.insert(name, Arc::clone(&bucket));
        bucket
    }
}

impl Space {
    fn make_room(&mut self, now_ms: u64) {
        if self.buckets.len() < self.sweep_at.max(SWEEP_FROM) {
            return;
        }
        self.buckets.retain(|_, bucket| bucket.idle_at_ms() > now_ms);
        if self.buckets.len() >= KEYS_MAX {
            self.drop_soonest();
        }
        self.sweep_at = (self.buckets.len() * 2).min(KEYS_MAX);
    }
}

impl Space {
    /// Drops a share of the keys, those that would be full soonest.
    fn drop_soonest(&mut self) {
        let mut full_at: Vec<u64> = self.buckets.values().map(|held| held.idle_at_ms()).collect();
        let (_, last, _) = full_at.select_nth_unstable(DROPPED - 1);
        let (last, mut dropped) = (*last, 0);
        self.buckets.retain(|_, bucket| {
            let drops = dropped < DROPPED && bucket.idle_at_ms() <= last;
            dropped += usize::from(drops);
            !drops
        });
    }
}

#[cfg(test)]
mod tests {
    use model::{
        clock::ManualClock,
        limiter::{Bucket, Taken},
        rate::Rate,
    };
    use uuid::Uuid;

    use super::*;

    struct Bench {
        keys: Keys,
        clock: Arc<ManualClock>,
    }

    impl Bench {
        fn new() -> Self {
            Self { keys: Keys::default(), clock: Arc::default() }
        }

        fn takes(&self, tenant: u128, limit: &str, key: &str) -> bool {
            let rate = Rate::new(1, 1).expect("a rate");
            let now = model::clock::Clock::monotonic_ms(&*self.clock);
            let named = NamedKey { policy: "p", limit, key, rate };
            let new = || KeyBucket::alone(Arc::clone(&self.clock) as _, rate);
            let bucket = self.keys.find(TenantId(Uuid::from_u128(tenant)), named, now, new);
            matches!(bucket.take(1), Taken::Now(verdict) if verdict.allowed)
        }

        fn kept(&self) -> usize {
            let count = |shard: &Mutex<HashMap<Namespace, Space>>| {
                let shard = shard.lock().expect("a lock");
                shard.values().map(|space| space.buckets.len()).sum::<usize>()
            };
            self.keys.shards.iter().map(count).sum()
        }
    }

    #[test]
    fn every_tenant_limit_and_key_is_counted_apart() {
        let bench = Bench::new();
        for (tenant, limit, key) in [(1, "a", "x"), (2, "a", "x"), (1, "b", "x"), (1, "a", "y")] {
            assert!(bench.takes(tenant, limit, key), "{tenant} {limit} {key}");
        }
        assert!(!bench.takes(1, "a", "x"));
    }

    #[test]
    fn keys_that_are_full_again_go_first() {
        let bench = Bench::new();
        for key in 0..1_000 {
            bench.takes(1, "a", &key.to_string());
        }
        assert_eq!(bench.kept(), 1_000);
        bench.clock.advance_ms(2_000);
        for key in 1_000..2_000 {
            bench.takes(1, "a", &key.to_string());
        }
        assert!(bench.kept() <= 1_100, "{}", bench.kept());
        assert!(!bench.takes(1, "a", "1999"), "what is not full stays");
    }

    #[test]
    fn a_flood_of_keys_costs_only_its_own_tenant() {
        let bench = Bench::new();
        assert!(bench.takes(2, "a", "x"));
        for key in 0..KEYS_MAX + 500 {
            bench.takes(1, "a", &key.to_string());
        }
        assert!(bench.kept() <= KEYS_MAX + 1, "{}", bench.kept());
        assert!(!bench.takes(2, "a", "x"));
    }
}
