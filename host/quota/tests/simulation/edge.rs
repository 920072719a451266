//! One edge: the real engine, started, killed and started again on its lease file.
//!
//! Invariant: a killed edge does nothing more, and what it admitted stays charged: its
//! requests in flight are neither spent nor given back.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use model::{
    clock::Clock as _,
    gate::{Charge, Gate as _, Meter, Permit, Take},
    ledger::{BootId, Holder, HolderId, WindowKey},
    quota::{Metric, MetricSet},
    snapshot::TenantEntry,
    tenant::TenantId,
};
use prometheus::Registry;
use rand::{Rng as _, rngs::StdRng};
use tokio::{
    task::{JoinHandle, JoinSet, yield_now},
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

use super::{
    books::Books,
    clock::SimClock,
    link::{Link, Site},
    remote::Remote,
    truth::{Account, Truth},
};
use crate::{
    config::QuotaConfig,
    gate::Quota,
    lease_file::LeaseFile,
    meter::{Shared, TenantMeter},
    metrics::Metrics,
    slot::Slot,
    start::{self, Common},
    window_clock::WindowClock,
};

/// Time limit of one attempt to start, and the pause before the next.
const START: Duration = Duration::from_secs(2);
const START_AGAIN: Duration = Duration::from_millis(300);
/// Requests of an edge that wait at most, per tenant; more are not sent.
const WAITING_MAX: usize = 24;
/// Longest time from the admission of a request to its end, in ms.
const FLIGHT_MS: u64 = 1_500;

/// What an edge and its successors share.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) number: usize,
    pub(super) folder: PathBuf,
    pub(super) boot: BootId,
    pub(super) clock: SimClock,
    pub(super) site: Site,
    pub(super) books: Arc<Mutex<Books>>,
    pub(super) truth: Truth,
    /// Everything lasts as long as an operator gets it by default.
    pub(super) usual: bool,
    pub(super) lease_records: u32,
}

pub(super) struct Edge {
    pub(super) place: Place,
    life: Life,
}

enum Life {
    Down,
    Starting(JoinHandle<Process>),
    Up(Process),
}

struct Process {
    quota: Arc<Quota>,
    holder: HolderId,
    /// One of each tenant, and who that is.
    meters: Vec<Arc<dyn Meter>>,
    tenants: Vec<TenantId>,
    requests: JoinSet<()>,
    flights: Flights,
}

/// Admitted requests that have not ended.
#[derive(Clone)]
struct Flights {
    truth: Truth,
    under_way: Arc<Mutex<Vec<Flight>>>,
}

struct Flight {
    until: Instant,
    stage: Stage,
    accounts: Vec<Account>,
}

enum Stage {
    /// A policy refuses it, or it leaves.
    Permitted(Permit),
    /// The upstream fails.
    Charged(Charge),
}

/// What becomes of a request.
#[derive(Clone, Copy)]
pub(super) enum Fate {
    Served,
    Refused,
    Failed,
}

impl Place {
    fn lease_file(&self) -> PathBuf {
        self.folder.join(format!("leases-{}", self.number))
    }

    fn page_file(&self) -> PathBuf {
        self.folder.join(format!("pages-{}", self.number))
    }

    fn config(&self, edge: String) -> QuotaConfig {
        let usual = QuotaConfig {
            edge,
            lease_records: self.lease_records,
            idle_return_ms: 1_000,
            ..QuotaConfig::new(self.lease_file())
        };
        if self.usual {
            return usual;
        }
        QuotaConfig {
            report_interval_ms: 400,
            empty_cache_ms: 2_000,
            authority_timeout_ms: 1_000,
            retry_ms: (50, 400),
            ..usual
        }
    }

