use super::*;
use crate::{
    store::{
        Actor, NewPool, NewTenant,
        alerts::tests::{Bench, new, watching},
        db::Purpose,
    },
    testing::{Backend, on_both},
};
use model::pool::Share;

on_both![each_family_is_read_once_and_only_where_it_is_watched];

async fn child(bench: &Bench, slug: &str, parent: TenantId, watches: &[&str]) -> TenantId {
    let child = NewTenant { parent: Some(parent), ..new(slug) };
    let child = bench.store.create_tenant(&Actor::Program, child).await.expect("a child").id;
    let settings = serde_json::from_value(watching(watches)).expect("settings");
    bench.store.put_alerts(&Actor::Program, child, settings, None).await.expect("a put");
    child
}

async fn share_users(bench: &Bench, owner: TenantId, total: u64, of: &[(&str, u64)]) {
    let share =
        |(slug, max): &(&str, u64)| ((*slug).to_owned(), Share { guaranteed: 0, max: *max });
    let pool = NewPool { total, shares: Some(of.iter().map(share).collect()) };
    let pools = BTreeMap::from([(Metric::Users, pool)]);
    let put = bench.store.put_pools(&Actor::Program, owner, &pools, &bench.catalog, None);
    put.await.expect("a pool");
}

async fn each_family_is_read_once_and_only_where_it_is_watched(on: Backend) {
    let bench = Bench::new(on).await;
    let one = child(&bench, "one", bench.tenant, &["users", "storage"]).await;
    let two = child(&bench, "two", bench.tenant, &["users"]).await;
    let below = child(&bench, "below", two, &["users"]).await;
    let without = child(&bench, "without", bench.tenant, &["users"]).await;
    let elsewhere = child(&bench, "elsewhere", bench.tenant, &["api_calls"]).await;
    let shares = [("one", 100), ("two", 200), ("elsewhere", 300)];
    share_users(&bench, bench.tenant, 500, &shares).await;
    share_users(&bench, two, 150, &[("below", 120)]).await;
    let mut settings = Vec::new();
    for tenant in [one, two, below, without, elsewhere] {
        let stored = bench.store.alerts(tenant).await.expect("alerts");
        settings.push((tenant, stored.settings));
    }
    let mut tx = bench.store.db.control(Purpose::Read).await.expect("a transaction");
    let watching = settings.iter().map(|(tenant, settings)| (*tenant, settings));
    let pooled = Pooled::of(&mut tx, Span::ALL, watching, &bench.catalog).await;
    let pooled = tx.end(pooled).await.expect("limits");
    let limits = [one, two, below, without, elsewhere].map(|id| pooled.limit(id, Metric::Users));
    assert_eq!(limits, [Some(100), Some(200), Some(120), None, None]);
    assert_eq!(pooled.limit(one, Metric::Storage), None, "it is not shared");
    let families: BTreeSet<_> = pooled.bounds.keys().copied().collect();
    let read = [(bench.tenant, Metric::Users), (two, Metric::Users)];
    assert_eq!(families, BTreeSet::from(read));
    for tenant in [one, two, below] {
        let caps = bench.store.pool_caps(tenant, &bench.catalog).await.expect("caps");
        assert_eq!(pooled.limit(tenant, Metric::Users), Some(caps[&Metric::Users].limit));
    }
}
