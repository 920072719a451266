//! Prints what row-level security costs beside an explicit predicate, on a private
//! PostgreSQL with 1,000 tenants of 100 rows each, in a plain table and in a partitioned one.
//!
//! `explicit` runs as `control_plane`, whose policy is `true`, with the tenant in WHERE;
//! `policy` runs as `application_user` without it; `both` is what the store does. Rounds
//! alternate, so that noise of the machine meets all alike; the ratio is that of the medians.

#![allow(clippy::expect_used, clippy::print_stdout, missing_docs, reason = "a measurement")]

use std::{sync::Arc, time::Instant};

use control::Store;
use model::clock::ManualClock;
use sqlx::{Connection, Executor, PgConnection, Row};

const ROUNDS: usize = 40;
const CALLS: usize = 250;

const FILL: &str = "
    INSERT INTO edge.tenant (id, slug, organization_name, display_name, admin_email, plan,
        data_residency, status, created_at, version)
    SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(t), 12, '0'))::uuid, 't' || t, '', '', '',
        'team', 'eu', 'active', 0, 1 FROM generate_series(1, 1000) t;
    INSERT INTO edge.tenant_secret (tenant_id, name, value)
    SELECT id, 'name' || n, repeat('x', 100) FROM edge.tenant, generate_series(1, 100) n;
    INSERT INTO edge.tenant_data (tenant_id, id, kind, data, created_at, updated_at)
    SELECT id, ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'file',
        repeat('x', 100), n, 0 FROM edge.tenant, generate_series(1, 100) n;
    ANALYZE edge.tenant, edge.tenant_secret, edge.tenant_data;";

/// Name, and the statement with the place of the tenant as its first condition.
const QUERIES: [(&str, &str); 5] = [
    ("one row by key", "SELECT value FROM edge.tenant_secret WHERE {tenant} name = 'name7'"),
    ("a tenant's 100 rows", "SELECT name, value FROM edge.tenant_secret WHERE {tenant} true"),
    ("count of a tenant", "SELECT count(*) FROM edge.tenant_secret WHERE {tenant} true"),
    (
        "one row by key, partitioned",
        "SELECT data FROM edge.tenant_data WHERE {tenant} created_at = 7
         AND id = '00000000-0000-7000-8000-000000000007'",
    ),
    (
        "a tenant's 100 rows, partitioned",
        "SELECT id, data FROM edge.tenant_data WHERE {tenant} true",
    ),
];

struct Way {
    name: &'static str,
    role: &'static str,
    predicate: &'static str,
}

const WAYS: [Way; 3] = [
    Way { name: "explicit", role: "control_plane", predicate: "tenant_id = $1 AND" },
    Way { name: "policy", role: "application_user", predicate: "$1::uuid IS NOT NULL AND" },
    Way { name: "both", role: "application_user", predicate: "tenant_id = $1 AND" },
];

#[tokio::main]
async fn main() {
    let cluster = services::postgres();
    let url = cluster.database();
    let store = Store::open(&url, Arc::new(ManualClock::default())).await.expect("a store");
    store.close().await;
    cluster.superuser(&url, FILL);
    let mut connection = PgConnection::connect(&url).await.expect("a connection");
    for (name, statement) in QUERIES {
        let mut micros: [Vec<f64>; WAYS.len()] = Default::default();
        for round in 0..ROUNDS {
            for (way, micros) in WAYS.iter().zip(&mut micros) {
                micros.extend(measure(&mut connection, way, statement, round).await);
            }
        }
        for micros in &mut micros {
            micros.sort_by(f64::total_cmp);
        }
        println!("{name}:");
        let medians = micros.each_ref().map(|micros| quantile(micros, 0.5));
        let [explicit, ..] = medians;
        for ((way, micros), p50) in WAYS.iter().zip(&micros).zip(medians) {
            let (p99, ratio) = (quantile(micros, 0.99), p50 / explicit);
            println!("  {:8} p50 {p50:7.1} us  p99 {p99:7.1} us  ratio {ratio:5.2}", way.name);
        }
    }
}

/// Microseconds of each call of one transaction with many.
async fn measure(
    connection: &mut PgConnection,
    way: &Way,
    statement: &str,
    round: usize,
) -> Vec<f64> {
    let statement = statement.replace("{tenant}", way.predicate);
    let tenant = format!("00000000-0000-7000-8000-{:012x}", round * 7 + 1);
    let tenant: uuid::Uuid = tenant.parse().expect("a UUID");
    let mut transaction = connection.begin().await.expect("a transaction");
    let role = format!("SET LOCAL ROLE {}", way.role);
    transaction.execute(&*role).await.expect("a role");
    sqlx::query("SELECT set_config('app.tenant_id', $1, true)")
        .bind(tenant.to_string())
        .execute(&mut *transaction)
        .await
        .expect("a context");
    if statement.contains("tenant_data") {
        // As the store reads them.
        let generic = "SET LOCAL plan_cache_mode = force_generic_plan";
        transaction.execute(generic).await.expect("a setting");
    }
    let mut seen = 0;
    let mut micros = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let begun = Instant::now();
        let rows = sqlx::query(&statement).bind(tenant).fetch_all(&mut *transaction).await;
        micros.push(begun.elapsed().as_secs_f64() * 1e6);
        seen += rows.expect("rows").iter().map(Row::len).sum::<usize>();
    }
    assert!(seen > 0, "the tenant has rows");
    transaction.rollback().await.expect("an end");
    micros
}

/// Of sorted values.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = (sorted.len() as f64 * share) as usize;
    sorted.get(at).copied().unwrap_or_default()
}