    /// One attempt to start a process, as [`Quota::start`] does it.
    async fn start(&self) -> Option<Process> {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        let mut file = LeaseFile::lock(&self.lease_file()).unwrap();
        let legacy = file.legacy(self.boot).unwrap();
        let clock = WindowClock::authority(Arc::new(self.clock));
        let edge = format!("edge-{}", self.number);
        let id = HolderId::random();
        let holder = Holder { id, edge: edge.clone(), boot: self.boot };
        let network = Arc::clone(&self.site.network);
        let books = Arc::clone(&self.books);
        let authority = Arc::new(Remote { edge: self.number, network, books });
        let introduced = start::introduce(&*authority, &clock, holder, legacy, &metrics);
        timeout(START, introduced).await.ok()?.ok()?;
        let config = self.config(edge);
        let map = file.claim(id, self.boot, config.lease_records).unwrap();
        let (shared, messages) = Shared::new(config, clock, map, metrics, self.boot);
        let link = Link::new(self.number, self.number % 2, self.site.clone(), shared.inbox.clone());
        let seeking = tokio::spawn(Link::seek(Arc::downgrade(&link)));
        self.site.listeners.set(self.number, Some(shared.inbox.clone()));
        let common = Common { dispatcher: Some(link), listeners: vec![seeking.abort_handle()] };
        let quota = Quota::launch(shared, messages, authority, common, id);
        let truth = self.truth.clone();
        let flights = Flights { truth, under_way: Arc::default() };
        let (meters, tenants, requests) = (Vec::new(), Vec::new(), JoinSet::new());
        Some(Process { quota, holder: id, meters, tenants, requests, flights })
    }
}

impl Edge {
    pub(super) fn new(place: Place) -> Self {
        Self { place, life: Life::Down }
    }

    pub(super) const fn is_up(&self) -> bool {
        matches!(self.life, Life::Up(_))
    }

    pub(super) const fn is_down(&self) -> bool {
        matches!(self.life, Life::Down)
    }

    /// Begins to start a process; it tries until it is up.
    pub(super) fn start(&mut self) {
        let place = self.place.clone();
        self.life = Life::Starting(tokio::spawn(async move {
            loop {
                if let Some(process) = place.start().await {
                    return process;
                }
                sleep(START_AGAIN).await;
            }
        }));
    }

    /// Takes in a process that has started, with the limits of these entries.
    pub(super) async fn look(&mut self, entries: &[TenantEntry]) {
        if let Life::Starting(starting) = &mut self.life
            && starting.is_finished()
        {
            let mut process = starting.await.unwrap();
            process.apply(entries);
            self.life = Life::Up(process);
        }
    }

    /// Puts the limits of these entries in force.
    pub(super) fn apply(&mut self, entries: &[TenantEntry]) {
        if let Life::Up(process) = &mut self.life {
            process.apply(entries);
        }
    }

    /// `kill -9`.
    pub(super) async fn kill(&mut self) {
        self.place.site.listeners.set(self.place.number, None);
        let shared = match std::mem::replace(&mut self.life, Life::Down) {
            Life::Down => return,
            Life::Starting(starting) => {
                starting.abort();
                let Ok(process) = starting.await else { return };
                Arc::downgrade(&process.quota.shared)
            }
            Life::Up(mut process) => {
                process.requests.abort_all();
                for flight in process.flights.under_way.lock().unwrap().drain(..) {
                    if let Stage::Permitted(permit) = flight.stage {
                        drop(permit.spend());
                    }
                }
                Arc::downgrade(&process.quota.shared)
            }
        };
        gone(&shared).await;
    }

    /// Tokens that came back late and that the authority does not know of: lost by a kill.
    pub(super) fn untold(&self, keys: &[WindowKey]) -> u64 {
        let Life::Up(process) = &self.life else { return 0 };
        let meters = process.quota.meters.read().unwrap();
        let books = self.place.books.lock().unwrap();
        let of = |meter: &Arc<TenantMeter>, key: &WindowKey| {
            let mine = |slot: &&Slot| meter.tenant == key.tenant && slot.metric == key.metric;
            let slot = meter.slots.iter().find(mine);
            let late = slot.map_or(0, |slot| u64::from(slot.late()));
            late.saturating_sub(books.late(key, process.holder))
        };
        meters.iter().map(|meter| keys.iter().map(|key| of(meter, key)).sum::<u64>()).sum()
    }

    /// Mapped pages reach the disk: what a power loss leaves.
    pub(super) fn write_pages(&self) {
        if self.is_up() {
            std::fs::copy(self.place.lease_file(), self.place.page_file()).unwrap();
        }
    }

    /// The machine loses power, and comes back with the pages that were written.
    pub(super) async fn lose_machine(&mut self, other_boot: Uuid) {
        self.kill().await;
        let (pages, file) = (self.place.page_file(), self.place.lease_file());
        if pages.exists() {
            std::fs::copy(pages, file).unwrap();
        }
        if self.place.site.rules.same_boot {
            self.place.boot = BootId(other_boot);
        }
    }

