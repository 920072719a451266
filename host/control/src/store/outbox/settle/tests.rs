use std::{sync::Arc, time::Duration};

use model::tenant::TenantId;
use serde_json::json;

use super::*;
use crate::{
    store::{DeliveryState, alerts::tests::Bench, db::Statement},
    testing::{Backend, on_both},
};

const URL: &str = "https://acme.example/hook";

/// Two deliveries to one endpoint, both claimed, oldest first.
async fn two_claimed(bench: &Bench) -> [Claimed; 2] {
    bench
        .put(json!({
            "quota_alerts": {},
            "defaults": {"notification_channels": ["webhook"], "webhook_url": URL},
        }))
        .await;
    for _ in 0..2 {
        bench.store.tell_plan_changed(bench.tenant).await;
        bench.clock.advance_ms(1);
    }
    let mut claimed = bench.store.claim_deliveries(10).await.expect("a claim");
    claimed.sort_by_key(|one| one.event);
    claimed.try_into().expect("two")
}

fn gone() -> Outcome {
    Outcome::Gone("gone".to_owned())
}

fn insert_gone(tenant: TenantId) -> Statement<'static> {
    sql("INSERT INTO webhook_gone (tenant_id, url, since) VALUES ($1, $2, 1)")
        .bind(tenant.0)
        .bind(URL)
}

async fn states(bench: &Bench) -> Vec<DeliveryState> {
    let events = bench.events().await;
    events.iter().flat_map(|event| &event.deliveries).map(|one| one.state).collect()
}

/// Settles both as gone once `blocker` has made both wait; how many decided.
async fn settle_behind(bench: &Bench, claimed: &[Claimed; 2], blocker: ControlTx) -> usize {
    let settle = |one: &Claimed| {
        let (store, one) = (Arc::clone(&bench.store), one.clone());
        tokio::spawn(async move { store.settle_delivery(&one, &gone()).await })
    };
    let mut settling = Vec::new();
    for (n, one) in claimed.iter().enumerate() {
        settling.push(settle(one));
        while waiting(bench).await < n + 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    // Undone: what it held is free again.
    let undone: Result<(), StoreError> = blocker.end(Err(StoreError::Failed)).await;
    undone.expect_err("undone");
    let mut decided = 0;
    for settled in settling {
        decided += usize::from(settled.await.expect("no panic").expect("no deadlock"));
    }
    decided
}

/// Transactions of this database that wait for a lock.
async fn waiting(bench: &Bench) -> usize {
    let mut tx = bench.store.db.control(Purpose::Read).await.expect("a transaction");
    let count = sql("SELECT count(DISTINCT l.pid) FROM pg_locks l
         JOIN pg_stat_activity a ON a.pid = l.pid
         WHERE NOT l.granted AND a.datname = current_database()")
    .one(&mut tx)
    .await;
    let (count,): (i64,) = tx.end(count).await.expect("a count");
    usize::try_from(count).expect("a count")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_who_hear_at_once_that_an_endpoint_is_gone_do_not_deadlock() {
    let bench = Bench::new(Backend::Postgres).await;
    let claimed = two_claimed(&bench).await;
    let mut blocker = bench.store.db.control(Purpose::Write).await.expect("a transaction");
    insert_gone(bench.tenant).execute(&mut blocker).await.expect("an endpoint");
    assert_eq!(settle_behind(&bench, &claimed, blocker).await, 1);
    assert_eq!(states(&bench).await, [DeliveryState::Failed; 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_do_they_where_it_was_gone_before() {
    let bench = Bench::new(Backend::Postgres).await;
    let claimed = two_claimed(&bench).await;
    let mut tx = bench.store.db.control(Purpose::Write).await.expect("a transaction");
    let inserted = insert_gone(bench.tenant).execute(&mut tx).await;
    tx.end(inserted).await.expect("an endpoint");
    let mut blocker = bench.store.db.control(Purpose::Write).await.expect("a transaction");
    let held: (Uuid,) = locking!("SELECT event_id FROM outbox_delivery WHERE event_id = $1")
        .bind(claimed[0].event)
        .one(&mut blocker)
        .await
        .expect("a delivery");
    assert_eq!(held.0, claimed[0].event);
    assert_eq!(settle_behind(&bench, &claimed, blocker).await, 1);
    assert_eq!(states(&bench).await, [DeliveryState::Failed; 2]);
}

on_both![one_who_lost_the_lease_disables_no_endpoint];

async fn one_who_lost_the_lease_disables_no_endpoint(on: Backend) {
    let bench = Bench::new(on).await;
    let [late, _] = two_claimed(&bench).await;
    bench.clock.advance_ms(super::super::claim::LEASE_MS);
    assert_eq!(bench.store.claim_deliveries(10).await.expect("a claim").len(), 2);
    assert!(!bench.store.settle_delivery(&late, &gone()).await.expect("an answer"));
    let stored = bench.store.alerts(bench.tenant).await.expect("alerts");
    assert_eq!(stored.gone, []);
    assert_eq!(states(&bench).await, [DeliveryState::Pending; 2]);
}
