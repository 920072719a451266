//! The durable state of the control plane, and the directory that follows from it.
//!
//! [`Store::open`] is called once per process; API handlers, the command line and the
//! demo seeder share the `Arc`. SQLite serves one process, PostgreSQL many; `db/` knows
//! the difference. SQL rows stop here: what leaves are the nouns of `model` and small
//! records.
//!
//! Invariant: a committed change is published before its caller is answered, whoever
//! hung up meanwhile. To add a table, add a migration for each database and a file.

mod admin;
pub(crate) mod alerts;
mod applied;
mod audit;
mod audit_heads;
mod authority;
mod billing;
mod change;
mod data;
mod db;
mod directory;
mod dispatch;
mod due;
mod error;
mod hierarchy;
mod idempotency;
mod keys;
mod level_deltas;
mod levels;
mod lifecycle;
mod lint;
mod outbox;
mod overrides;
mod partitions;
mod plan_changes;
mod plans;
mod plugins;
mod pools;
mod publish;
mod random;
mod reservations;
mod rows;
mod schema;
mod sealed;
mod secrets;
mod session_guards;
mod session_levels;
mod tenants;
#[cfg(test)]
mod tests;
mod tokens;
mod trends;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use model::{clock::Clock, directory::Directory, tenant::TenantId};
use tokio::sync::{Mutex, watch};

pub(crate) use self::lifecycle::Over;
pub(crate) use self::outbox::Claimed;
pub use self::{
    admin::{AdminToken, AdminTokenError, AdminTokenOutcome, AdminTokenSource},
    alerts::{
        AlertRule, AlertSettings, AlertsPut, Channel, Evaluated, NewSecret, SECRET_GRACE_MS,
        SecretRecord, Severity, StoredAlerts, Threshold, ThresholdError,
    },
    audit::{AUDIT_PAGE_MAX, Actor},
    authority::{AuthorityTime, QuotaViolation},
    billing::{Bill, BillingError, BillingSettings, InvoiceError, Issued, Settings},
    data::{DATA_PAGE_MAX, DataKey, DataRow},
    dispatch::DispatchClaim,
    error::StoreError,
    hierarchy::{ChildPage, Family, Member, MoveError},
    idempotency::{Attempt, GivenAnswer, Seen},
    keys::{IssuedKey, KEYS_MAX, KeyRecord},
    levels::{Claim, ClaimError, ClaimTaken},
    lifecycle::{GRACE_DAYS, InvalidTransition, StatusChange},
    lint::SchemaFinding,
    outbox::{DeliveryRecord, DeliveryState, EventKind, EventRecord, EventsPage, Outcome},
    overrides::Overridden,
    partitions::{
        COPY_ROWS, MONTHS_AHEAD, Managed, MoveKind, MoveState, Partition, PartitionMove,
        PartitionMoveError, PartitionRules, PartitionTree, RETENTION_DAYS, SPLIT_BYTES, WantedMove,
    },
    plan_changes::{PlanChange, PlanChangeState},
    plans::PlanVersion,
    plugins::{Activation, NewVersion, PluginError, StoredPlugin, StoredVersion},
    pools::{
        NewPool, PoolCap, PoolFault, PoolReport, PoolRule, PoolsError, ShareReport,
        tag as pools_tag,
    },
    reservations::{
        EdgeRun, Held, ReservationRecord, Reserving, SetAside, SettleError, Unresolved,
    },
    schema::{PendingMigration, Schema},
    tenants::{
        ChangeError, CreateError, Members, NewTenant, StoredTenant, TenantFilter, TenantPage,
        TenantPatch,
    },
    tokens::{IssuedToken, NewToken, TOKENS_MAX, TokenError, TokenRecord},
    trends::{BucketLength, Sampled, Series, Span as TrendSpan},
};
use self::{
    applied::Applied,
    db::{Db, Lookout},
    publish::{Following, Published},
    sealed::Sealer,
};
use crate::keys::{HeadKey, Keys};

/// Tenants that may be created unless the operator says otherwise, tombstones included: an
/// edge holds all of them in memory, about 1 KB each, and 200 MB is what it may take for
/// them. What is there beyond it is served all the same.
pub const TENANTS_MAX_DEFAULT: usize = 150_000;

