use super::{Bench, key, rules};
use crate::store::Actor;
use crate::store::db::{Purpose, sql};

async fn plan(bench: &Bench, statement: &'static str, by_key: bool) -> Vec<String> {
    let tenant = bench.tenants[0];
    let mut tx = bench.store.db.tenant(tenant, Purpose::ReadData).await.expect("a reader");
    let mut statement = sql(statement).bind(tenant.0);
    if by_key {
        let created_at = key(1_000).created_at;
        statement = statement.bind(super::super::super::rows::stored(created_at));
    }
    let lines: Vec<(String,)> = statement.all(&mut tx).await.expect("a plan");
    lines.into_iter().map(|(line,)| line).collect()
}

/// The tables that a plan reads.
fn read_by(plan: &[String]) -> Vec<&str> {
    let table = |line: &'_ String| {
        let at = line.find(" on tenant_data")?;
        let reads = line.contains(" Scan ") && !line.contains("Bitmap Index Scan");
        reads.then_some(at + " on ".len())
    };
    plan.iter().filter_map(|line| line.get(table(line)?..)?.split(' ').next()).collect()
}

#[tokio::test]
async fn a_tenants_statement_touches_one_part() {
    let bench = Bench::start().await;
    bench.store.manage_partitions(&rules()).await.expect("managed");
    let own = bench.part();
    let all =
        plan(&bench, "EXPLAIN SELECT data FROM tenant_data WHERE tenant_id = $1", false).await;
    let tables = read_by(&all);
    assert_eq!(tables.len(), 4, "three months and the rest: {all:?}");
    assert!(tables.iter().all(|table| table.starts_with(&own)), "{all:?}");
    let month = plan(
        &bench,
        "EXPLAIN SELECT data FROM tenant_data WHERE tenant_id = $1 AND created_at = $2",
        true,
    )
    .await;
    assert_eq!(read_by(&month), [format!("{own}_202401")], "{month:?}");
}

#[tokio::test]
async fn the_policy_alone_finds_the_part_and_the_index() {
    let bench = Bench::start().await;
    bench.store.manage_partitions(&rules()).await.expect("managed");
    bench.fill(100);
    bench.sql("ANALYZE edge.tenant_data");
    let plan = plan(
        &bench,
        "EXPLAIN (ANALYZE, TIMING OFF, SUMMARY OFF) SELECT data FROM tenant_data
         WHERE $1::uuid IS NOT NULL",
        false,
    )
    .await;
    let executed: Vec<_> = plan.iter().filter(|line| line.contains(" on tenant_data")).collect();
    assert!(!executed.is_empty());
    assert!(executed.iter().all(|line| line.contains(&bench.part())), "{plan:#?}");
    let conditions: Vec<_> = plan.iter().filter(|line| line.contains("Index Cond")).collect();
    assert!(!conditions.is_empty(), "{plan:#?}");
    assert!(conditions.iter().all(|line| line.contains("current_setting")), "{plan:#?}");
}

#[tokio::test]
async fn a_part_that_is_named_shows_nothing_to_anybody() {
    let bench = Bench::start().await;
    let id = bench
        .store
        .want_move(&Actor::Program, &crate::store::WantedMove::Split(bench.part()))
        .await;
    let id = id.expect("taken on").id;
    let rules = rules();
    let manager = bench.manager(&rules).await;
    manager.advance(id, crate::store::MoveState::Wanted).await.expect("a step");
    let tables = bench.sql(
        "SELECT relname FROM pg_class WHERE relnamespace = 'edge'::regnamespace
         AND relkind IN ('r', 'p') AND relname LIKE 'tenant\\_data\\_%'",
    );
    assert!(tables.lines().count() > 20, "{tables}");
    for role in ["application_user", "control_plane"] {
        let granted = bench.sql(&format!(
            "SELECT relname FROM pg_class WHERE relnamespace = 'edge'::regnamespace
               AND relkind IN ('r', 'p') AND relname LIKE 'tenant\\_data\\_%'
               AND (has_any_column_privilege('{role}', oid, 'SELECT, INSERT, UPDATE')
                 OR has_table_privilege('{role}', oid, 'DELETE, TRUNCATE, REFERENCES, TRIGGER'))"
        ));
        assert_eq!(granted, "", "{role}");
    }
    // Not even to the owner, but for the parts that are being moved.
    let seen = bench.sql(&format!(
        "SET ROLE schema_owner; SELECT (SELECT count(*) FROM edge.tenant_data),
         (SELECT count(*) FROM edge.{0}_rest), (SELECT count(*) > 0 FROM edge.{0})",
        bench.part()
    ));
    assert_eq!(seen, "0|0|t");
}

#[tokio::test]
async fn a_hundred_thousand_tenants_spread_evenly_over_the_parts() {
    let bench = Bench::start().await;
    let counts = bench.sql(
        "INSERT INTO edge.tenant_data
         SELECT gen_random_uuid(), gen_random_uuid(), 'even', '{}', 0, 0
         FROM generate_series(1, 100000);
         SELECT count(*) FROM edge.tenant_data WHERE kind = 'even' GROUP BY tableoid",
    );
    let counts: Vec<f64> = counts.lines().map(|line| line.parse().expect("a number")).collect();
    assert_eq!(counts.len(), 8);
    let largest = counts.iter().copied().fold(0.0, f64::max);
    let smallest = counts.iter().copied().fold(f64::MAX, f64::min);
    assert!(largest / smallest <= 1.3, "{counts:?}");
}
