//! The immutable state that the data plane serves from.
//!
//! Built by the edge from the control plane's directory and the declarations of
//! `policies/`, published through a watch channel, pinned by each exchange. Invariant:
//! a snapshot that exists is valid; whatever failed validation never became one.
//!
//! It is the whole of what the edge caches of tenants, and complete: a name that it does
//! not know is nobody's, so there is nothing to load on a request, and no entry to grow
//! old. See [`Snapshot`].

mod index;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use self::index::Index;
pub use self::index::Served;
use crate::{
    clock::UnixMs,
    directory::TenantRecord,
    flags::FlagSet,
    gate::{Gate, Meter},
    key::ApiKey,
    limiter::{Bucket, Limiter},
    plan::Plan,
    policy::Chain,
    pool::Drawn,
    quota::{Metric, Quotas},
    rate::Rate,
    region::{Region, ResidencyGroup},
    route::RouteTable,
    tenant::{NotAdmitted, TenantId},
};

/// A tenant as a request sees it.
pub struct TenantEntry {
    /// The tenant.
    pub record: Arc<TenantRecord>,
    /// Its plan.
    pub plan: Arc<Plan>,
    /// The plan's quotas with the tenant's overrides, and what its pools put in their place.
    pub quotas: Quotas,
    /// The pools of tokens that it draws from, one place for each of [`Metric::CONSUMABLE`].
    pub drawn: [Option<Drawn>; Metric::CONSUMABLE.len()],
    /// Its own rate, or the plan's; `None` is no such limit.
    pub rate: Option<Rate>,
    /// Where its requests may go.
    pub group: Arc<ResidencyGroup>,
    /// Member of the group that serves it unless a policy asks otherwise.
    pub home: Arc<Region>,
    /// The policies that run for it.
    pub chain: Arc<Chain>,
    /// The ancestors whose suspension applies to it, nearest first.
    pub ancestors: Vec<Arc<TenantRecord>>,
    meter: OnceLock<Arc<dyn Meter>>,
    bucket: OnceLock<Option<Arc<dyn Bucket>>>,
    ordinal: u64,
}

/// Counts the entries made in this process.
static ENTRIES: AtomicU64 = AtomicU64::new(1);

impl TenantEntry {
    /// An entry whose meter is not looked up yet.
    #[must_use]
    pub fn new(
        record: Arc<TenantRecord>,
        plan: Arc<Plan>,
        group: Arc<ResidencyGroup>,
        home: Arc<Region>,
        chain: Arc<Chain>,
        ancestors: Vec<Arc<TenantRecord>>,
    ) -> Self {
        let quotas = plan.quotas_of(&record.tenant);
        let rate = plan.rate;
        let ordinal = ENTRIES.fetch_add(1, Ordering::Relaxed);
        Self {
            record,
            plan,
            quotas,
            drawn: Default::default(),
            rate,
            group,
            home,
            chain,
            ancestors,
            meter: OnceLock::new(),
            bucket: OnceLock::new(),
            ordinal,
        }
    }

    /// The same under a rate of the tenant's own, if there is one.
    #[must_use]
    pub fn under(self, rate: Option<Rate>) -> Self {
        Self { rate: rate.or(self.rate), ..self }
    }

    /// The same with what the tenant draws from in the place of its quotas.
    #[must_use]
    pub fn in_pools(mut self, drawn: [Option<Drawn>; Metric::CONSUMABLE.len()]) -> Self {
        for (metric, drawn) in Metric::CONSUMABLE.iter().zip(&drawn) {
            if let Some(drawn) = drawn {
                self.quotas.set_by_name(metric.quota_name(), drawn.limit);
            }
        }
        Self { drawn, ..self }
    }

    /// Position among the entries made in this process: of two entries of one tenant the
    /// higher one is newer, so that a request pinned on an old snapshot cannot bring old
    /// limits back.
    #[must_use]
    pub const fn ordinal(&self) -> u64 {
        self.ordinal
    }

    /// Identity.
    #[must_use]
    pub fn id(&self) -> TenantId {
        self.record.tenant.id
    }

    /// Its meter, looked up on first use.
    pub fn meter(&self, gate: &dyn Gate) -> &Arc<dyn Meter> {
        self.meter.get_or_init(|| gate.meter(self))
    }

    /// The bucket of its rate, looked up on first use; `None` without a rate.
    pub fn bucket(&self, limiter: &dyn Limiter) -> Option<&Arc<dyn Bucket>> {
        self.bucket.get_or_init(|| limiter.of_tenant(self)).as_ref()
    }

