//! An engine, its authority, and tenants to spend from.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use control::Store;
use model::{
    BoxFuture,
    clock::{Clock, ManualClock, UnixMs},
    gate::{Denial, Gate, Meter, MeteredUsage, Permit, Take, UsageSource},
    ledger::{
        Authority, AuthorityError, BootId, Holder, HolderId, Inherited, OpenRequest, Opening,
        Registered, Report, ReportAnswer, Standing, Stranded, Will, WindowAccount, WindowKey,
    },
    quota::{Metric, MetricSet},
    snapshot::TenantEntry,
    tenant::TenantId,
};
use prometheus::Registry;
use quota::{Quota, QuotaConfig};
use uuid::Uuid;

#[path = "tenants.rs"]
mod tenants;

pub(crate) use self::tenants::{allowing, entry, tenant};

/// Noon of a day in the middle of a month.
pub(crate) const NOON: UnixMs = UnixMs(1_700_049_600_000);

pub(crate) const API: MetricSet = MetricSet::of(Metric::ApiCalls);
pub(crate) const AI: MetricSet = MetricSet::of(Metric::AiRequests);

pub(crate) struct Bench {
    pub(crate) quota: Arc<Quota>,
    pub(crate) authority: Arc<Flaky>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) registry: Registry,
    pub(crate) place: Arc<Place>,
}

/// What outlives a process.
pub(crate) struct Place {
    folder: tempfile::TempDir,
    boot: Mutex<BootId>,
}

impl Place {
    pub(crate) fn new() -> Arc<Self> {
        let folder = tempfile::tempdir().unwrap();
        Arc::new(Self { folder, boot: Mutex::new(BootId(Uuid::new_v4())) })
    }

    pub(crate) fn lease_file(&self) -> PathBuf {
        self.folder.path().join("leases")
    }

    pub(crate) fn reboot(&self) {
        *self.boot.lock().unwrap() = BootId(Uuid::new_v4());
    }
}

pub(crate) fn store_url(folder: &Path) -> String {
    format!("sqlite://{}", folder.join("edge.db").display())
}

impl Bench {
    pub(crate) async fn new() -> Self {
        Self::start(Place::new(), |_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut QuotaConfig)) -> Self {
        Self::start(Place::new(), change).await
    }

    /// A process start in a place.
    pub(crate) async fn start(place: Arc<Place>, change: impl FnOnce(&mut QuotaConfig)) -> Self {
        let clock = Arc::new(ManualClock::at(NOON));
        let shared: Arc<dyn Clock> = Arc::clone(&clock) as _;
        let store =
            Store::open(&store_url(place.folder.path()), Arc::clone(&shared)).await.unwrap();
        let authority = Arc::new(Flaky::new(store));
        let registry = Registry::new();
        let mut config = QuotaConfig::new(place.lease_file());
        config.boot = Some(*place.boot.lock().unwrap());
        config.lease_records = 256;
        config.retry_ms = (10, 50);
        // Nothing is refused or given up for the time that the test machine takes.
        config.admit_wait_ms_max = 60_000;
        config.authority_timeout_ms = 60_000;
        change(&mut config);
        let quota =
            Quota::start(config, Arc::clone(&authority) as _, shared, &registry).await.unwrap();
        Self { quota, authority, clock, registry, place }
    }

    /// Ends the process without a word, and waits until its files are free.
    pub(crate) async fn crash(self) -> Arc<Place> {
        let Self { quota, authority, place, .. } = self;
        drop(quota);
        wait_until(|| Arc::strong_count(&authority) == 1).await;
        authority.store.close().await;
        place
    }

    pub(crate) fn meter(&self, tenant: &TenantEntry) -> Arc<dyn Meter> {
        self.quota.meter(tenant)
    }

    /// Figures from an authority that may still be recovering.
    pub(crate) async fn charged(&self, tenant: TenantId) -> MeteredUsage {
        for _ in 0..200 {
            if let Ok(usage) = self.quota.usage(tenant, Default::default()).await {
                return usage;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the authority does not recover");
    }

    pub(crate) async fn api_charged(&self, tenant: TenantId) -> u64 {
        self.charged(tenant).await.api_calls_this_month
    }

    pub(crate) async fn audit(&self) {
        assert_eq!(self.authority.store.audit_quotas().await.unwrap(), []);
    }

    /// Calls of one kind to the authority.
    pub(crate) fn calls(&self, call: &str) -> f64 {
        self.sum("quota_authority_calls_total", |label| label == call)
    }

    /// The value of a counter or gauge, summed over its labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        self.sum(name, |_| true)
    }

    fn sum(&self, name: &str, chosen: impl Fn(&str) -> bool) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap();
        family
            .get_metric()
            .iter()
            .filter(|metric| metric.get_label().iter().all(|label| chosen(label.value())))
            .map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value())
            .sum()
    }
}