/// An open database.
#[derive(Debug)]
pub struct Store {
    db: Db,
    clock: Arc<dyn Clock>,
    authority_time: AuthorityTime,
    published: Arc<Published>,
    sealer: Sealer,
    heads: Option<Arc<HeadKey>>,
    turn: Arc<Mutex<()>>,
    applied: Applied,
    following: Option<Following>,
    lookout: Option<Lookout>,
    tenants_max: AtomicUsize,
    last_audit: authority::LastAudit,
}

impl Store {
    /// Opens the database of a URL, brings it to this release's schema, and reads the
    /// directory. Called once at start-up.
    ///
    /// `sqlite://PATH` creates folder and file, for this process alone.
    /// `postgres://LOGIN[:PASSWORD]@HOST[:PORT]/DATABASE` is shared with other processes,
    /// whose changes arrive within a second. The login owns the database, or may create
    /// schemas in it, and may act as `schema_owner` (migrations and partitions, one process at
    /// a time), `application_user` and `control_plane` (everything else); with CREATEROLE it
    /// makes these roles itself.
    ///
    /// Such a store has no keys: it neither writes nor reads secrets.
    ///
    /// # Errors
    /// One line that says what is wrong with the URL, the file or the server.
    pub async fn open(url: &str, clock: Arc<dyn Clock>) -> Result<Arc<Self>, StoreError> {
        Self::open_with(url, clock, AuthorityTime::USUAL).await
    }

    /// As [`Store::open`], with a choice of the clock that quota windows go by.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn open_with(
        url: &str,
        clock: Arc<dyn Clock>,
        authority_time: AuthorityTime,
    ) -> Result<Arc<Self>, StoreError> {
        Self::open_all(url, clock, authority_time, None).await
    }

    /// As [`Store::open`], with the keys that secrets are sealed under and audit heads are
    /// signed with. Secrets that an earlier release left as they were are sealed now.
    ///
    /// # Errors
    /// As [`Store::open`], or the database's secrets are sealed under other keys.
    pub async fn open_with_keys(
        url: &str,
        clock: Arc<dyn Clock>,
        keys: Keys,
    ) -> Result<Arc<Self>, StoreError> {
        Self::open_all(url, clock, AuthorityTime::USUAL, Some(keys)).await
    }

    async fn open_all(
        url: &str,
        clock: Arc<dyn Clock>,
        authority_time: AuthorityTime,
        keys: Option<Keys>,
    ) -> Result<Arc<Self>, StoreError> {
        let db = Db::open(url).await?;
        let (sealing, heads) = keys.map(|keys| (keys.sealing, keys.heads)).unzip();
        let sealer = Sealer::new(sealing);
        sealed::adopt(&db, &sealer, clock.now()).await?;
        let published = Arc::new(Published::open(db.clone(), sealer.clone()).await?);
        let (following, lookout) = (published.follow(), db.keep_lookout());
        let turn = Arc::new(Mutex::new(()));
        let applied = Applied::default();
        let tenants_max = AtomicUsize::new(TENANTS_MAX_DEFAULT);
        let store = Self {
            db,
            clock,
            authority_time,
            published,
            sealer,
            heads,
            turn,
            applied,
            following,
            lookout,
            tenants_max,
            last_audit: authority::LastAudit::default(),
        };
        Ok(Arc::new(store))
    }

    /// Tenants, keys and secrets as committed; a new value after every change.
    #[must_use]
    pub fn directory(&self) -> watch::Receiver<Arc<Directory>> {
        self.published.directory().subscribe()
    }

    /// How many tenants there are, tombstones included.
    #[must_use]
    pub fn tenant_count(&self) -> usize {
        self.published.directory().borrow().tenants.len()
    }

    /// Sets how many tenants may be created, tombstones included. Called at start-up.
    pub fn set_tenants_max(&self, tenants: usize) {
        self.tenants_max.store(tenants, Ordering::Relaxed);
    }

    /// How many tenants may be created, if there are as many as that.
    pub(super) fn is_full(&self) -> Option<usize> {
        let tenants_max = self.tenants_max.load(Ordering::Relaxed);
        (self.tenant_count() >= tenants_max).then_some(tenants_max)
    }

    /// Whether the directory has a tenant of this id.
    #[must_use]
    pub fn knows(&self, id: TenantId) -> bool {
        self.published.directory().borrow().record(id).is_some()
    }

    /// Ends every connection after its running statement. Called once at the end, so that
    /// the next start finds a SQLite database without a log to replay.
    pub async fn close(&self) {
        if let Some(following) = &self.following {
            following.stop();
        }
        if let Some(lookout) = &self.lookout {
            lookout.stop();
        }
        self.db.close().await;
    }
}
