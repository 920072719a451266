//! The engine as the rest of the program sees it: meters for the proxy, usage figures for
//! the API, and an orderly end.
//!
//! Invariant: a tenant has one meter at a time in a process (`meters`), so that all snapshots
//! and workers spend from the same leases. Dropping the engine without [`Quota::shutdown`] is a crash: the
//! next start inherits the lease file.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use model::{
    BoxFuture,
    anchor::Anchor,
    gate::{EdgeQuota, Gate, Meter, MeteredUsage, UsageSource, UsageUnavailable},
    ledger::{Authority, WindowKey},
    quota::Metric,
    snapshot::TenantEntry,
    tenant::TenantId,
    window::Window,
};
use tokio::{sync::oneshot, task::AbortHandle, time::timeout};

use crate::{
    meter::{Message, Shared},
    meters::Meters,
};

/// Counts of all tenants since the start.
#[derive(Clone, Copy, Debug)]
pub struct Totals {
    /// Tokens taken by requests, in the order of [`Metric::CONSUMABLE`].
    pub admitted: [u64; 2],
    /// Calls to the shared dispatcher about leases and tranches.
    pub dispatcher_calls: u64,
}

/// The quota engine of one process.
pub struct Quota {
    pub(crate) shared: Arc<Shared>,
    pub(crate) authority: Arc<dyn Authority>,
    pub(crate) meters: RwLock<Meters>,
    pub(crate) keeper: AbortHandle,
    /// What listens to the shared dispatcher.
    pub(crate) listeners: Vec<AbortHandle>,
}

impl Quota {
    /// Seals every lease, reports the final figures and ends this holder. Afterwards every
    /// take is refused as unavailable. Call it when no request is in flight any more: a
    /// token given back later stays charged. Bounded by the authority's time limit; when
    /// the authority does not answer, the next start inherits the lease file instead.
    pub async fn shutdown(&self) {
        let (done, answer) = oneshot::channel();
        let stopped = self.shared.inbox.send(Message::Stop(done)).is_ok()
            && timeout(self.patience(), answer).await.is_ok_and(|answer| answer == Ok(true));
        if !stopped {
            tracing::warn!(
                "the quota authority did not take the final figures; the lease file keeps them"
            );
        }
        self.abort();
    }

    /// What this process counted of all tenants together.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let metrics = &self.shared.metrics;
        let calls = metrics.dispatcher_leases.get() + metrics.dispatcher_installs.get();
        let admitted = metrics.admitted.each_ref().map(|counter| counter.get());
        Totals { admitted, dispatcher_calls: calls }
    }

    fn abort(&self) {
        self.keeper.abort();
        self.listeners.iter().for_each(AbortHandle::abort);
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(self.shared.config.authority_timeout_ms)
    }

    async fn read_usage(&self, tenant: TenantId, anchor: Anchor) -> Option<MeteredUsage> {
        let (done, flushed) = oneshot::channel();
        self.shared.inbox.send(Message::Flush(tenant, done)).ok()?;
        flushed.await.ok().filter(|flushed| *flushed)?;
        let as_of = self.shared.clock.now();
        let key = |metric| {
            let window = Window::of(metric, as_of, anchor)?;
            Some(WindowKey { tenant, metric, window })
        };
        let keys = vec![key(Metric::ApiCalls)?, key(Metric::AiRequests)?];
        let accounts = self.authority.accounts(keys).await.ok()?;
        let charged = |index: usize| {
            accounts.get(index).copied().flatten().map_or(0, |account| account.charged)
        };
        Some(MeteredUsage {
            api_calls_this_month: charged(0),
            ai_requests_today: charged(1),
            as_of,
        })
    }
}

impl Gate for Quota {
    fn meter(&self, tenant: &TenantEntry) -> Arc<dyn Meter> {
        let id = tenant.id();
        let known = {
            let meters = self.meters.read().unwrap_or_else(PoisonError::into_inner);
            meters.find(id)
        };
        let meter = known.unwrap_or_else(|| {
            let mut meters = self.meters.write().unwrap_or_else(PoisonError::into_inner);
            meters.of(id, &self.shared)
        });
        meter.apply(tenant);
        meter
    }
}

impl UsageSource for Quota {
    fn at_edge(&self, tenant: TenantId) -> Vec<EdgeQuota> {
        let meters = self.meters.read().unwrap_or_else(PoisonError::into_inner);
        meters.find(tenant).map(|meter| meter.at_edge()).unwrap_or_default()
    }

    fn usage(
        &self,
        tenant: TenantId,
        anchor: Anchor,
    ) -> BoxFuture<'_, Result<MeteredUsage, UsageUnavailable>> {
        Box::pin(async move {
            let usage = timeout(self.patience(), self.read_usage(tenant, anchor)).await;
            usage.ok().flatten().ok_or(UsageUnavailable)
        })
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        self.abort();
    }
}

impl fmt::Debug for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quota").finish_non_exhaustive()
    }
}
