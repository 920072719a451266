use serde_json::json;

use super::{Bench, DAY_MS, key, rules};
use crate::{
    store::{Actor, DataKey, partitions::PartitionRules},
    testing::{Backend, on_both},
};
use model::clock::UnixMs;

#[tokio::test]
async fn months_are_made_ahead_of_time_and_take_their_rows_from_the_rest() {
    let bench = Bench::start().await;
    let before = bench.checksum("stable");
    let rest = format!("SELECT count(*) FROM edge.{}_rest", bench.part());
    assert_ne!(bench.sql(&rest), "0", "before the first run there is no month");
    let made = bench.store.manage_partitions(&rules()).await.expect("managed").months_made;
    assert_eq!(made.len(), 8 * 3, "the present one and two ahead: {made:?}");
    assert!(made.contains(&format!("{}_202403", bench.part())), "{made:?}");
    assert_eq!(bench.sql(&rest), "0");
    assert_eq!(bench.checksum("stable"), before);
    assert_eq!(bench.finish(&rules()).await.months_made, [""; 0], "nothing is missing");
    bench.clock.advance_ms(31 * DAY_MS);
    let made = bench.finish(&rules()).await.months_made;
    assert_eq!(made.len(), 8, "one more: {made:?}");
    assert!(made.iter().all(|name| name.ends_with("_202404")), "{made:?}");
    bench.sees_its_own(bench.tenants[0]).await;
    bench.no_leftovers();
    bench.no_finding().await;
}

#[tokio::test]
async fn months_beyond_retention_go_and_younger_rows_stay() {
    let bench = Bench::start().await;
    bench.store.manage_partitions(&rules()).await.expect("managed");
    // The stable rows lie in January, February and March.
    bench.clock.advance_ms(80 * DAY_MS);
    let young = "SELECT count(*), sum(hashtextextended(t::text, 0)::numeric)
        FROM edge.tenant_data t WHERE created_at >= 1706745600000";
    let before = bench.sql(young);
    let rules = PartitionRules { retention_days: 40, ..rules() };
    let managed = bench.finish(&rules).await;
    assert_eq!(managed.months_dropped.len(), 8, "January of each part: {managed:?}");
    assert!(managed.months_dropped.iter().all(|name| name.ends_with("_202401")), "{managed:?}");
    assert_eq!(bench.sql(young), before);
    let old = "SELECT count(*) FROM edge.tenant_data WHERE created_at < 1706745600000";
    assert_eq!(bench.sql(old), "0");
    assert_eq!(bench.finish(&rules).await.months_dropped, [""; 0]);
    bench.no_leftovers();
}

#[tokio::test]
async fn months_of_a_part_that_is_being_moved_wait() {
    let bench = Bench::start().await;
    bench.store.manage_partitions(&rules()).await.expect("managed");
    bench.clock.advance_ms(80 * DAY_MS);
    let wanted = crate::store::WantedMove::Split(bench.part());
    let id = bench.store.want_move(&Actor::Program, &wanted).await.expect("taken on").id;
    let rules = PartitionRules { retention_days: 40, ..rules() };
    let manager = bench.manager(&rules).await;
    manager.advance(id, crate::store::MoveState::Wanted).await.expect("a step");
    let dropped = manager.drop_months().await.expect("dropped");
    assert_eq!(dropped.len(), 7);
    assert!(dropped.iter().all(|name| !name.starts_with(&bench.part())), "{dropped:?}");
    drop(manager);
    assert_eq!(bench.finish(&rules).await.months_dropped.len(), 2, "of the two halves");
    bench.no_leftovers();
}

async fn rows_beyond_retention_go_wherever_they_lie(on: Backend) {
    let database = on.database();
    let store = database.open().await;
    let tenant =
        store.create_tenant(&Actor::Program, super::new("one")).await.expect("a tenant").id;
    let retention_ms = u64::from(crate::store::RETENTION_DAYS) * DAY_MS;
    let at = |ms| DataKey { created_at: UnixMs(ms), ..key(1) };
    // 2,555 days before 2024 is 2017-01-02: January 2017 is kept.
    let kept = at(crate::testing::NEW_YEAR.0 - retention_ms - DAY_MS);
    let gone = at(kept.created_at.0 - 1);
    for key in [kept, gone] {
        store.put_data(tenant, key, "file", &json!(1)).await.expect("written");
    }
    let managed = store.manage_partitions(&PartitionRules::default()).await.expect("managed");
    assert_eq!(managed.rows_deleted, 1);
    assert!(store.data(tenant, kept).await.expect("an answer").is_some());
    assert!(store.data(tenant, gone).await.expect("an answer").is_none());
}

on_both![rows_beyond_retention_go_wherever_they_lie];
