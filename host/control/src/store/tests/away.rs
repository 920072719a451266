//! A PostgreSQL that is stopped, refuses, or stands still.

use std::{future::poll_fn, net::SocketAddr, pin::pin, sync::Arc, task::Poll, time::Duration};

use model::{clock::ManualClock, tenant::TenantId};
use services::{Fault, FaultProxy, Postgres};

use super::{Actor, new, tenant};
use crate::store::{CreateError, Store, StoreError};

/// Long enough for every machine that is not broken.
const EVENTUALLY: Duration = Duration::from_secs(60);

/// A store whose way to the database leads through a proxy.
async fn behind_a_proxy() -> (FaultProxy, Arc<Store>) {
    let url = services::postgres().database();
    let server = url.split(['@', '/']).find_map(|part| part.parse::<SocketAddr>().ok());
    let server = server.expect("an address");
    let proxy = FaultProxy::start(server);
    let url = url.replace(&server.to_string(), &proxy.addr().to_string());
    let store = Store::open(&url, Arc::new(ManualClock::default())).await.expect("a store");
    (proxy, store)
}

async fn read(store: &Store, id: TenantId) -> Result<(), StoreError> {
    store.tenant(id).await.map(drop)
}

/// The outcome of a read that does not wait for anything; `None` when it does.
async fn at_once(store: &Store, id: TenantId) -> Option<Result<(), StoreError>> {
    let mut reading = pin!(read(store, id));
    poll_fn(|cx| match reading.as_mut().poll(cx) {
        Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

async fn until_it_answers(store: &Store, id: TenantId) {
    let answers = async {
        while read(store, id).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(EVENTUALLY, answers).await.expect("in time");
}

async fn until_it_is_away(store: &Store, id: TenantId) {
    let away = async {
        while !matches!(at_once(store, id).await, Some(Err(StoreError::Away))) {
            let _outcome = read(store, id).await;
        }
    };
    tokio::time::timeout(EVENTUALLY, away).await.expect("in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_ends_the_calls_under_way_and_later_ones_at_once() {
    let (proxy, store) = behind_a_proxy().await;
    let one = tenant(&store, "one").await.id;
    proxy.set(Fault::Stall);
    // One waits for the database, the other one for its turn behind it.
    let (first, second) = tokio::join!(
        store.create_tenant(&Actor::Program, new("two")),
        store.create_tenant(&Actor::Program, new("three")),
    );
    for outcome in [first, second] {
        let refused = outcome.expect_err("no database");
        assert!(matches!(refused, CreateError::Store(StoreError::Away)), "{refused}");
    }
    assert!(matches!(at_once(&store, one).await, Some(Err(StoreError::Away))));
    assert!(store.published(one).is_some(), "what is known stays known");
    proxy.set(Fault::None);
    until_it_answers(&store, one).await;
    tenant(&store, "four").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_server_is_noticed_and_so_is_its_return() {
    let cluster = Postgres::start();
    let url = cluster.database();
    let store = Store::open(&url, Arc::new(ManualClock::default())).await.expect("a store");
    let one = tenant(&store, "one").await.id;
    cluster.kill();
    until_it_is_away(&store, one).await;
    cluster.resume();
    until_it_answers(&store, one).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_connections_and_a_full_pool_are_no_absent_server() {
    let (proxy, store) = behind_a_proxy().await;
    let one = tenant(&store, "one").await.id;
    for _ in 0..5 {
        proxy.drop_connections();
        read(&store, one).await.expect("a new connection");
    }
    let reads = (0..200).map(|_| read(&store, one));
    for outcome in futures_util::future::join_all(reads).await {
        outcome.expect("its turn at a connection");
    }
}
