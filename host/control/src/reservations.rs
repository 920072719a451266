//! The edge's side of reservations: room is asked of the store, kept alive, given up.
//!
//! [`Reservations`] is the data plane's [`StorageGate`]; its futures run on the runtime it
//! was opened on, so a worker thread only waits for an answer. [`Reservations::run`] renews
//! what lives and carries settlements to the store until it has them. Invariants: room that
//! the store gave has a keeper here until it is settled; one that could not be renewed is no
//! longer live before its time at the store is up.

mod keeper;
mod metrics;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use model::{
    BoxFuture,
    catalog::Catalog,
    clock::Clock,
    reservation::{Amount, Outcome, Refused, Reservation, StorageGate, Wanted},
};
use prometheus::Registry;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};
use uuid::Uuid;

use self::{
    keeper::{Kept, Until},
    metrics::Metrics,
};
use crate::store::{ClaimError, EdgeRun, Held, Reserving, Store, StoreError};

/// How long the store takes a reservation to be under way after it was made or renewed, in
/// ms (30 s): a pause that long is a lost edge.
const TTL_MS: u64 = 30_000;
/// How often reservations are renewed, in ms: three tries within their time.
const RENEW_MS: u64 = TTL_MS / 3;
/// How long before its time is up a reservation is no longer used, in ms (5 s): what is on
/// its way to the upstream by then has arrived, or never will.
const MARGIN_MS: u64 = 5_000;
/// Pause before a settlement that the store did not take is tried again, in ms (500).
const RETRY_MS: u64 = 500;
/// Settlements that are with the store at once (8): a few of a pool of connections.
const SETTLING_MAX: usize = 8;

/// The reservations of this run of the edge.
pub struct Reservations {
    shared: Arc<Shared>,
    settlements: Mutex<Option<mpsc::UnboundedReceiver<Settlement>>>,
}

/// What keepers and the gate share.
struct Shared {
    store: Arc<Store>,
    catalog: watch::Receiver<Arc<Catalog>>,
    by: EdgeRun,
    clock: Arc<dyn Clock>,
    runtime: Handle,
    wait_ms_max: u64,
    metrics: Metrics,
    /// Those that are renewed, by id.
    live: Mutex<HashMap<Uuid, Arc<Until>>>,
    /// As many wait here as there are reservations, so it needs no bound of its own.
    inbox: mpsc::UnboundedSender<Settlement>,
}

/// Why the reservations of an edge cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A series of the same name is registered already.
    #[error("cannot register the series of reservations: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// A reservation that has ended, and how.
struct Settlement {
    held: Held,
    outcome: Outcome,
}

impl Reservations {
    /// Opens the reservations of `edge`, an identity that outlives the process, on the
    /// current runtime. What an earlier run left is from here on of unknown outcome.
    /// `wait_ms_max` bounds every wait of a request.
    ///
    /// # Errors
    /// The store failed, or a series is registered already.
    pub async fn open(
        store: Arc<Store>,
        catalog: watch::Receiver<Arc<Catalog>>,
        edge: Uuid,
        clock: Arc<dyn Clock>,
        wait_ms_max: u64,
        registry: &Registry,
    ) -> Result<Self, OpenError> {
        let metrics = Metrics::register(registry)?;
        let by = EdgeRun { edge, run: Uuid::new_v4() };
        let left = store.leave_earlier_reservations(by).await?;
        if left > 0 {
            tracing::warn!(
                reservations = left,
                "an earlier run of this edge left reservations of unknown outcome: they stay \
                 counted until a report of their tenants' levels, or until they are resolved"
            );
        }
        let (inbox, settlements) = mpsc::unbounded_channel();
        let runtime = Handle::current();
        let live = Mutex::default();
        let shared =
            Shared { store, catalog, by, clock, runtime, wait_ms_max, metrics, live, inbox };
        Ok(Self { shared: Arc::new(shared), settlements: Mutex::new(Some(settlements)) })
    }

    /// Renews and settles until told to stop, and then settles what there is for `drain_ms`
    /// at most; what the store did not take by then stays of unknown outcome.
    pub async fn run(&self, mut stopped: oneshot::Receiver<()>, drain_ms: u64) {
        let Some(mut inbox) = lock(&self.settlements).take() else { return };
        let mut renewals = tokio::time::interval(Duration::from_millis(RENEW_MS));
        renewals.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut settling = JoinSet::new();
        loop {
            tokio::select! {
                _ = renewals.tick() => {
                    // Beside the settlements: neither waits for the other.
                    self.shared.runtime.spawn(renew(Arc::clone(&self.shared)));
                    self.shared.runtime.spawn(look(Arc::clone(&self.shared)));
                }
                Some(settlement) = inbox.recv(), if settling.len() < SETTLING_MAX => {
                    settling.spawn(settle(Arc::clone(&self.shared), settlement));
                }
                Some(_) = settling.join_next(), if !settling.is_empty() => {}
                _ = &mut stopped => break,
            }
        }
        let rest = async {
            while let Ok(settlement) = inbox.try_recv() {
                settling.spawn(settle(Arc::clone(&self.shared), settlement));
            }
            while settling.join_next().await.is_some() {}
        };
        if tokio::time::timeout(Duration::from_millis(drain_ms), rest).await.is_err() {
            tracing::warn!("reservations were not settled: the store did not answer");
        }
    }

