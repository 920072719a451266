use std::{panic::resume_unwind, sync::Arc, time::Duration};

use model::tenant::TenantId;
use rand::{Rng, SeedableRng, rngs::StdRng};
use uuid::Uuid;

use super::two_tenants;
use crate::{
    store::{
        DataKey, Store, StoreError,
        db::{Db, Purpose, TenantTx, sql},
    },
    testing::{Database, NEW_YEAR},
};

/// The tenants `one` and `two`, each with three secrets and two rows of data.
async fn two_with_data() -> (Database, Arc<Store>, [TenantId; 2]) {
    let (database, store, tenants) = two_tenants().await;
    for tenant in tenants {
        for n in [1, 2] {
            let key = DataKey { created_at: NEW_YEAR, id: Uuid::from_u128(n) };
            store.put_data(tenant, key, "file", &n.to_string().into()).await.expect("written");
        }
    }
    (database, store, tenants)
}

/// Transactions of the interleaving, over all tasks.
const TRANSACTIONS: usize = 10_000;
const TASKS: usize = 8;

/// Whose secrets and data a transaction sees when it forgets to ask for one tenant's only.
async fn seen(tx: &mut TenantTx) -> Result<Vec<Uuid>, StoreError> {
    let rows: Vec<(Uuid,)> =
        sql("SELECT tenant_id FROM tenant_secret UNION ALL SELECT tenant_id FROM tenant_data")
            .all(tx)
            .await?;
    Ok(rows.into_iter().map(|(tenant,)| tenant).collect())
}

async fn sees_itself_only(db: &Db, tenant: TenantId, purpose: Purpose) -> TenantTx {
    let mut tx = db.tenant(tenant, purpose).await.expect("a transaction");
    assert_eq!(seen(&mut tx).await.expect("rows"), [tenant.0; 5]);
    tx
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    Commit,
    Rollback,
    Forgotten,
    Cancelled,
    Panic,
}

fn fate(of: u32) -> Fate {
    match of {
        0..60 => Fate::Commit,
        60..85 => Fate::Rollback,
        85..90 => Fate::Forgotten,
        90..95 => Fate::Cancelled,
        _ => Fate::Panic,
    }
}

