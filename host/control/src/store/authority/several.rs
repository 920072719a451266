//! What PostgreSQL has to promise to several processes, and across a cut connection.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use model::{
    clock::ManualClock,
    ledger::{Authority, EpochRef, Fence, HolderId, LeaseReport, OpenRequest, Opening, WindowKey},
    quota::Metric,
};

use super::{
    tests::{Bench, NOON, figures, key, register},
    window,
};
use crate::{
    Store,
    store::db::{ControlTx, Purpose, sql},
    testing::{Backend, Database, report_of},
};

/// Tokens of every window.
const LIMIT: u64 = 500;
/// Windows that everybody opens.
const WINDOWS: usize = 3;
/// Tasks of each process.
const TASKS: usize = 6;

/// Another process on the same database.
async fn another(bench: &Bench) -> Arc<Store> {
    let clock = Arc::new(ManualClock::at(NOON));
    Store::open(&bench.database.url(), clock).await.expect("a store")
}

/// Opens whatever there is in all windows, each batch in the order of `keys`; the tokens of
/// each tranche that it got.
async fn open_all(store: &Store, holder: HolderId, keys: Vec<WindowKey>) -> Vec<LeaseReport> {
    let mut tranches = Vec::new();
    let mut asked: Vec<OpenRequest> = keys
        .into_iter()
        .map(|key| OpenRequest {
            key,
            fence: Fence::Holder(holder),
            latest: 0,
            limit: LIMIT,
            above: None,
            rate_per_s: 0,
        })
        .collect();
    while !asked.is_empty() {
        let openings = store.open(holder, asked.clone()).await.expect("an answer");
        let answered = asked.into_iter().zip(openings);
        asked = answered
            .filter_map(|(request, opening)| match opening {
                Opening::Exhausted | Opening::Parked => None,
                Opening::Lost { latest } => Some(OpenRequest { latest, ..request }),
                Opening::Opened(permit) => {
                    assert_eq!((permit.key(), permit.fence()), (request.key, request.fence));
                    let of = EpochRef { key: permit.key(), epoch: permit.epoch() };
                    let tranche = permit.tranche();
                    let (lease, spent, refunded, sealed) = (1, tranche, 0, false);
                    tranches.push(LeaseReport { of, tranche, lease, spent, refunded, sealed });
                    Some(OpenRequest { latest: permit.epoch(), ..request })
                }
            })
            .collect();
    }
    tranches
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_opens_by_two_processes_grant_every_token_of_a_limit_once() {
    let bench = Bench::new(Backend::Postgres).await;
    let there = another(&bench).await;
    let keys: Vec<_> = (0..WINDOWS).map(|_| key(Metric::ApiCalls)).collect();
    let tasks = (0..2 * TASKS).map(|task| {
        let store = Arc::clone(if task % 2 == 0 { &bench.store } else { &there });
        let mut keys = keys.clone();
        // Batches cross each other in every order.
        keys.rotate_left(task % WINDOWS);
        if task % 4 < 2 {
            keys.reverse();
        }
        tokio::spawn(async move {
            let holder = register(&store, bench.boot).await;
            (holder, open_all(&store, holder, keys).await)
        })
    });
    let opened: Vec<_> =
        join_all(tasks).await.into_iter().map(|task| task.expect("no panic")).collect();
    for key in &keys {
        let of_key = || opened.iter().flat_map(|(_, all)| all).filter(|one| one.of.key == *key);
        assert_eq!(of_key().map(|one| one.tranche).sum::<u64>(), LIMIT);
        let mut epochs: Vec<_> = of_key().map(|one| one.of.epoch).collect();
        epochs.sort_unstable();
        assert!(epochs.iter().copied().eq(1..=epochs.len() as u64), "each once: {epochs:?}");
    }
    bench.audit().await;

    // One token of each tranche comes back, by both processes at once; so many more are
    // granted, and not one more.
    let tranches: usize = opened.iter().map(|(_, all)| all.len()).sum();
    let reports = opened.into_iter().enumerate().map(|(n, (holder, mut leases))| {
        let store = Arc::clone(if n % 2 == 0 { &there } else { &bench.store });
        for figures in &mut leases {
            (figures.spent, figures.sealed) = (figures.spent - 1, true);
        }
        tokio::spawn(async move {
            let report = report_of(holder, 1, leases);
            store.report(report).await.expect("an answer").credited
        })
    });
    let credited = join_all(reports).await.into_iter().map(|task| task.expect("no panic"));
    assert_eq!(credited.sum::<u64>(), tranches as u64);
    let again = open_all(&there, bench.holder, keys).await;
    assert_eq!(again.iter().map(|one| one.tranche).sum::<u64>(), tranches as u64);
    bench.audit().await;
}

/// Waits until somebody waits for a lock, and does `what` with that process of the server.
async fn with_whoever_waits(url: &str, what: &str) {
    let query = format!(
        "SELECT count({what}) FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock'"
    );
    while services::postgres().superuser(url, &query) == "0" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Ends the connection of whoever waits for a lock, from outside.
async fn cut_whoever_waits(url: &str) {
    with_whoever_waits(url, "pg_terminate_backend(pid)").await;
}

/// A transaction that holds a window, as one of another process does.
async fn holding(store: &Store, key: WindowKey) -> ControlTx {
    let mut tx = store.db.control(Purpose::Account).await.expect("a transaction");
    window::find(&mut tx, &key).await.expect("an answer").expect("a window");
    tx
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_cut_in_the_middle_debits_nothing_and_credits_nothing() {
    let mut bench = Bench::new(Backend::Postgres).await;
    let there = another(&bench).await;
    let Database::Postgres(url) = &bench.database else { panic!("PostgreSQL") };
    let url = url.clone();
    // The batch debits the first before it waits for the second.
    let mut keys = [key(Metric::ApiCalls), key(Metric::ApiCalls)];
    keys.sort_unstable();
    let [first, second] = keys;
    for key in keys {
        bench.opened(key, 0, LIMIT).await;
    }
    let before = [bench.account(first).await, bench.account(second).await];

    let held = holding(&there, second).await;
    let fence = Fence::Holder(bench.holder);
    let requests = keys.map(|key| OpenRequest {
        key,
        fence,
        latest: 1,
        limit: LIMIT,
        above: None,
        rate_per_s: 0,
    });
    let (opened, ()) =
        tokio::join!(bench.store.open(bench.holder, requests.to_vec()), cut_whoever_waits(&url));
    opened.expect_err("nobody is answered without a commit");
    let figures = keys.map(|key| figures(key, 1, 3, true)).to_vec();
    let report = report_of(bench.holder, 1, figures.clone());
    let (reported, ()) = tokio::join!(bench.store.report(report), cut_whoever_waits(&url));
    reported.expect_err("nobody is answered without a commit");
    drop(held);
    assert_eq!([bench.account(first).await, bench.account(second).await], before);
    bench.audit().await;

    // The next calls come over other connections, and find everything as it was.
    assert_eq!(bench.report(figures, vec![]).await, 10);
    let left: u64 = open_all(&bench.store, bench.holder, keys.to_vec())
        .await
        .iter()
        .map(|one| one.tranche)
        .sum();
    assert_eq!(left, 2 * (LIMIT - 3));
    bench.audit().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadlock_is_no_answer_but_another_try() {
    let bench = Bench::new(Backend::Postgres).await;
    let there = another(&bench).await;
    let mut keys = [key(Metric::ApiCalls), key(Metric::ApiCalls)];
    keys.sort_unstable();
    let [first, second] = keys;
    for key in keys {
        bench.opened(key, 0, LIMIT).await;
    }
    // Against the order that every operation keeps: the second, then the first.
    let Database::Postgres(url) = &bench.database else { panic!("PostgreSQL") };
    let mut held = holding(&there, second).await;
    let open = open_all(&bench.store, bench.holder, keys.to_vec());
    let crosswise = async {
        with_whoever_waits(url, "pid").await;
        // The one that waits longer is undone: the open, unless the machine stood still.
        let met = window::find(&mut held, &first).await;
        drop((met, held));
    };
    let (opened, ()) = tokio::join!(open, crosswise);
    assert_eq!(opened.iter().map(|one| one.tranche).sum::<u64>(), 2 * (LIMIT - 8));
    bench.audit().await;
}

#[tokio::test]
async fn accounts_are_durable_even_where_the_database_is_lax() {
    let bench = Bench::new(Backend::Postgres).await;
    let setting = "SELECT current_setting('synchronous_commit')";
    let (durable,): (String,) = bench.row(setting).await;
    assert_eq!(durable, "on");
    let mut tx = bench.store.db.control(Purpose::Change).await.expect("a transaction");
    let (lax,): (String,) = sql(setting).one(&mut tx).await.expect("a row");
    assert_eq!(lax, "off", "the cluster of the tests is lax, and only accounts are not");
}

#[tokio::test]
async fn a_transaction_of_one_tenant_reaches_no_account_at_all() {
    let bench = Bench::new(Backend::Postgres).await;
    let key = key(Metric::ApiCalls);
    bench.opened(key, 0, LIMIT).await;
    for statement in [
        "SELECT 1 FROM quota_window",
        "SELECT 1 FROM quota_epoch",
        "SELECT 1 FROM quota_holder",
        "SELECT 1 FROM quota_report",
        "SELECT 1 FROM quota_late_refund",
        "UPDATE quota_window SET credited = 1",
    ] {
        let mut tx = bench.store.db.tenant(key.tenant, Purpose::Change).await.expect("a start");
        let refused = sql(statement).execute(&mut tx).await.expect_err(statement);
        assert!(refused.to_string().contains("permission denied"), "{refused}");
    }
}

#[tokio::test]
async fn an_unreachable_authority_says_so_and_is_there_again_later() {
    let cluster = services::Postgres::start();
    let database = Database::Postgres(cluster.database());
    let bench = Bench::on(database).await;
    let key = key(Metric::ApiCalls);
    bench.opened(key, 0, LIMIT).await;
    cluster.stop();
    let fence = Fence::Holder(bench.holder);
    let request = OpenRequest { key, fence, latest: 1, limit: LIMIT, above: None, rate_per_s: 0 };
    bench.store.open(bench.holder, vec![request]).await.expect_err("no database");
    cluster.resume();
    while bench.store.open(bench.holder, vec![request]).await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(bench.account(key).await.latest, 2);
    bench.audit().await;
}
