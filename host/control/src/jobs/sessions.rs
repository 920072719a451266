//! Copies how many sessions tenants have from their registry into usage, for alerts and
//! trends.
//!
//! Each edge asks about the tenants that it serves, and now and then about those that have
//! sessions by the last count and that it does not serve: their edge may be gone. Invariant:
//! a registry that does not answer changes no count.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use model::tenant::TenantId;
use tokio::task::JoinSet;

use super::JobDeps;
use crate::store::StoreError;

/// How often it asks, in ms (5 s): as often as sessions are kept alive, so that a count is as
/// old as a heartbeat.
pub(super) const EVERY_MS: u64 = 5_000;
/// Every so many times it asks about other edges' tenants too (12: a minute): all edges do,
/// and the answer is of use only when their own edge is gone.
const OTHERS_EVERY: u64 = 12;
/// Questions that are with the registry at once (32): as many as one round trip hides.
const ASKED_MAX: usize = 32;

/// How often it has asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Rounds(Arc<AtomicU64>);

/// Brings the counts up to the registry.
///
/// # Errors
/// The store failed; the next run goes on.
pub(super) async fn run(deps: Arc<JobDeps>, rounds: Rounds) -> Result<(), StoreError> {
    let mut asked = deps.sessions.here();
    let stored = deps.store.session_levels().await?;
    if rounds.0.fetch_add(1, Ordering::Relaxed).is_multiple_of(OTHERS_EVERY) {
        stored.keys().for_each(|tenant| {
            asked.entry(*tenant).or_default();
        });
    }
    let mut counts = count(&deps, asked).await;
    counts.retain(|tenant, count| stored.get(tenant).copied().unwrap_or(0) != *count);
    if !counts.is_empty() {
        let changed = deps.store.put_session_levels(&counts).await?;
        tracing::debug!(changed, "sessions were counted");
    }
    Ok(())
}

/// The counts of tenants, of those that have an answer. What is alive here counts in any
/// case: a registry that has just lost its memory knows of it at the next heartbeat.
async fn count(deps: &Arc<JobDeps>, here: BTreeMap<TenantId, u64>) -> BTreeMap<TenantId, u64> {
    let (mut counts, mut asking) = (BTreeMap::new(), JoinSet::new());
    let mut take = |answer| {
        if let Ok(Some((tenant, count))) = answer {
            counts.insert(tenant, count);
        }
    };
    for (tenant, alive) in here {
        if asking.len() >= ASKED_MAX
            && let Some(answer) = asking.join_next().await
        {
            take(answer);
        }
        let sessions = Arc::clone(&deps.sessions);
        asking.spawn(async move {
            let count = sessions.count(tenant).await.ok()?;
            Some((tenant, count.max(alive)))
        });
    }
    while let Some(answer) = asking.join_next().await {
        take(answer);
    }
    counts
}

#[cfg(test)]
mod tests {
    use model::quota::Metric;
    use serde_json::json;

    use super::*;
    use crate::{
        store::{BucketLength, TrendSpan},
        testing::{Backend, Control, acme, id_of, on_both},
    };

    on_both![
        sessions_reach_alerts_and_trends_and_leave_them_again,
        a_tenant_whose_edge_is_gone_is_asked_about_now_and_then,
        a_registry_that_does_not_answer_changes_nothing,
        what_is_alive_here_counts_when_the_registry_has_forgotten_it,
    ];

    struct Setting {
        control: Control,
        tenant: TenantId,
        rounds: Rounds,
    }

    impl Setting {
        async fn on(backend: Backend) -> Self {
            let control = Control::start(backend).await;
            let mut acme = acme();
            acme["plan"] = "team".into();
            let tenant = id_of(&control.create(&acme).await);
            Self { control, tenant, rounds: Rounds::default() }
        }

        /// What the registry says, and how many of it are at this edge.
        fn alive(&self, everywhere: Option<u64>, here: Option<u64>) {
            *self.control.sessions.0.lock().expect("not poisoned") = everywhere;
            *self.control.sessions.1.lock().expect("not poisoned") =
                here.map(|here| (self.tenant, here)).into_iter().collect();
        }

        async fn round(&self) {
            let deps = Arc::new(self.control.deps.clone());
            run(deps, self.rounds.clone()).await.expect("a round");
        }

        async fn level(&self) -> u64 {
            let levels = self.control.store.session_levels().await.expect("levels");
            levels.get(&self.tenant).copied().unwrap_or(0)
        }

        /// By hour: the one before, and this one.
        async fn trend(&self) -> Vec<u64> {
            let now = model::clock::Clock::now(&*self.control.clock);
            let span = TrendSpan::until(now, BucketLength::Hour, 2);
            let metric = Metric::ConcurrentSessions;
            let trends = self.control.store.trends(self.tenant, &[metric], span).await;
            trends.expect("trends")[&metric].clone()
        }

        async fn events(&self) -> u64 {
            let catalog = Arc::clone(&self.control.deps.catalog.borrow());
            self.control.store.evaluate_alerts(&catalog).await.expect("an evaluation").events
        }
    }

    async fn sessions_reach_alerts_and_trends_and_leave_them_again(on: Backend) {
        let setting = Setting::on(on).await;
        let path = format!("/api/v1/tenants/{}/alerts", setting.tenant);
        let rule = json!({
            "warning_threshold": 80, "critical_threshold": 100, "notification_channels": [],
        });
        let alerts = json!({"quota_alerts": {"concurrent_sessions": rule}});
        let answer = setting.control.json("PUT", &path, &alerts).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        setting.alive(Some(7), Some(3));
        setting.round().await;
        assert_eq!((setting.level().await, setting.events().await), (7, 0), "of ten");
        setting.alive(Some(8), Some(3));
        setting.round().await;
        assert_eq!((setting.level().await, setting.events().await), (8, 1), "80 percent");
        assert_eq!(setting.trend().await, [0, 8]);
        setting.control.clock.advance_ms(3_600_000);
        setting.alive(Some(2), Some(2));
        setting.round().await;
        assert_eq!(setting.trend().await, [8, 2]);
        assert_eq!(setting.events().await, 0, "it is armed again");
        setting.alive(Some(10), Some(2));
        setting.round().await;
        assert_eq!(setting.events().await, 2, "both thresholds at once");
        let reported = setting.control.store.levels(setting.tenant).await.expect("levels");
        assert!(reported.is_empty(), "no backend reported any of it: {reported:?}");
    }

    async fn a_tenant_whose_edge_is_gone_is_asked_about_now_and_then(on: Backend) {
        let setting = Setting::on(on).await;
        setting.alive(Some(4), Some(4));
        setting.round().await;
        assert_eq!(setting.level().await, 4);
        setting.alive(Some(0), None);
        for _ in 1..OTHERS_EVERY {
            setting.round().await;
            assert_eq!(setting.level().await, 4, "its own edge would say so sooner");
        }
        setting.round().await;
        assert_eq!(setting.level().await, 0);
        assert_eq!(setting.trend().await, [0, 0]);
    }

    async fn a_registry_that_does_not_answer_changes_nothing(on: Backend) {
        let setting = Setting::on(on).await;
        setting.alive(Some(4), Some(4));
        setting.round().await;
        setting.alive(None, Some(1));
        setting.round().await;
        assert_eq!(setting.level().await, 4);
    }

    async fn what_is_alive_here_counts_when_the_registry_has_forgotten_it(on: Backend) {
        let setting = Setting::on(on).await;
        setting.alive(Some(0), Some(3));
        setting.round().await;
        assert_eq!(setting.level().await, 3);
    }
}