    /// One request of a tenant, by its place among the entries.
    pub(super) fn request(
        &mut self,
        tenant: usize,
        metrics: MetricSet,
        fate: Fate,
        random: &mut StdRng,
    ) {
        let Life::Up(process) = &mut self.life else { return };
        while process.requests.try_join_next().is_some() {}
        let Some(meter) = process.meters.get(tenant).cloned() else { return };
        let most = WAITING_MAX * process.meters.len();
        let tenant = process.tenants[tenant];
        let lasts = Duration::from_millis(random.random_range(0..=FLIGHT_MS));
        match meter.take(metrics, self.place.clock.now()) {
            Take::Granted(permit) => process.flights.begin(permit, (tenant, metrics), fate, lasts),
            Take::Denied(_) => {}
            Take::Wait(wait) => {
                if process.requests.len() < most {
                    let flights = process.flights.clone();
                    process.requests.spawn(async move {
                        if let Ok(permit) = wait.await {
                            flights.begin(permit, (tenant, metrics), fate, lasts);
                        }
                    });
                }
            }
        }
    }

    /// Ends the requests whose time has come.
    pub(super) fn settle(&mut self, all: bool) {
        if let Life::Up(process) = &mut self.life {
            process.flights.settle(all);
        }
    }

    /// Messages that it sent to a dispatcher.
    pub(super) fn calls(&self) -> u64 {
        let Life::Up(process) = &self.life else { return 0 };
        process.quota.shared.metrics.dispatcher_leases.get()
    }

    /// Calls that opened tranches at the authority, many in one.
    pub(super) fn opens(&self) -> u64 {
        let Life::Up(process) = &self.life else { return 0 };
        process.quota.shared.metrics.calls_open.get()
    }

    /// Requests that it refused with 429, "come again soon" or not, and with 503.
    pub(super) fn refusals(&self) -> (u64, u64) {
        let Life::Up(process) = &self.life else { return (0, 0) };
        let metrics = &process.quota.shared.metrics;
        let sum = |of: &[prometheus::IntCounter]| of.iter().map(prometheus::IntCounter::get).sum();
        let full: u64 = sum(&metrics.exhausted);
        let soft: u64 = sum(&metrics.soft);
        (full + soft, sum(&metrics.unavailable))
    }

    /// Requests that it refused.
    pub(super) fn refused(&self) -> u64 {
        let (quota, unknown) = self.refusals();
        quota + unknown
    }
}

/// Waits until nothing of a process is left, so that its lease file is free.
async fn gone(shared: &Weak<Shared>) {
    for _ in 0..100 {
        if shared.strong_count() == 0 {
            return;
        }
        yield_now().await;
    }
    panic!("a killed process lives on");
}

impl Process {
    fn apply(&mut self, entries: &[TenantEntry]) {
        self.meters = entries.iter().map(|entry| self.quota.meter(entry)).collect();
        self.tenants = entries.iter().map(TenantEntry::id).collect();
    }
}

impl Flights {
    fn begin(&self, permit: Permit, of: (TenantId, MetricSet), fate: Fate, lasts: Duration) {
        let accounts = self.truth.admit(of.0, of.1);
        let stage = match fate {
            Fate::Served => return drop(permit.spend()),
            Fate::Refused => Stage::Permitted(permit),
            Fate::Failed => Stage::Charged(permit.spend()),
        };
        let until = Instant::now() + lasts;
        self.under_way.lock().unwrap().push(Flight { until, stage, accounts });
    }

    fn settle(&self, all: bool) {
        let now = Instant::now();
        let ended: Vec<Flight> = {
            let mut under_way = self.under_way.lock().unwrap();
            under_way.extract_if(.., |flight| all || flight.until <= now).collect()
        };
        for flight in ended {
            self.truth.refund(&flight.accounts);
            match flight.stage {
                Stage::Permitted(permit) => drop(permit),
                Stage::Charged(charge) => charge.refund(),
            }
        }
    }
}

/// The accounts of these tenants that hold now.
pub(super) fn keys(entries: &[TenantEntry], clock: &SimClock) -> Vec<WindowKey> {
    let key = |entry: &TenantEntry, metric: Metric| {
        let anchor = entry.record.tenant.quota_anchor;
        let window = model::window::Window::of(metric, clock.now(), anchor)?;
        Some(WindowKey { tenant: entry.id(), metric, window })
    };
    let of = |entry| Metric::CONSUMABLE.into_iter().filter_map(move |metric| key(entry, metric));
    entries.iter().flat_map(of).collect()
}
