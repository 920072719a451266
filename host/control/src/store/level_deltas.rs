//! Changes of levels that responses reported, counted in batches.
//!
//! An edge hands its journal over batch by batch, each as one transaction; one that comes
//! again, because its answer was lost or its edge restarted, changes nothing. Such a change
//! is a fact, not a claim: no quota and no pool refuses it. Invariant: a batch is counted
//! whole and once, and levels are taken in the order of tenant and metric, so that two
//! batches never wait for each other.

use model::{clock::UnixMs, level::LevelBatch, level::LevelChange};

use super::{
    Store, StoreError,
    authority::int,
    db::{ControlTx, Purpose, sql},
    levels,
    rows::stored,
};

/// How long a journal is remembered after its last batch, in ms: a year, the longest that
/// an edge with an old journal may stay off.
const JOURNAL_KEPT_MS: u64 = 365 * 86_400_000;

impl Store {
    /// Counts a batch; false when it was counted before. A level ends at 0, and a change of
    /// a tenant that is not there is dropped. Durable when answered.
    ///
    /// # Errors
    /// The store failed; the batch may be handed over again.
    pub async fn apply_level_deltas(&self, batch: &LevelBatch) -> Result<bool, StoreError> {
        let mut tx = self.db.control(Purpose::Account).await?;
        let outcome = apply(&mut tx, batch, self.clock.now()).await;
        tx.end(outcome).await
    }
}

async fn apply(tx: &mut ControlTx, batch: &LevelBatch, now: UnixMs) -> Result<bool, StoreError> {
    if !is_next(tx, batch, now).await? {
        return Ok(false);
    }
    let mut changes = batch.changes.clone();
    changes.sort_unstable_by_key(|change| (change.tenant, change.metric));
    for change in changes {
        count(tx, change, now).await?;
    }
    forget(tx, now).await?;
    Ok(true)
}

