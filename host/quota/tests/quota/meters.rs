//! Meters of tenants that are gone are dropped; those in use are not.

use std::sync::{Arc, Weak};

use model::{gate::Meter, snapshot::TenantEntry};

use crate::bench::{API, Bench, NOON, spend, take, tenant};

/// Tenants that come and go: beyond so many, meters without a user are dropped.
const MANY: usize = 3_000;

/// Makes the meter of a tenant and leaves nobody who uses it.
fn pass_by(bench: &Bench, tenant: &TenantEntry) -> Weak<dyn Meter> {
    Arc::downgrade(&bench.meter(tenant))
}

#[tokio::test]
async fn meters_of_tenants_that_are_gone_are_dropped() {
    let bench = Bench::new().await;
    let gone: Vec<_> = (0..MANY).map(|_| pass_by(&bench, &tenant(10, 0))).collect();
    let left = gone.iter().filter(|meter| meter.strong_count() > 0).count();
    assert!(left <= 1_024, "{left} of {MANY} are left");
}

#[tokio::test]
async fn a_request_in_flight_keeps_its_meter_and_gives_its_token_back_to_it() {
    let bench = Bench::new().await;
    let deleted = tenant(10, 0);
    let meter = bench.meter(&deleted);
    let permit = take(&meter, API, NOON).await.unwrap();
    let charge = permit.spend();
    let weak = Arc::downgrade(&meter);
    drop(meter);
    (0..MANY).for_each(|_| drop(pass_by(&bench, &tenant(10, 0))));
    let found = bench.meter(&deleted);
    assert!(weak.upgrade().is_some_and(|meter| Arc::ptr_eq(&meter, &found)), "the same one");
    charge.refund();
    spend(&found, API, NOON, 10).await;
    assert_eq!(bench.api_charged(deleted.id()).await, 10);
    bench.audit().await;
}