async fn live(db: Db, tenant: TenantId, fate: Fate, patience: Duration) {
    match fate {
        Fate::Commit => {
            let tx = sees_itself_only(&db, tenant, Purpose::Read).await;
            tx.end::<_, StoreError>(Ok(())).await.expect("a commit");
        }
        Fate::Rollback => {
            let tx = sees_itself_only(&db, tenant, Purpose::Change).await;
            tx.end::<(), _>(Err(StoreError::Failed)).await.expect_err("its own error");
        }
        Fate::Forgotten => drop(sees_itself_only(&db, tenant, Purpose::Change).await),
        Fate::Cancelled => {
            // The end of patience is the cancel, at whatever point that is.
            let work = async {
                let mut tx = sees_itself_only(&db, tenant, Purpose::Read).await;
                sql("SELECT pg_sleep(1)").execute(&mut tx).await.expect("never");
            };
            tokio::time::timeout(patience, work).await.expect_err("a cancel");
        }
        Fate::Panic => {
            let died = tokio::spawn(async move {
                let _tx = sees_itself_only(&db, tenant, Purpose::Change).await;
                // A panic that is not printed.
                resume_unwind(Box::new("on purpose"));
            });
            let died = died.await.expect_err("a panic").into_panic();
            assert_eq!(died.downcast_ref::<&str>(), Some(&"on purpose"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interleaved_transactions_over_one_connection_never_see_a_foreign_row() {
    let (_database, store, tenants) = two_with_data().await;
    let db = store.db.over_one_connection();
    let task = |seed: usize| {
        let db = db.clone();
        tokio::spawn(async move {
            let mut random = StdRng::seed_from_u64(seed as u64);
            for _ in 0..TRANSACTIONS / TASKS {
                let tenant = tenants[random.random_range(0..2)];
                let patience = Duration::from_micros(random.random_range(0..5_000));
                live(db.clone(), tenant, fate(random.random_range(0..100)), patience).await;
            }
        })
    };
    for task in (0..TASKS).map(task).collect::<Vec<_>>() {
        task.await.expect("no foreign row");
    }
}

#[tokio::test]
async fn a_context_that_a_borrower_left_behind_is_found_and_its_connection_closed() {
    let (_database, store, [one, two]) = two_with_data().await;
    let db = store.db.over_one_connection();
    let Db::Postgres(database) = &db else { panic!("PostgreSQL") };
    let mut tx = db.tenant(one, Purpose::Read).await.expect("a transaction");
    let (first,): (i32,) = sql("SELECT pg_backend_pid()").one(&mut tx).await.expect("a row");
    // What a bug would do: the context of a whole session.
    sql("SELECT set_config('app.tenant_id', $1, false)")
        .bind(one.to_string())
        .execute(&mut tx)
        .await
        .expect("a context");
    tx.end::<_, StoreError>(Ok(())).await.expect("a commit");
    assert_eq!(database.tenant_connections(), 1, "the connection is back in its pool");
    let mut tx = sees_itself_only(&db, two, Purpose::Read).await;
    let (second,): (i32,) = sql("SELECT pg_backend_pid()").one(&mut tx).await.expect("a row");
    assert_ne!(first, second);
}

#[tokio::test]
async fn a_connection_serves_many_transactions_that_end_well() {
    let (_database, store, tenants) = two_with_data().await;
    let db = store.db.over_one_connection();
    let mut servers = std::collections::BTreeSet::new();
    for round in 0..20 {
        let mut tx = sees_itself_only(&db, tenants[round % 2], Purpose::Change).await;
        let (server,): (i32,) = sql("SELECT pg_backend_pid()").one(&mut tx).await.expect("a row");
        servers.insert(server);
        let outcome = if round % 3 == 0 { Err(StoreError::Failed) } else { Ok(()) };
        // Either outcome leaves the connection clean.
        let _ = tx.end(outcome).await;
    }
    assert_eq!(servers.len(), 1);
}

#[tokio::test]
async fn without_a_context_there_are_no_rows_whoever_asks() {
    let (database, _store, _) = two_with_data().await;
    let Database::Postgres(url) = &database else { panic!("PostgreSQL") };
    let ask = |preparation: &str| {
        let count = "SELECT count(*) FROM edge.tenant_secret";
        services::postgres().superuser(url, &format!("{preparation}; {count}"))
    };
    assert_eq!(ask("RESET ROLE"), "6");
    for role in ["application_user", "schema_owner"] {
        assert_eq!(ask(&format!("SET ROLE {role}")), "0", "{role}");
        let cleared = format!("SET app.tenant_id = ''; SET ROLE {role}");
        assert_eq!(ask(&cleared), "0", "{role} with an empty context");
    }
    assert_eq!(ask("SET ROLE control_plane"), "6");
}

#[tokio::test]
async fn the_policy_alone_is_an_index_condition_on_every_table() {
    let (_database, store, [one, _]) = two_with_data().await;
    let mut tx = store.db.tenant(one, Purpose::Read).await.expect("a transaction");
    // Small tables are read whole, whatever their indexes.
    sql("SET LOCAL enable_seqscan = off").execute(&mut tx).await.expect("a setting");
    for statement in [
        "EXPLAIN SELECT plan FROM tenant",
        "EXPLAIN SELECT domain FROM tenant_domain",
        "EXPLAIN SELECT value FROM tenant_secret WHERE name = 'a'",
        "EXPLAIN SELECT value FROM usage_level",
        "EXPLAIN SELECT value FROM usage_bucket WHERE metric = 'users' AND hour_start > 0",
        "EXPLAIN SELECT hash FROM api_key",
        "EXPLAIN SELECT hash FROM audit_entry",
        "EXPLAIN SELECT data FROM tenant_data WHERE created_at = 0",
    ] {
        let plan: Vec<(String,)> = sql(statement).all(&mut tx).await.expect("a plan");
        let by_tenant =
            |(line,): &(String,)| line.contains("Index Cond: ") && line.contains("current_setting");
        assert!(plan.iter().any(by_tenant), "{statement}: {plan:?}");
    }
}

#[tokio::test]
async fn another_tenants_rows_can_be_neither_written_nor_taken() {
    let (_database, store, [one, two]) = two_with_data().await;
    let mut tx = store.db.tenant(one, Purpose::Change).await.expect("a transaction");
    for statement in [
        "UPDATE tenant_secret SET value = 'mine' WHERE tenant_id = $1",
        "DELETE FROM tenant_secret WHERE tenant_id = $1",
        "UPDATE tenant_data SET data = '1' WHERE tenant_id = $1",
        "DELETE FROM tenant_data WHERE tenant_id = $1",
        "UPDATE tenant SET plan = 'free' WHERE id = $1",
    ] {
        let touched = sql(statement).bind(two.0).execute(&mut tx).await.expect("a statement");
        assert_eq!(touched, 0, "{statement}");
    }
    drop(tx);
    for statement in [
        "INSERT INTO tenant_secret (tenant_id, name, value) VALUES ($1, 'x', 'x')",
        "UPDATE tenant_secret SET tenant_id = $1",
        "INSERT INTO tenant_data VALUES ($1, $1, 'file', '1', 0, 0)",
        "INSERT INTO tenant_data SELECT $1, id, kind, data, created_at, updated_at FROM tenant_data",
    ] {
        let mut tx = store.db.tenant(one, Purpose::Change).await.expect("a transaction");
        sql(statement).bind(two.0).execute(&mut tx).await.expect_err(statement);
    }
}

#[tokio::test]
async fn a_transaction_with_a_failed_statement_is_never_reported_as_committed() {
    let (_database, store, [one, _]) = two_with_data().await;
    let mut tx = store.db.tenant(one, Purpose::Change).await.expect("a transaction");
    sql("DELETE FROM tenant_secret").execute(&mut tx).await.expect("a statement");
    sql("SELECT 1 / 0").execute(&mut tx).await.expect_err("a failure");
    let swallowed: Result<(), StoreError> = Ok(());
    tx.end(swallowed).await.expect_err("no silent rollback");
    let tx = sees_itself_only(&store.db, one, Purpose::Read).await;
    tx.end::<_, StoreError>(Ok(())).await.expect("a commit");
}