/// Takes the batch's place in its journal; false when it, or a later one, has it.
async fn is_next(tx: &mut ControlTx, batch: &LevelBatch, now: UnixMs) -> Result<bool, StoreError> {
    let taken = sql("INSERT INTO level_journal (journal, number, applied_at) VALUES ($1, $2, $3)
         ON CONFLICT (journal)
         DO UPDATE SET number = excluded.number, applied_at = excluded.applied_at
         WHERE level_journal.number < excluded.number")
    .bind(batch.journal)
    .bind(int(batch.number))
    .bind(stored(now))
    .execute(tx)
    .await?;
    Ok(taken == 1)
}

async fn count(tx: &mut ControlTx, change: LevelChange, now: UnixMs) -> Result<(), StoreError> {
    let LevelChange { tenant, metric, delta } = change;
    let known: Option<(String,)> =
        sql("SELECT slug FROM tenant WHERE id = $1").bind(tenant.0).optional(tx).await?;
    if known.is_none() {
        tracing::warn!(%tenant, metric = metric.as_str(), delta, "a level of no tenant is dropped");
        return Ok(());
    }
    let level = levels::hold(tx, tenant, metric, now).await?;
    let level = level.used.saturating_add_signed(delta).min(levels::LEVEL_MAX);
    levels::set(tx, tenant, metric, level, now).await
}

async fn forget(tx: &mut ControlTx, now: UnixMs) -> Result<(), StoreError> {
    sql("DELETE FROM level_journal WHERE applied_at < $1")
        .bind(stored(UnixMs(now.0.saturating_sub(JOURNAL_KEPT_MS))))
        .execute(tx)
        .await
        .map(drop)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use model::{quota::Metric, tenant::TenantId};
    use uuid::Uuid;

    use super::*;
    use crate::testing::{Backend, Control, acme, on_both};

    on_both![
        changes_move_levels_and_none_falls_below_nothing,
        a_batch_that_comes_again_is_not_counted_again,
        a_tenant_that_is_not_there_costs_only_its_own_change,
        journals_do_not_wait_for_each_other,
        old_journals_are_forgotten,
    ];

    const JOURNAL: Uuid = Uuid::from_u128(7);

    struct Setting {
        control: Control,
        acme: TenantId,
    }

    impl Setting {
        async fn on(backend: Backend) -> Self {
            let control = Control::start(backend).await;
            let created = control.create(&acme()).await;
            let acme = created["id"].as_str().and_then(|id| id.parse().ok()).expect("an id");
            Self { control, acme }
        }

        fn batch(&self, number: u64, deltas: &[(Metric, i64)]) -> LevelBatch {
            let change = |&(metric, delta)| LevelChange { tenant: self.acme, metric, delta };
            LevelBatch { journal: JOURNAL, number, changes: deltas.iter().map(change).collect() }
        }

        async fn apply(&self, batch: &LevelBatch) -> bool {
            self.control.store.apply_level_deltas(batch).await.expect("the store answers")
        }

        async fn levels(&self) -> BTreeMap<Metric, u64> {
            self.control.store.levels(self.acme).await.expect("levels")
        }
    }

    async fn changes_move_levels_and_none_falls_below_nothing(on: Backend) {
        let s = Setting::on(on).await;
        assert!(s.apply(&s.batch(1, &[(Metric::Users, 2), (Metric::Storage, 5_000_000)])).await);
        assert!(s.apply(&s.batch(2, &[(Metric::Users, -5), (Metric::Storage, -1)])).await);
        let levels = s.levels().await;
        assert_eq!(levels, [(Metric::Storage, 4_999_999), (Metric::Users, 0)].into());
        assert!(s.apply(&s.batch(3, &[(Metric::Storage, i64::MAX)])).await);
        assert_eq!(s.levels().await[&Metric::Storage], levels::LEVEL_MAX);
    }

    async fn a_batch_that_comes_again_is_not_counted_again(on: Backend) {
        let s = Setting::on(on).await;
        let (second, first) =
            (s.batch(2, &[(Metric::Users, 2)]), s.batch(1, &[(Metric::Users, 9)]));
        assert!(s.apply(&second).await);
        assert!(!s.apply(&second).await);
        assert!(!s.apply(&first).await, "its turn is over");
        assert_eq!(s.levels().await[&Metric::Users], 2);
        assert!(s.apply(&LevelBatch { journal: Uuid::from_u128(8), ..first }).await);
        assert_eq!(s.levels().await[&Metric::Users], 11);
    }

    async fn a_tenant_that_is_not_there_costs_only_its_own_change(on: Backend) {
        let s = Setting::on(on).await;
        let mut batch = s.batch(1, &[(Metric::Projects, 3)]);
        let stranger = TenantId(Uuid::from_u128(9));
        let change = LevelChange { tenant: stranger, metric: Metric::Users, delta: 1 };
        batch.changes.insert(0, change);
        assert!(s.apply(&batch).await);
        assert_eq!(s.levels().await[&Metric::Projects], 3);
    }

    async fn journals_do_not_wait_for_each_other(on: Backend) {
        let s = Arc::new(Setting::on(on).await);
        let edges = (0..4_u128).map(|edge| {
            let s = Arc::clone(&s);
            tokio::spawn(async move {
                for number in 1..=10 {
                    // Each in another order.
                    let mut deltas =
                        [(Metric::Users, 1), (Metric::Storage, 10), (Metric::Projects, 2)];
                    deltas.rotate_left(edge as usize % 3);
                    let journal = Uuid::from_u128(100 + edge);
                    s.apply(&LevelBatch { journal, ..s.batch(number, &deltas) }).await;
                }
            })
        });
        for edge in edges.collect::<Vec<_>>() {
            edge.await.expect("an edge");
        }
        let want = [(Metric::Storage, 400), (Metric::Users, 40), (Metric::Projects, 80)];
        assert_eq!(s.levels().await, want.into());
    }

    async fn old_journals_are_forgotten(on: Backend) {
        let s = Setting::on(on).await;
        assert!(s.apply(&s.batch(5, &[(Metric::Users, 1)])).await);
        s.control.clock.advance_ms(JOURNAL_KEPT_MS + 1);
        let other = LevelBatch { journal: Uuid::from_u128(8), ..s.batch(1, &[]) };
        assert!(s.apply(&other).await);
        assert!(s.apply(&s.batch(5, &[(Metric::Users, 1)])).await);
    }
}
