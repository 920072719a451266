//! The evaluation: looks at every tenant that watches something, and writes only where
//! something has changed.
//!
//! Run every second or two by any number of processes. A page is judged on one committed
//! state, without a lock; a tenant with news is then judged anew under the lock of its
//! settings, and what follows (its state, its events) is one commit. Invariant: a tenant's
//! state is written by one process at a time, on figures read while it held the lock.

use std::{collections::BTreeMap, sync::Arc};

use model::{
    anchor::Anchor,
    catalog::Catalog,
    clock::UnixMs,
    directory::TenantRecord,
    quota::{BYTES_PER_MB, Metric, Quotas, utilization_percent, whole_mb},
    tenant::{Status, TenantId},
    window::Window,
};
use serde_json::{Map, Value, json};

use super::{
    super::{
        Store, StoreError,
        authority::{int, uint},
        db::{ControlTx, Purpose, sql_each},
        outbox::{self, EventKind},
        rows::Span,
    },
    AlertSettings, Severity, Threshold, parsed,
    pooled::Pooled,
    usage,
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

/// What a tenant's use is compared with.
#[derive(Default)]
struct Limits {
    /// By metric, in the unit in which it is counted.
    of: BTreeMap<Metric, u64>,
    /// When its months begin.
    anchor: Anchor,
}

/// What a page shows.
struct Page {
    /// Tenants in it, and the last of them.
    tenants: u64,
    last: TenantId,
    /// Those with news.
    news: Vec<TenantId>,
}

impl Store {
    /// Inserts an event for every threshold that was reached since the last time, under the
    /// quotas of `catalog`. A tenant with a value that this release cannot read, or whose rows
    /// somebody holds, is logged and passed over; the others are not kept waiting by it.
    ///
    /// # Errors
    /// The store failed, for some tenants (this is the first failure) or for all; what could
    /// be committed is.
    pub async fn evaluate_alerts(&self, catalog: &Catalog) -> Result<Evaluated, StoreError> {
        self.evaluate_in_pages(catalog, PAGE_TENANTS).await
    }

    pub(super) async fn evaluate_in_pages(
        &self,
        catalog: &Catalog,
        page_tenants: u32,
    ) -> Result<Evaluated, StoreError> {
        let mut done = Evaluated::default();
        let mut failed = None;
        let mut after = TenantId(uuid::Uuid::nil());
        loop {
            let mut tx = self.db.control(Purpose::Read).await?;
            let page = self.look(&mut tx, catalog, after, page_tenants).await;
            let Some(page) = tx.end(page).await? else {
                return failed.map_or(Ok(done), Err);
            };
            for tenant in page.news {
                // Where none can be begun, the failure is everybody's.
                let tx = self.db.control(Purpose::Write).await?;
                match self.tell(tx, catalog, tenant).await {
                    Ok(events) => done.events += events,
                    Err(StoreError::Decode(what)) => unreadable(tenant, &what),
                    Err(error) => {
                        tracing::error!(%tenant, %error, "the alerts of a tenant were not stored");
                        failed.get_or_insert(error);
                    }
                }
            }
            done.tenants += page.tenants;
            after = page.last;
        }
    }

    /// Judges the next page without changing anything; `None` behind the last one.
    async fn look(
        &self,
        tx: &mut ControlTx,
        catalog: &Catalog,
        after: TenantId,
        page_tenants: u32,
    ) -> Result<Option<Page>, StoreError> {
        let now = self.clock.now();
        let figures = Figures::page(tx, after, page_tenants, now).await?;
        let (Some((first, _)), Some((last, _))) =
            (figures.settings.first(), figures.settings.last())
        else {
            return Ok(None);
        };
        let span = Span { first: first.0, last: last.0 };
        let readable = figures.settings.iter();
        let readable = readable.filter_map(|(id, held)| Some((*id, held.as_ref().ok()?)));
        let pooled = Pooled::of(tx, span, readable, catalog).await?;
        let mut page = Page { tenants: 0, last: *last, news: Vec::new() };
        for (tenant, settings) in &figures.settings {
            page.tenants += 1;
            match settings {
                Err(error) => unreadable(*tenant, &error.to_string()),
                Ok(settings) => {
                    let limits = self.limits(catalog, *tenant, settings, &pooled);
                    if !news(*tenant, settings, &figures, &limits, now).is_empty() {
                        page.news.push(*tenant);
                    }
                }
            }
        }
        Ok(Some(page))
    }

    /// The limits in force of what is watched, as the usage API has them; none for a tenant
    /// whose plan is not declared, or that is going.
    fn limits(
        &self,
        catalog: &Catalog,
        tenant: TenantId,
        settings: &AlertSettings,
        pooled: &Pooled,
    ) -> Limits {
        let Some((quotas, tenant)) = self.quotas(catalog, tenant) else {
            return Limits::default();
        };
        let anchor = self.quota_anchor(&tenant.tenant);
        let tenant = tenant.tenant.id;
        let limit = |metric| pooled.limit(tenant, metric).unwrap_or(quotas.level_limit(metric));
        let of = settings.quota_alerts.keys().map(|metric| (*metric, limit(*metric))).collect();
        Limits { of, anchor }
    }

    /// A tenant's own quotas, and the tenant.
    fn quotas(&self, catalog: &Catalog, tenant: TenantId) -> Option<(Quotas, Arc<TenantRecord>)> {
        let directory = self.published.directory().borrow();
        let record = directory.record(tenant)?;
        let tenant = &record.tenant;
        let goes = matches!(tenant.status, Status::Erasing | Status::Erased);
        let quotas = catalog.quotas_of(tenant).filter(|_| !goes)?;
        Some((quotas, Arc::clone(record)))
    }

    /// Judges one tenant under its lock; how many events that makes.
    async fn tell(
        &self,
        mut tx: ControlTx,
        catalog: &Catalog,
        tenant: TenantId,
    ) -> Result<u64, StoreError> {
        let told = async {
            let Some(settings) = held(&mut tx, tenant).await? else { return Ok(0) };
            let watching = std::iter::once((tenant, &settings));
            let pooled = Pooled::of(&mut tx, Span::one(tenant), watching, catalog).await?;
            let limits = self.limits(catalog, tenant, &settings, &pooled);
            tell(&mut tx, tenant, &settings, &limits, self.clock.now()).await
        }
        .await;
        tx.end(told).await
    }
}

fn unreadable(tenant: TenantId, what: &str) {
    tracing::error!(%tenant, what, "the alerts of a tenant cannot be evaluated");
}

/// The settings of a tenant, locked until the end; `None` while another process has them:
/// it does the same work.
async fn held(tx: &mut ControlTx, tenant: TenantId) -> Result<Option<AlertSettings>, StoreError> {
    let row: Option<(String,)> = sql_each(
        "SELECT document FROM alert_settings WHERE tenant_id = $1",
        "SELECT document FROM alert_settings WHERE tenant_id = $1 FOR UPDATE SKIP LOCKED",
    )
    .bind(tenant.0)
    .optional(tx)
    .await?;
    row.map(|(document,)| parsed(&document)).transpose()
}

async fn tell(
    tx: &mut ControlTx,
    tenant: TenantId,
    settings: &AlertSettings,
    limits: &Limits,
    now: UnixMs,
) -> Result<u64, StoreError> {
    let figures = Figures::of(tx, Span::one(tenant), now).await?;
    let mut events = 0;
    for news in news(tenant, settings, &figures, limits, now) {
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
    limits: &Limits,
    now: UnixMs,
) -> Vec<News> {
    let of = |metric: Metric| {
        let thresholds = settings.thresholds(metric)?;
        let reading = Reading {
            metric,
            used: figures.used(tenant, metric),
            // As far as the database can hold it, where it is compared with the next.
            limit: uint(int(*limits.of.get(&metric)?)),
            window: Window::of(metric, now, limits.anchor),
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
        let percent = utilization_percent(used, limit);
        let (used, limit) = match metric {
            // In MB, as usage and quotas are shown.
            Metric::Storage => (whole_mb(used), limit / BYTES_PER_MB),
            _ => (used, limit),
        };
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
            ("percent".to_owned(), percent.into()),
            ("threshold".to_owned(), threshold.percent().into()),
            ("window".to_owned(), window.unwrap_or(Value::Null)),
        ])
    }
}