pub(crate) async fn wait_until(mut holds: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it did not happen within 10 s");
}

/// One request: takes, waits if it must.
pub(crate) async fn take(
    meter: &Arc<dyn Meter>,
    metrics: MetricSet,
    now: UnixMs,
) -> Result<Permit, Denial> {
    match Arc::clone(meter).take(metrics, now) {
        Take::Granted(permit) => Ok(permit),
        Take::Denied(denial) => Err(denial),
        Take::Wait(wait) => wait.await,
    }
}

/// Requests until the first refusal; how many were admitted, and the refusal.
pub(crate) async fn spend_all(
    meter: &Arc<dyn Meter>,
    metrics: MetricSet,
    now: UnixMs,
) -> (u64, Denial) {
    let mut admitted = 0;
    loop {
        match take(meter, metrics, now).await {
            Ok(permit) => {
                drop(permit.spend());
                admitted += 1;
            }
            Err(denial) => return (admitted, denial),
        }
    }
}

/// Requests until so many were admitted.
pub(crate) async fn spend(meter: &Arc<dyn Meter>, metrics: MetricSet, now: UnixMs, requests: u64) {
    for _ in 0..requests {
        drop(take(meter, metrics, now).await.unwrap().spend());
    }
}

pub(crate) fn is_exhausted(denial: Denial) -> bool {
    matches!(denial, Denial::Exhausted(_))
}

/// The real authority behind a link that a test can cut or stall.
pub(crate) struct Flaky {
    pub(crate) store: Arc<Store>,
    /// Calls fail before they reach the store.
    pub(crate) cut: AtomicBool,
    /// Calls reach the store, but their answers are lost.
    pub(crate) deaf: AtomicBool,
    /// Calls never end.
    pub(crate) stuck: AtomicBool,
    pub(crate) calls: AtomicU64,
}

impl Flaky {
    fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            cut: AtomicBool::new(false),
            deaf: AtomicBool::new(false),
            stuck: AtomicBool::new(false),
            calls: AtomicU64::new(0),
        }
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    fn pass<'a, T: Send + 'a>(
        &'a self,
        call: BoxFuture<'a, Result<T, AuthorityError>>,
    ) -> BoxFuture<'a, Result<T, AuthorityError>> {
        Box::pin(async move {
            self.calls.fetch_add(1, Ordering::SeqCst);
            if self.stuck.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            if self.cut.load(Ordering::SeqCst) {
                return Err(AuthorityError("cut".into()));
            }
            let answer = call.await;
            if self.deaf.load(Ordering::SeqCst) {
                return Err(AuthorityError("the answer was lost".into()));
            }
            answer
        })
    }
}

impl Authority for Flaky {
    fn register(&self, holder: Holder) -> BoxFuture<'_, Result<Registered, AuthorityError>> {
        self.pass(self.store.register(holder))
    }

    fn open(
        &self,
        holder: HolderId,
        requests: Vec<OpenRequest>,
    ) -> BoxFuture<'_, Result<Vec<Opening>, AuthorityError>> {
        self.pass(self.store.open(holder, requests))
    }

    fn report(&self, report: Report) -> BoxFuture<'_, Result<ReportAnswer, AuthorityError>> {
        self.pass(self.store.report(report))
    }

    fn confirm(
        &self,
        holder: HolderId,
        keys: Vec<WindowKey>,
    ) -> BoxFuture<'_, Result<Option<Vec<Option<Standing>>>, AuthorityError>> {
        self.pass(self.store.confirm(holder, keys))
    }

    fn close(&self, keys: Vec<WindowKey>) -> BoxFuture<'_, Result<(), AuthorityError>> {
        self.pass(Authority::close(&*self.store, keys))
    }

    fn accounts(
        &self,
        keys: Vec<WindowKey>,
    ) -> BoxFuture<'_, Result<Vec<Option<WindowAccount>>, AuthorityError>> {
        self.pass(self.store.accounts(keys))
    }

    fn inherit(&self, will: Will) -> BoxFuture<'_, Result<Inherited, AuthorityError>> {
        self.pass(self.store.inherit(will))
    }

    fn strand_others(&self, heir: HolderId) -> BoxFuture<'_, Result<Stranded, AuthorityError>> {
        self.pass(self.store.strand_others(heir))
    }

    fn end(&self, holder: HolderId) -> BoxFuture<'_, Result<(), AuthorityError>> {
        self.pass(self.store.end(holder))
    }
}
