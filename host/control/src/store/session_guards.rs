//! Guards of the sessions that a shared registry counts.
//!
//! Asked once per family and life of its registry. Invariants: an answer is durable, since
//! a guard that was forgotten would let a later one hold at once; and of several edges that
//! miss the same guard one records the next.

use model::{
    BoxFuture,
    clock::UnixMs,
    ledger::AuthorityError,
    sessions::{GuardRecord, GuardStore},
    tenant::TenantId,
};

use super::{
    Store, StoreError,
    authority::{int, uint},
    db::{ControlTx, Purpose, sql},
    rows::stored,
};

impl GuardStore for Store {
    fn record_guard(
        &self,
        family: TenantId,
        fence: String,
        after: u64,
    ) -> BoxFuture<'_, Result<GuardRecord, AuthorityError>> {
        Box::pin(async move {
            let recorded = self.record_session_guard(family, &fence, after).await;
            recorded.map_err(|error| AuthorityError(Box::new(error)))
        })
    }
}

impl Store {
    async fn record_session_guard(
        &self,
        family: TenantId,
        fence: &str,
        after: u64,
    ) -> Result<GuardRecord, StoreError> {
        let mut tx = self.db.control(Purpose::Account).await?;
        let outcome = record(&mut tx, family, fence, after, self.clock.now()).await;
        tx.end(outcome).await
    }
}

async fn record(
    tx: &mut ControlTx,
    family: TenantId,
    fence: &str,
    after: u64,
    now: UnixMs,
) -> Result<GuardRecord, StoreError> {
    let statement = match after {
        0 => sql("INSERT INTO quota_session_guard (tenant_id, number, fence, recorded_at)
             VALUES ($1, $2 + 1, $3, $4) ON CONFLICT (tenant_id) DO NOTHING"),
        _ => sql("UPDATE quota_session_guard SET number = $2 + 1, fence = $3, recorded_at = $4
             WHERE tenant_id = $1 AND number = $2"),
    };
    let statement = statement.bind(family.0).bind(int(after)).bind(fence).bind(stored(now));
    if statement.execute(tx).await? == 1 {
        return Ok(GuardRecord::Recorded { number: after.saturating_add(1) });
    }
    let latest: Option<(i64,)> = sql("SELECT number FROM quota_session_guard WHERE tenant_id = $1")
        .bind(family.0)
        .optional(tx)
        .await?;
    Ok(GuardRecord::Lost { number: latest.map_or(0, |(number,)| uint(number)) })
}

#[cfg(test)]
mod tests {
    use model::sessions::{GuardRecord, GuardStore};
    use uuid::Uuid;

    use super::*;
    use crate::testing::{Backend, Control, on_both};

    on_both![
        guards_of_a_family_are_numbered_and_one_of_many_records_the_next,
        a_guard_outlives_the_process,
    ];

    const FAMILY: TenantId = TenantId(Uuid::from_u128(7));
    const OTHER: TenantId = TenantId(Uuid::from_u128(8));

    async fn guard(store: &Store, family: TenantId, after: u64) -> GuardRecord {
        store.record_guard(family, "redis:0a:0b".to_owned(), after).await.expect("an answer")
    }

    async fn guards_of_a_family_are_numbered_and_one_of_many_records_the_next(on: Backend) {
        let control = Control::start(on).await;
        let store = &control.store;
        for (after, number) in [(0, 1), (1, 2)] {
            let many = (0..4).map(|_| guard(store, FAMILY, after));
            let answers = futures_util::future::join_all(many).await;
            let recorded = GuardRecord::Recorded { number };
            let winners = answers.iter().filter(|answer| **answer == recorded).count();
            let losers =
                answers.iter().filter(|answer| **answer == GuardRecord::Lost { number }).count();
            assert_eq!((winners, losers), (1, 3), "{answers:?}");
        }
        assert_eq!(guard(store, FAMILY, 9).await, GuardRecord::Lost { number: 2 });
        assert_eq!(guard(store, OTHER, 3).await, GuardRecord::Lost { number: 0 });
        assert_eq!(guard(store, OTHER, 0).await, GuardRecord::Recorded { number: 1 });
    }

    async fn a_guard_outlives_the_process(on: Backend) {
        let database = on.database();
        let store = database.open().await;
        assert_eq!(guard(&store, FAMILY, 0).await, GuardRecord::Recorded { number: 1 });
        store.close().await;
        drop(store);
        let store = database.open().await;
        assert_eq!(guard(&store, FAMILY, 0).await, GuardRecord::Lost { number: 1 });
    }
}