    /// Whether a request of this tenant may go on: its own status, then each ancestor's
    /// suspension or erasure.
    ///
    /// # Errors
    /// The reason, which decides the answer.
    pub fn admission(&self, now: UnixMs) -> Result<(), NotAdmitted> {
        self.record.tenant.admission(now)?;
        self.ancestors
            .iter()
            .filter(|ancestor| ancestor.tenant.status.applies_below())
            .try_for_each(|ancestor| ancestor.tenant.admission(now))
    }
}

impl fmt::Debug for TenantEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantEntry")
            .field("slug", &self.record.tenant.slug)
            .finish_non_exhaustive()
    }
}

/// What a host name means.
#[derive(Clone, Copy, Debug)]
pub enum HostMatch<'a> {
    /// `<slug>.<base domain>`.
    Subdomain(&'a Arc<TenantEntry>),
    /// A domain of the tenant's own.
    CustomDomain(&'a Arc<TenantEntry>),
    /// `api.<base domain>`: the token alone decides.
    Shared,
    /// Nobody's.
    Unknown,
}

/// Everything a request needs to know.
///
/// The L1 of `tenancy.md` 4.8, in its simplest form: all tenants, pushed when they change.
/// Its bound is the number of tenants an installation may have (`control.tenants_max`), so
/// nothing is ever evicted, no request waits for a load, and a flood of unknown names costs
/// look-ups and no memory. What stands for the time to live is the poll behind the push: an
/// edge that can reach the database is at most that old. The next version shares with the
/// last one every tenant that did not change.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Rises with every publish.
    pub version: u64,
    /// The domain whose direct subdomains are slugs.
    pub base_domain: Box<str>,
    /// Plans by name.
    pub plans: BTreeMap<String, Arc<Plan>>,
    /// Route classes.
    pub routes: RouteTable,
    /// Feature flags for OpenFeature clients; none where none are declared.
    pub flags: Option<Arc<dyn FlagSet>>,
    index: Index,
}

impl Snapshot {
    /// Indexes tenants.
    #[must_use]
    pub fn new(
        version: u64,
        base_domain: &str,
        plans: BTreeMap<String, Arc<Plan>>,
        routes: RouteTable,
        tenants: impl IntoIterator<Item = Served>,
    ) -> Self {
        let mut index = Index::default();
        tenants.into_iter().for_each(|served| index.insert(served));
        let base_domain = base_domain.to_ascii_lowercase().into();
        Self { version, base_domain, plans, routes, flags: None, index }
    }

    /// The same with feature flags for OpenFeature clients.
    #[must_use]
    pub fn flagged(self, flags: Option<Arc<dyn FlagSet>>) -> Self {
        Self { flags, ..self }
    }

    /// The same with some tenants as they are now, and without others. Costs as much as
    /// there are changes.
    #[must_use]
    pub fn with(&self, version: u64, put: Vec<Served>, gone: &[TenantId]) -> Self {
        let mut next = Self { version, ..self.clone() };
        // All leave before one comes: a domain may go from one to another.
        for id in gone.iter().copied().chain(put.iter().map(|served| served.entry.id())) {
            next.index.remove(id);
        }
        put.into_iter().for_each(|served| next.index.insert(served));
        next
    }

    /// What a canonical host name means: exact custom domain first, then exactly one
    /// label before the base domain.
    #[must_use]
    pub fn host(&self, name: &str) -> HostMatch<'_> {
        if let Some(entry) = self.index.domain(name) {
            return HostMatch::CustomDomain(entry);
        }
        let label = name.strip_suffix(&*self.base_domain).and_then(|rest| rest.strip_suffix('.'));
        match label {
            Some("api") => HostMatch::Shared,
            Some(label) => self.index.slug(label).map_or(HostMatch::Unknown, HostMatch::Subdomain),
            None => HostMatch::Unknown,
        }
    }

    /// The tenant of an id.
    #[must_use]
    pub fn tenant(&self, id: TenantId) -> Option<&Arc<TenantEntry>> {
        self.index.tenant(id)
    }

    /// The tenant of a slug.
    #[must_use]
    pub fn tenant_by_slug(&self, slug: &str) -> Option<&Arc<TenantEntry>> {
        self.index.slug(slug)
    }

    /// The record of a key id.
    #[must_use]
    pub fn key(&self, id: &str) -> Option<&Arc<ApiKey>> {
        self.index.key(id)
    }

    /// How many tenants it knows.
    #[must_use]
    pub const fn tenant_count(&self) -> usize {
        self.index.len()
    }
}
