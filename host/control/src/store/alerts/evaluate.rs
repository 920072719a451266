//! The evaluation: looks at every tenant that watches something, and writes only where
//! something has changed.
//!
//! Run every second or two by any number of processes. A page is judged on one committed
//! state, without a lock; a tenant with news is then judged anew under the lock of its
//! settings, and what follows (its state, its events) is one commit. Invariant: a tenant's
//! state is written by one process at a time, on figures read while it held the lock.

use model::{
    catalog::Catalog,
    clock::UnixMs,
    quota::{Metric, Quotas, utilization_percent},
    tenant::{Status, TenantId},
    window::Window,
};
use serde_json::{Map, Value, json};

use super::{
    super::{
        Store, StoreError,
        db::{ControlTx, Purpose, sql_each},
        outbox::{self, EventKind},
        rows::Span,
    },
    AlertSettings, Severity, Threshold, parsed, usage,
    usage::Figures,
    watch::{Reading, Watch},
};

/// Tenants of a page: one statement reads them all, and nothing else waits for it.
const PAGE_TENANTS: u32 = 500;

/// What an evaluation did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evaluated {
    /// Tenants that watch something.
    pub tenants: u64,
    /// Events inserted.
    pub events: u64,
}

/// A metric with news.
struct News {
    reading: Reading,
    thresholds: [Threshold; 2],
    watch: Watch,
    told: Vec<Severity>,
}

impl Store {
    /// Inserts an event for every threshold that was reached since the last time, under the
    /// quotas of `catalog`. A tenant with a value that this release cannot read is logged and
    /// passed over; the others are not kept waiting by it.
    ///
    /// # Errors
    /// The store failed; what was committed before stays.
    pub async fn evaluate_alerts(&self, catalog: &Catalog) -> Result<Evaluated, StoreError> {
        self.evaluate_in_pages(catalog, PAGE_TENANTS).await
    }

    pub(super) async fn evaluate_in_pages(
        &self,
        catalog: &Catalog,
        page_tenants: u32,
    ) -> Result<Evaluated, StoreError> {
        let mut done = Evaluated::default();
        let mut after = TenantId(uuid::Uuid::nil());
        loop {
            let now = self.clock.now();
            let mut tx = self.db.control(Purpose::Read).await?;
            let page = Figures::page(&mut tx, after, page_tenants, now).await;
            let page = tx.end(page).await?;
            for (tenant, document) in &page.settings {
                after = *tenant;
                done.tenants += 1;
                let settings = match document {
                    Ok(settings) => settings,
                    Err(error) => {
                        unreadable(*tenant, &error.to_string());
                        continue;
                    }
                };
                let Some(quotas) = self.quotas(catalog, *tenant) else { continue };
                if news(*tenant, settings, &page, &quotas, now).is_empty() {
                    continue;
                }
                match self.tell(*tenant, &quotas).await {
                    Ok(events) => done.events += events,
                    Err(StoreError::Decode(what)) => unreadable(*tenant, &what),
                    Err(error) => return Err(error),
                }
            }
            if page.settings.is_empty() {
                return Ok(done);
            }
        }
    }

    /// The quotas in force; `None` for a tenant whose plan is not declared, or that is going.
    fn quotas(&self, catalog: &Catalog, tenant: TenantId) -> Option<Quotas> {
        let directory = self.published.directory().borrow();
        let at = directory.tenants.binary_search_by_key(&tenant, |held| held.tenant.id).ok()?;
        let tenant = &directory.tenants.get(at)?.tenant;
        let goes = matches!(tenant.status, Status::Erasing | Status::Erased);
        if goes { None } else { catalog.quotas_of(tenant) }
    }

    /// Judges one tenant under its lock; how many events that makes.
    async fn tell(&self, tenant: TenantId, quotas: &Quotas) -> Result<u64, StoreError> {
        let now = self.clock.now();
        let mut tx = self.db.control(Purpose::Write).await?;
        let told = tell(&mut tx, tenant, quotas, now).await;
        tx.end(told).await
    }
}

fn unreadable(tenant: TenantId, what: &str) {
    tracing::error!(%tenant, what, "the alerts of a tenant cannot be evaluated");
}

async fn tell(
    tx: &mut ControlTx,
    tenant: TenantId,
    quotas: &Quotas,
    now: UnixMs,
) -> Result<u64, StoreError> {
    let row: Option<(String,)> = sql_each(
        "SELECT document FROM alert_settings WHERE tenant_id = $1",
        // Whoever has it now does the same work.
        "SELECT document FROM alert_settings WHERE tenant_id = $1 FOR UPDATE SKIP LOCKED",
    )
    .bind(tenant.0)
    .optional(tx)
    .await?;
    let Some((document,)) = row else { return Ok(0) };
    let settings = parsed(&document)?;
    let figures = Figures::of(tx, Span::one(tenant), now).await?;
    let mut events = 0;
    for news in news(tenant, &settings, &figures, quotas, now) {
        let metric = news.reading.metric;
        for severity in &news.told {
            let kind = EventKind::Quota {
                severity: *severity,
                metric,
                once: news.watch.once(metric, *severity),
            };
            let inserted = outbox::insert(tx, tenant, kind, news.payload(*severity), now).await?;
            events += u64::from(inserted.is_some());
        }
        usage::remember(tx, tenant, metric, &news.watch).await?;
    }
    if events > 0 {
        outbox::forget_old(tx, tenant, now).await?;
    }
    Ok(events)
}

/// The metrics of a tenant whose state a reading changes.
fn news(
    tenant: TenantId,
    settings: &AlertSettings,
    figures: &Figures,
    quotas: &Quotas,
    now: UnixMs,
) -> Vec<News> {
    let of = |metric: Metric| {
        let thresholds = settings.thresholds(metric)?;
        let reading = Reading {
            metric,
            used: figures.used(tenant, metric),
            limit: quotas.of(metric),
            window: Window::of(metric, now),
        };
        let before = figures.watch(tenant, metric);
        let (watch, told) = Watch::after(before, &reading, thresholds, now)?;
        (before != Some(watch)).then_some(News { reading, thresholds, watch, told })
    };
    settings.quota_alerts.keys().filter_map(|metric| of(*metric)).collect()
}

impl News {
    /// The figures of an event, for its receivers.
    fn payload(&self, severity: Severity) -> Map<String, Value> {
        let Reading { metric, used, limit, window } = self.reading;
        let [warning, critical] = self.thresholds;
        let threshold = match severity {
            Severity::Warning => warning,
            Severity::Critical => critical,
        };
        let window = window
            .map(|window| json!({"start": window.start.rfc3339(), "end": window.end.rfc3339()}));
        Map::from_iter([
            ("metric".to_owned(), metric.as_str().into()),
            ("used".to_owned(), used.into()),
            ("limit".to_owned(), limit.into()),
            ("percent".to_owned(), utilization_percent(used, limit).into()),
            ("threshold".to_owned(), threshold.percent().into()),
            ("window".to_owned(), window.unwrap_or(Value::Null)),
        ])
    }
}
