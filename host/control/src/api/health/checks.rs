//! The checks that a tenant's health consists of, each with a bound on its time.
//!
//! Run by [`super::tenant`], at most once per tenant and two seconds. Invariant: only the
//! database can make a tenant unhealthy; quota and billing are the tenant's own business
//! and warn at most.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use model::{
    clock::Clock,
    gate::MeteredUsage,
    quota::{BYTES_PER_MB, Metric, Quotas, utilization_percent, whole_mb},
    tenant::{Status, SuspendReason, Tenant},
};
use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    api::Api,
    store::{PoolCap, SetAside, StoreError},
};

/// How long a check may take, in ms: a part that needs longer is not well.
const CHECK_MS_MAX: u64 = 1_000;
/// From which utilisation on a quota warns, in percent.
const QUOTA_WARNS_PERCENT: u64 = 80;

/// How well something is; the worst is the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Wellness {
    Healthy,
    Warning,
    Unhealthy,
}

/// What came of one check.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct Check {
    pub(super) status: Wellness,
    /// For people.
    pub(super) detail: String,
    pub(super) latency_ms: u64,
}

impl Check {
    fn new(status: Wellness, detail: impl Into<String>, latency_ms: u64) -> Self {
        Self { status, detail: detail.into(), latency_ms }
    }
}

/// What the database tells of a tenant.
pub(super) struct Figures {
    /// What it has of everything that is reported.
    pub(super) levels: BTreeMap<Metric, u64>,
    /// What shared pools above it allow, in the place of quotas.
    caps: BTreeMap<Metric, PoolCap>,
    /// What is set aside of levels.
    set_aside: BTreeMap<Metric, SetAside>,
    /// Charged API calls of this UTC day, as of the last sample (a minute).
    pub(super) calls_today: u64,
}

/// Reads the tenant's own rows, in its own context.
pub(super) async fn database(api: &Api, tenant: &Tenant) -> (Check, Option<Figures>) {
    let (read, ms) = timed(&*api.clock, figures(api, tenant)).await;
    match read {
        Some(Ok(figures)) => {
            (Check::new(Wellness::Healthy, "the tenant's rows were read", ms), Some(figures))
        }
        Some(Err(error)) => {
            log(&error);
            (Check::new(Wellness::Unhealthy, "the tenant's rows could not be read", ms), None)
        }
        None => (Check::new(Wellness::Unhealthy, too_late(), ms), None),
    }
}

async fn figures(api: &Api, tenant: &Tenant) -> Result<Figures, StoreError> {
    let catalog = Arc::clone(&api.catalog.borrow());
    let mut levels = api.store.levels(tenant.id).await?;
    let sessions = api.store.levels_of(Metric::ConcurrentSessions, &[tenant.id]).await?;
    levels.extend(sessions.into_values().map(|count| (Metric::ConcurrentSessions, count)));
    Ok(Figures {
        caps: api.store.pool_caps(tenant.id, &catalog).await?,
        levels,
        set_aside: api.store.set_aside(tenant.id).await?,
        calls_today: api.store.calls_on(tenant.id, api.clock.now()).await?,
    })
}

/// Waits until the data plane here serves from what the database has committed by now.
pub(super) async fn cache(api: &Api) -> Check {
    let (reached, ms) = timed(&*api.clock, api.store.reach_head()).await;
    let l2 = "no L2 (Redis) is configured";
    match reached {
        Some(Ok(version)) => {
            let detail = format!("L1 holds directory version {version}, the newest; {l2}");
            Check::new(Wellness::Healthy, detail, ms)
        }
        Some(Err(error)) => {
            log(&error);
            let detail = format!("L1 serves its last state: the database cannot be asked; {l2}");
            Check::new(Wellness::Warning, detail, ms)
        }
        None => {
            let detail = format!("L1 is behind the database for {CHECK_MS_MAX} ms or more; {l2}");
            Check::new(Wellness::Warning, detail, ms)
        }
    }
}

