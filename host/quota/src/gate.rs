//! The engine as the rest of the program sees it: meters for the proxy, usage figures for
//! the API, and an orderly end.
//!
//! Invariant: one meter per tenant and process, so that all snapshots and workers spend
//! from the same leases. Dropping the engine without [`Quota::shutdown`] is a crash: the
//! next start inherits the lease file.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use model::{
    BoxFuture,
    anchor::Anchor,
    gate::{Gate, Meter, MeteredUsage, UsageSource, UsageUnavailable},
    ledger::{Authority, WindowKey},
    quota::Metric,
    snapshot::TenantEntry,
    tenant::TenantId,
    window::Window,
};
use tokio::{sync::oneshot, task::AbortHandle, time::timeout};

use crate::meter::{Message, Shared, TenantMeter};

/// The quota engine of one process.
pub struct Quota {
    pub(crate) shared: Arc<Shared>,
    pub(crate) authority: Arc<dyn Authority>,
    pub(crate) meters: RwLock<HashMap<TenantId, Arc<TenantMeter>>>,
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
            meters.get(&id).map(Arc::clone)
        };
        let meter = known.unwrap_or_else(|| {
            let mut meters = self.meters.write().unwrap_or_else(PoisonError::into_inner);
            let new = || TenantMeter::new(id, Arc::clone(&self.shared));
            Arc::clone(meters.entry(id).or_insert_with(new))
        });
        meter.apply(tenant);
        meter
    }
}

impl UsageSource for Quota {
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