    /// How many are live, for metrics and tests.
    #[must_use]
    pub fn live(&self) -> usize {
        lock(&self.shared.live).len()
    }
}

impl StorageGate for Reservations {
    fn reserve(&self, wanted: Wanted) -> BoxFuture<'static, Result<Reservation, Refused>> {
        let shared = Arc::clone(&self.shared);
        let work = async move {
            let id = Uuid::new_v4();
            let reserving = Reserving { id, by: shared.by, wanted, ttl_ms: TTL_MS };
            let until = Arc::new(Until::from_now(&*shared.clock));
            let catalog = Arc::clone(&shared.catalog.borrow());
            let taken = shared.store.reserve(&reserving, &catalog).await;
            let held = Held { tenant: wanted.tenant, metric: wanted.metric, id };
            let kept = |until| Kept { shared: Arc::clone(&shared), held, until };
            match taken {
                Ok(amount) => {
                    shared.metrics.count(wanted.metric, metrics::Event::Reserved);
                    lock(&shared.live).insert(id, Arc::clone(&until));
                    Ok(Reservation::new(Arc::new(kept(until)), amount))
                }
                Err(error) => {
                    let refused = refusal(error);
                    shared.metrics.count(wanted.metric, (&refused).into());
                    if refused == Refused::Unavailable {
                        // It may have been kept although its answer was lost.
                        shared.end(held, Outcome::Nothing);
                    }
                    Err(refused)
                }
            }
        };
        self.shared.answer(work)
    }
}

impl Shared {
    /// Runs `work` on the runtime of the store and waits for it, so long and no longer. What
    /// comes of it later is dropped there, and so given back.
    fn answer<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl Future<Output = Result<T, Refused>> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, Refused>> {
        let (answer, answered) = oneshot::channel();
        let wait = Duration::from_millis(self.wait_ms_max);
        let runtime = self.runtime.clone();
        Box::pin(async move {
            runtime.spawn(async move {
                let _given_back = answer.send(work.await);
            });
            match tokio::time::timeout(wait, answered).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) | Err(_) => Err(Refused::Unavailable),
            }
        })
    }

    fn extend(
        self: &Arc<Self>,
        held: Held,
        more: Amount,
    ) -> BoxFuture<'static, Result<u64, Refused>> {
        let shared = Arc::clone(self);
        self.answer(async move {
            let catalog = Arc::clone(&shared.catalog.borrow());
            let extended = shared.store.extend_reservation(held, more, &catalog).await;
            extended.map_err(refusal)
        })
    }

    fn end(&self, held: Held, outcome: Outcome) {
        // Nobody listens only once the edge has stopped: the outcome stays unknown.
        let _after_stop = self.inbox.send(Settlement { held, outcome });
    }
}

impl fmt::Debug for Reservations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservations").field("by", &self.shared.by).finish_non_exhaustive()
    }
}

fn refusal(error: ClaimError) -> Refused {
    match error {
        ClaimError::Exceeded(why) => Refused::Exceeded(why),
        // The tenant or the reservation is gone, or its plan is: nobody knows a limit.
        error @ (ClaimError::NotFound
        | ClaimError::IdReused
        | ClaimError::PlanUnknown(_)
        | ClaimError::Store(_)) => {
            tracing::warn!(%error, "no room can be set aside");
            Refused::Unavailable
        }
    }
}

/// Renews what lives; what the store does not name runs out.
async fn renew(shared: Arc<Shared>) {
    if lock(&shared.live).is_empty() {
        return;
    }
    let from_now = Until::from_now(&*shared.clock);
    match shared.store.renew_reservations(shared.by, TTL_MS).await {
        Ok(renewed) => {
            let live = lock(&shared.live);
            renewed.iter().filter_map(|id| live.get(id)).for_each(|until| until.extend(&from_now));
        }
        Err(error) => tracing::warn!(%error, "reservations were not renewed"),
    }
}

/// Looks for reservations of any edge of which nobody knows what became.
async fn look(shared: Arc<Shared>) {
    match shared.store.unresolved().await {
        Ok(unresolved) => shared.metrics.unresolved(&unresolved),
        // The last figures stay until the database is back.
        Err(error) => tracing::debug!(%error, "unresolved reservations were not looked for"),
    }
}

/// Tells the store until it has heard.
async fn settle(shared: Arc<Shared>, settlement: Settlement) {
    let Settlement { held, outcome } = settlement;
    loop {
        match shared.store.settle_reservation(held, outcome).await {
            Ok(ended) => {
                shared.metrics.count(held.metric, metrics::Event::settled(outcome, ended));
                if let (false, Outcome::Taken(delta)) = (ended, outcome) {
                    let metric = held.metric.as_str();
                    tracing::warn!(
                        tenant = %held.tenant, metric, delta,
                        "a reservation was ended by a report before its request was answered"
                    );
                }
                break;
            }
            Err(error) => {
                tracing::warn!(%error, "a settlement waits for the store");
                tokio::time::sleep(Duration::from_millis(RETRY_MS)).await;
            }
        }
    }
    lock(&shared.live).remove(&held.id);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere left the value whole: every change of it is one call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