/// What was consumed, if the authority says so in time.
pub(super) async fn consumption(api: &Api, tenant: &Tenant) -> (Option<MeteredUsage>, u64) {
    let (usage, ms) =
        timed(&*api.clock, api.usage.usage(tenant.id, api.store.quota_anchor(tenant))).await;
    (usage.and_then(Result::ok), ms)
}

/// Compares what is used with the quotas.
pub(super) fn quota(
    quotas: Option<Quotas>,
    figures: Option<&Figures>,
    (consumed, ms): (Option<MeteredUsage>, u64),
) -> Check {
    let warning = |detail: &str| Check::new(Wellness::Warning, detail, ms);
    let Some(quotas) = quotas else { return warning("the tenant's plan is no longer declared") };
    let Some(Figures { levels, caps, set_aside, .. }) = figures else {
        return warning("the levels could not be read");
    };
    let Some(consumed) = consumed else { return warning("the quota authority did not answer") };
    let used = |metric| match metric {
        Metric::ApiCalls => consumed.api_calls_this_month,
        Metric::AiRequests => consumed.ai_requests_today,
        Metric::Storage => whole_mb(levels.get(&metric).copied().unwrap_or(0)),
        level => levels.get(&level).copied().unwrap_or(0),
    };
    let limit = |metric| match (caps.get(&metric), metric) {
        (None, _) => quotas.of(metric),
        (Some(cap), Metric::Storage) => cap.limit / BYTES_PER_MB,
        (Some(cap), _) => cap.limit,
    };
    let percent = |metric| utilization_percent(used(metric), limit(metric));
    let near: Vec<String> = Metric::ALL
        .into_iter()
        .filter(|metric| is_near(used(*metric), limit(*metric)))
        .map(|metric| format!("{} at {} %", metric.as_str(), percent(metric)))
        .chain(set_aside.iter().filter_map(|(metric, of)| unresolved(*metric, *of)))
        .collect();
    if near.is_empty() {
        let detail = format!("every quota is below {QUOTA_WARNS_PERCENT} %");
        Check::new(Wellness::Healthy, detail, ms)
    } else {
        warning(&near.join(", "))
    }
}

/// What is held back for requests of which nobody knows what became.
fn unresolved(metric: Metric, of: SetAside) -> Option<String> {
    let unit = if metric == Metric::Storage { " bytes" } else { "" };
    let SetAside { unresolved, .. } = of;
    (unresolved > 0)
        .then(|| format!("{unresolved}{unit} of {} set aside, outcome unknown", metric.as_str()))
}

/// Whether so much of a quota is used that it warns; exact, where a percentage is rounded.
fn is_near(used: u64, limit: u64) -> bool {
    let threshold = u128::from(limit) * u128::from(QUOTA_WARNS_PERCENT);
    used > 0 && u128::from(used) * 100 >= threshold
}

/// Reads the status of the tenant.
pub(super) fn billing(tenant: &Tenant, effective: Status) -> Check {
    let warning = |detail: &str| Check::new(Wellness::Warning, detail, 0);
    if effective != tenant.status {
        return warning("a tenant above this one is suspended or being erased");
    }
    match (tenant.status, tenant.suspend_reason) {
        (Status::PastDue, _) => warning("an invoice is open"),
        (Status::Suspended, Some(SuspendReason::Unpaid)) => warning("suspended: unpaid"),
        (Status::Suspended, Some(SuspendReason::TrialExpired)) => {
            warning("suspended: the trial has expired")
        }
        (status, _) => {
            let detail = format!("nothing is owed; the tenant is {}", status.as_str());
            Check::new(Wellness::Healthy, detail, 0)
        }
    }
}

/// The outcome within [`CHECK_MS_MAX`], and how long it took in ms.
async fn timed<T>(clock: &dyn Clock, work: impl Future<Output = T>) -> (Option<T>, u64) {
    let begun = clock.monotonic_ms();
    let outcome = tokio::time::timeout(Duration::from_millis(CHECK_MS_MAX), work).await.ok();
    (outcome, clock.monotonic_ms().saturating_sub(begun))
}

fn too_late() -> String {
    format!("no answer within {CHECK_MS_MAX} ms")
}

fn log(error: &StoreError) {
    tracing::warn!(%error, "a health check found the store failing");
}
