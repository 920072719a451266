use serde_json::json;

use super::*;
use crate::{
    store::{Actor, NewTenant},
    testing::{Backend, NEW_YEAR, on_both},
};

async fn two_tenants(
    on: Backend,
) -> (crate::testing::Database, std::sync::Arc<Store>, [TenantId; 2]) {
    let database = on.database();
    let store = database.open().await;
    let mut ids = Vec::new();
    for slug in ["one", "two"] {
        ids.push(store.create_tenant(&Actor::Program, new(slug)).await.expect("a tenant").id);
    }
    (database, store, [ids[0], ids[1]])
}

fn new(slug: &str) -> NewTenant {
    NewTenant {
        slug: slug.parse().expect("a slug"),
        organization_name: slug.to_owned(),
        display_name: None,
        admin_email: "a@b.example".to_owned(),
        plan: "team".to_owned(),
        data_residency: Some("eu".to_owned()),
        home_region: None,
        parent: None,
        quota_anchor: None,
    }
}

fn key(n: u128) -> DataKey {
    // A month is 2,678,400,000 ms at most: keys lie in many of them.
    let created_at = UnixMs(NEW_YEAR.0 + u64::try_from(n).expect("small") * 1_000_000_000);
    DataKey { created_at, id: Uuid::from_u128(n) }
}

async fn a_row_is_what_was_last_written(on: Backend) {
    let (_database, store, [one, _]) = two_tenants(on).await;
    assert_eq!(store.data(one, key(1)).await.expect("an answer"), None);
    for version in 1..=2 {
        let data = json!({ "version": version });
        let at = store.put_data(one, key(1), "file", &data).await.expect("written");
        let row = store.data(one, key(1)).await.expect("an answer").expect("a row");
        assert_eq!(row, DataRow { key: key(1), kind: "file".into(), data, updated_at: at });
    }
    assert!(store.delete_data(one, key(1)).await.expect("an answer"));
    assert!(!store.delete_data(one, key(1)).await.expect("an answer"));
    assert_eq!(store.data(one, key(1)).await.expect("an answer"), None);
}

async fn rows_of_a_tenant_are_its_own(on: Backend) {
    let (_database, store, [one, two]) = two_tenants(on).await;
    for (tenant, whose) in [(one, "one"), (two, "two")] {
        store.put_data(tenant, key(7), "file", &json!(whose)).await.expect("written");
    }
    assert!(store.delete_data(two, key(7)).await.expect("an answer"));
    let rows = store.data_page(one, None, None, 10).await.expect("rows");
    assert_eq!(rows.iter().map(|row| &row.data).collect::<Vec<_>>(), [&json!("one")]);
    assert_eq!(store.data_page(two, None, None, 10).await.expect("rows"), []);
}

async fn pages_go_on_where_the_last_one_ended(on: Backend) {
    let (_database, store, [one, _]) = two_tenants(on).await;
    for n in 0..25 {
        let kind = if n % 5 == 0 { "project" } else { "file" };
        store.put_data(one, key(n), kind, &json!(null)).await.expect("written");
    }
    let mut seen = Vec::new();
    loop {
        let after = seen.last().copied();
        let page = store.data_page(one, None, after, 10).await.expect("rows");
        if page.is_empty() {
            break;
        }
        seen.extend(page.iter().map(|row| row.key));
    }
    assert_eq!(seen, (0..25).map(key).collect::<Vec<_>>());
    let projects = store.data_page(one, Some("project"), None, 10).await.expect("rows");
    let projects: Vec<_> = projects.iter().map(|row| row.key).collect();
    assert_eq!(projects, [0, 5, 10, 15, 20].map(key));
}

async fn a_tenant_that_is_not_there_has_no_rows(on: Backend) {
    let (_database, store, _) = two_tenants(on).await;
    let nobody = TenantId(Uuid::from_u128(1));
    let refused = store.put_data(nobody, key(1), "file", &json!(1)).await;
    assert!(matches!(refused, Err(ChangeError::NotFound)), "{refused:?}");
}

on_both![
    a_row_is_what_was_last_written,
    rows_of_a_tenant_are_its_own,
    pages_go_on_where_the_last_one_ended,
    a_tenant_that_is_not_there_has_no_rows,
];
