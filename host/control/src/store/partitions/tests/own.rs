use model::{clock::UnixMs, gdpr::GdprPatch, tenant::TenantId};
use serde_json::json;

use super::{Bench, DAY_MS, key, new, rules};
use crate::{
    store::{Actor, DataKey, Store, TenantPatch, partitions::PartitionRules},
    testing::{Backend, NEW_YEAR, on_both},
};

on_both![
    a_tenants_own_retention_ends_its_rows_and_nobody_elses,
    a_legal_hold_outweighs_every_retention,
];

async fn settle(store: &std::sync::Arc<Store>, tenant: TenantId, gdpr: GdprPatch) {
    let patch = TenantPatch { gdpr: Some(gdpr), ..TenantPatch::default() };
    store.patch_tenant(&Actor::Program, tenant, patch, None).await.expect("patched");
}

/// A row of that many days.
async fn row(store: &Store, tenant: TenantId, days: u64) -> DataKey {
    let key = DataKey { created_at: UnixMs(NEW_YEAR.0 - days * DAY_MS - 1), ..key(1) };
    store.put_data(tenant, key, "file", &json!(days)).await.expect("written");
    key
}

async fn run(store: &Store) -> u64 {
    store.manage_partitions(&PartitionRules::default()).await.expect("managed").rows_deleted
}

async fn a_tenants_own_retention_ends_its_rows_and_nobody_elses(on: Backend) {
    let database = on.database();
    let store = database.open().await;
    let mut ids = Vec::new();
    for slug in ["one", "other", "off"] {
        ids.push(store.create_tenant(&Actor::Program, new(slug)).await.expect("a tenant").id);
    }
    let [one, other, off] = ids[..] else { panic!("three") };
    let days = |days| GdprPatch { retention_period_days: Some(days), ..GdprPatch::default() };
    settle(&store, one, days(1)).await;
    settle(&store, off, GdprPatch { auto_deletion_enabled: Some(false), ..days(1) }).await;
    let mut keys = Vec::new();
    for tenant in [one, other, off] {
        keys.push((tenant, row(&store, tenant, 0).await, row(&store, tenant, 1).await));
    }
    assert_eq!(run(&store).await, 1);
    for (tenant, young, old) in keys {
        assert!(store.data(tenant, young).await.expect("an answer").is_some(), "{tenant}");
        let left = store.data(tenant, old).await.expect("an answer").is_some();
        assert_eq!(left, tenant != one, "{tenant}");
    }
    let chain = store.audit_entries(Some(one), 0, 200).await.expect("entries");
    assert_eq!(chain.iter().filter(|entry| entry.action == "retention.delete_rows").count(), 1);
    assert_eq!(run(&store).await, 0, "nothing is left to delete");
}

async fn a_legal_hold_outweighs_every_retention(on: Backend) {
    let database = on.database();
    let store = database.open().await;
    let tenant = store.create_tenant(&Actor::Program, new("one")).await.expect("a tenant").id;
    let held = |held| GdprPatch {
        legal_hold: Some(held),
        retention_period_days: Some(1),
        ..GdprPatch::default()
    };
    settle(&store, tenant, held(true)).await;
    row(&store, tenant, 1).await;
    row(&store, tenant, 3_000).await;
    assert_eq!(run(&store).await, 0);
    settle(&store, tenant, held(false)).await;
    assert_eq!(run(&store).await, 2);
}

#[tokio::test]
async fn no_month_goes_while_a_tenant_is_held_and_the_others_rows_go_all_the_same() {
    let bench = Bench::start().await;
    bench.store.manage_partitions(&rules()).await.expect("managed");
    bench.clock.advance_ms(80 * DAY_MS);
    let (held, others) = bench.tenants.split_first().expect("tenants");
    let hold = GdprPatch { legal_hold: Some(true), ..GdprPatch::default() };
    settle(&bench.store, *held, hold).await;
    let rules = PartitionRules { retention_days: 40, ..rules() };
    let january = |tenant: &TenantId| {
        bench.sql(&format!(
            "SELECT count(*) FROM edge.tenant_data
             WHERE tenant_id = '{tenant}' AND created_at < 1706745600000"
        ))
    };
    let before = january(held);
    assert_ne!(before, "0");
    let managed = bench.finish(&rules).await;
    assert_eq!(managed.months_dropped, [""; 0]);
    assert_ne!(managed.rows_deleted, 0);
    assert_eq!(january(held), before);
    assert!(others.iter().all(|tenant| january(tenant) == "0"));
    let end = GdprPatch { legal_hold: Some(false), ..GdprPatch::default() };
    settle(&bench.store, *held, end).await;
    assert_eq!(bench.finish(&rules).await.months_dropped.len(), 8);
    assert_eq!(january(held), "0");
    bench.no_leftovers();
}
