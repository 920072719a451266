//! Rates: so many a second and so many at once, for tenants by their plan and for keys that
//! policies count.
//!
//! In one process a bucket is one number ([`gcra`]). With Redis the buckets are there, and
//! an edge borrows from them what it needs for a moment ([`lent`]); while Redis is away it
//! goes by its share of the rate. Called on every request of a tenant with a rate. To keep
//! buckets elsewhere, implement [`RateStore`].
//!
//! Invariant: over any span of time the edges together let through at most
//! `burst + rate × span`. What may exceed it, and by how much, is said at [`lent`].

mod bucket;
mod gcra;
mod keys;
mod lent;
mod redis;

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use model::{
    BoxFuture,
    clock::Clock,
    limiter::{Bucket, Limiter, NamedKey},
    rate::Rate,
    snapshot::TenantEntry,
    tenant::TenantId,
};
use prometheus::{IntCounter, Registry};
use tokio::runtime::Handle;

use self::{bucket::KeyBucket, keys::Keys, lent::Lender, redis::RedisRates};
use crate::{config::QuotaConfig, start::StartError};

/// The script that a [`RateStore`] runs: two keys, then [`RateAsk::arguments`].
pub const RATE_SCRIPT: &str = include_str!("take.lua");

/// What an edge asks a store for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateAsk {
    /// The bucket, and the set of edges that use it. Both in the slot of the family's root.
    pub keys: [Box<str>; 2],
    /// As the script's head says.
    pub arguments: [Box<str>; 6],
}

/// What a store gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLoan {
    /// How many; 0 when the least that is of use was not there.
    pub granted: u32,
    /// How many are left for others.
    pub left: u32,
    /// In ms: when the least would be there.
    pub wait_ms: u64,
    /// Edges that used the bucket lately, this one included.
    pub edges: u32,
}

impl RateLoan {
    /// The answer of [`RATE_SCRIPT`]; `None` for anything else.
    #[must_use]
    pub fn from_answer(answer: &[i64]) -> Option<Self> {
        let [granted, left, wait_ms, edges] = answer else { return None };
        Some(Self {
            granted: u32::try_from(*granted).ok()?,
            left: u32::try_from(*left).unwrap_or(u32::MAX),
            wait_ms: u64::try_from(*wait_ms).ok()?,
            edges: u32::try_from(*edges).ok()?,
        })
    }
}

/// The store cannot say now; what was asked for may have been granted, and is lost then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store of the rates does not answer")]
pub struct RateStoreAway;

/// Where edges share their buckets: runs [`RATE_SCRIPT`] on the server of the first key.
pub trait RateStore: Send + Sync {
    /// Sends a question at most once, and gives it up within a time limit of its own (tens
    /// of milliseconds): requests wait for it.
    fn ask(&self, ask: RateAsk) -> BoxFuture<'_, Result<RateLoan, RateStoreAway>>;
}

/// The limiter of one process.
pub struct Rates {
    clock: Arc<dyn Clock>,
    lender: Option<Arc<Lender>>,
    tenants: RwLock<HashMap<TenantId, Arc<TenantBucket>>>,
    keys: Keys,
}

/// A tenant's bucket, and of which entry its rate is.
struct TenantBucket {
    ordinal: AtomicU64,
    bucket: Arc<KeyBucket>,
}

/// What the limiter asked of its store.
#[derive(Clone, Debug)]
pub(crate) struct Counters {
    pub(crate) calls: IntCounter,
    pub(crate) failures: IntCounter,
}

impl Counters {
    fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name, help| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        Ok(Self {
            calls: counter("rate_store_calls_total", "Questions to the store of the rates.")?,
            failures: counter(
                "rate_store_failures_total",
                "Questions to the store of the rates that it did not answer.",
            )?,
        })
    }
}

impl Rates {
    /// For a process with these settings: shared with others where they name a Redis. Runs on
    /// the current tokio runtime.
    ///
    /// # Errors
    /// A counter of the same name is registered already.
    pub fn start(
        config: &QuotaConfig,
        clock: Arc<dyn Clock>,
        registry: &Registry,
    ) -> Result<Arc<Self>, StartError> {
        let Some(servers) = config.redis.clone() else { return Ok(Self::alone(clock)) };
        let store = Arc::new(RedisRates::new(servers));
        Ok(Self::shared(clock, store, &config.edge, Handle::current(), registry)?)
    }

    /// For the only process that serves these tenants.
    #[must_use]
    pub fn alone(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self::new(clock, None))
    }

    /// For one of several: `edge` names this one among those that share `store`. Refills run
    /// on `runtime`.
    ///
    /// # Errors
    /// A counter of the same name is registered already.
    pub fn shared(
        clock: Arc<dyn Clock>,
        store: Arc<dyn RateStore>,
        edge: &str,
        runtime: Handle,
        registry: &Registry,
    ) -> Result<Arc<Self>, prometheus::Error> {
        let counters = Counters::register(registry)?;
        let lender = Lender::new(store, edge, runtime, counters);
        Ok(Arc::new(Self::new(clock, Some(Arc::new(lender)))))
    }

    fn new(clock: Arc<dyn Clock>, lender: Option<Arc<Lender>>) -> Self {
        Self { clock, lender, tenants: RwLock::default(), keys: Keys::default() }
    }

    /// A new bucket; `name` says which among the tenant's.
    fn bucket(&self, tenant: &TenantEntry, rate: Rate, name: fmt::Arguments<'_>) -> KeyBucket {
        let clock = Arc::clone(&self.clock);
        match &self.lender {
            None => KeyBucket::alone(clock, rate),
            Some(lender) => {
                let root = tenant.ancestors.last().map_or(tenant.id(), |root| root.tenant.id);
                let key = format!("r:{{{root}}}:{}:{name}", tenant.id());
                KeyBucket::lent(clock, rate, Arc::clone(lender), &key)
            }
        }
    }

    fn tenant(&self, tenant: &TenantEntry, rate: Rate) -> Arc<TenantBucket> {
        let known = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(&tenant.id()) {
            return Arc::clone(known);
        }
        drop(known);
        let mut tenants = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            let bucket = Arc::new(self.bucket(tenant, rate, format_args!("plan")));
            Arc::new(TenantBucket { ordinal: AtomicU64::new(0), bucket })
        };
        Arc::clone(tenants.entry(tenant.id()).or_insert_with(new))
    }
}

impl Limiter for Rates {
    fn of_tenant(&self, tenant: &TenantEntry) -> Option<Arc<dyn Bucket>> {
        let rate = tenant.rate?;
        let held = self.tenant(tenant, rate);
        // A request pinned on an old snapshot does not bring an old rate back.
        if held.ordinal.fetch_max(tenant.ordinal(), Ordering::SeqCst) < tenant.ordinal() {
            held.bucket.set_rate(rate);
        }
        Some(Arc::clone(&held.bucket) as _)
    }

    fn of_key(&self, tenant: &TenantEntry, key: NamedKey<'_>) -> Arc<dyn Bucket> {
        let NamedKey { policy, limit, key: name, rate } = key;
        let new = || self.bucket(tenant, rate, format_args!("{policy}:{limit}:{name}"));
        let bucket = self.keys.find(tenant.id(), key, self.clock.monotonic_ms(), new);
        bucket.set_rate(rate);
        bucket
    }
}

impl fmt::Debug for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rates").field("shared", &self.lender.is_some()).finish_non_exhaustive()
    }
}
