//! What is left after a process ended, in order or not.

use std::io::{Seek, SeekFrom, Write};

use model::gate::UsageSource;
use quota::{LeaseFileError, Quota, QuotaConfig, StartError};

use crate::bench::{API, Bench, NOON, Place, entry, spend, spend_all, tenant};

/// Spends 23 of 1,000 in a first life that ends without a word.
async fn a_life_that_crashed() -> (std::sync::Arc<Place>, model::tenant::TenantId) {
    let bench = Bench::new().await;
    let tenant = tenant(1_000, 0);
    spend(&bench.meter(&tenant), API, NOON, 23).await;
    (bench.crash().await, tenant.id())
}

#[tokio::test]
async fn a_clean_stop_wastes_nothing_and_leaves_nothing_to_inherit() {
    let bench = Bench::new().await;
    let tenant = tenant(1_000, 0);
    let meter = bench.meter(&tenant);
    spend(&meter, API, NOON, 20).await;
    bench.quota.shutdown().await;
    assert!(crate::bench::take(&meter, API, NOON).await.is_err());
    drop(meter);
    let bench = Bench::start(bench.crash().await, |_| {}).await;
    assert_eq!(bench.metric("quota_inherited_tokens_total"), 0.0);
    assert_eq!(bench.metric("quota_wasted_tokens_total"), 0.0);
    assert_eq!(spend_all(&bench.meter(&entry(tenant.id(), 1_000, 0)), API, NOON).await.0, 980);
    bench.audit().await;
}

#[tokio::test]
async fn the_next_start_inherits_the_lease_file_to_the_token() {
    let (place, id) = a_life_that_crashed().await;
    let bench = Bench::start(place, |_| {}).await;
    assert!(bench.metric("quota_inherited_tokens_total") > 0.0);
    assert_eq!(bench.metric("quota_wasted_tokens_total"), 0.0);
    assert_eq!(bench.api_charged(id).await, 23, "also for a tenant it never served");
    assert_eq!(spend_all(&bench.meter(&entry(id, 1_000, 0)), API, NOON).await.0, 977);
    bench.audit().await;
}

#[tokio::test]
async fn requests_in_flight_at_a_crash_stay_charged() {
    let bench = Bench::new().await;
    let tenant = tenant(10, 0);
    let meter = bench.meter(&tenant);
    let permit = crate::bench::take(&meter, API, NOON).await.unwrap();
    spend(&meter, API, NOON, 2).await;
    // The process dies with the permit in hand: it is never given back.
    std::mem::forget(permit.spend());
    drop(meter);
    // `forget` kept a meter, and with it the mapping: end the engine's hold by hand.
    let path = bench.place.lease_file();
    let copy = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, copy).unwrap();
    let bench = Bench::start(bench.crash().await, |_| {}).await;
    assert_eq!(bench.api_charged(tenant.id()).await, 3);
    assert_eq!(spend_all(&bench.meter(&entry(tenant.id(), 10, 0)), API, NOON).await.0, 7);
}

/// Waste is bounded and nothing is admitted twice.
async fn the_open_tranches_stay_charged(place: std::sync::Arc<Place>, id: model::tenant::TenantId) {
    let bench = Bench::start(place, |_| {}).await;
    let wasted = bench.metric("quota_wasted_tokens_total") as u64;
    assert!(wasted <= 20, "{wasted}: two tranches of 1 %");
    let charged = bench.api_charged(id).await;
    assert!((23..=43).contains(&charged), "{charged}");
    let (admitted, _) = spend_all(&bench.meter(&entry(id, 1_000, 0)), API, NOON).await;
    assert_eq!(admitted, 1_000 - charged);
    bench.audit().await;
}

#[tokio::test]
async fn without_the_lease_file_open_tranches_stay_charged() {
    let (place, id) = a_life_that_crashed().await;
    std::fs::remove_file(place.lease_file()).unwrap();
    the_open_tranches_stay_charged(place, id).await;
}

#[tokio::test]
async fn a_lease_file_of_another_uptime_is_not_believed() {
    let (place, id) = a_life_that_crashed().await;
    place.reboot();
    the_open_tranches_stay_charged(place, id).await;
}

#[tokio::test]
async fn a_damaged_lease_file_is_not_believed() {
    for (at, bytes) in [
        (0, &b"nonsense"[..]),   // not a lease file
        (16, &[7; 8][..]),       // another holder: the header's checksum
        (4096 + 8, &[7; 1][..]), // another tenant: the record's checksum
    ] {
        let (place, id) = a_life_that_crashed().await;
        let mut file = std::fs::OpenOptions::new().write(true).open(place.lease_file()).unwrap();
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(bytes).unwrap();
        drop(file);
        the_open_tranches_stay_charged(place, id).await;
    }
}

#[tokio::test]
async fn a_cut_off_lease_file_is_not_believed() {
    let (place, id) = a_life_that_crashed().await;
    let file = std::fs::OpenOptions::new().write(true).open(place.lease_file()).unwrap();
    file.set_len(4096 + 64).unwrap();
    drop(file);
    the_open_tranches_stay_charged(place, id).await;
}

#[tokio::test]
async fn two_processes_cannot_share_a_lease_file() {
    let bench = Bench::new().await;
    let second = Quota::start(
        QuotaConfig::new(bench.place.lease_file()),
        std::sync::Arc::clone(&bench.authority) as _,
        std::sync::Arc::clone(&bench.clock) as _,
        &prometheus::Registry::new(),
    )
    .await;
    assert!(matches!(second, Err(StartError::LeaseFile(LeaseFileError::InUse { .. }))));
}

#[tokio::test]
async fn crashes_in_a_row_admit_exactly_the_limit() {
    let mut place = Place::new();
    let tenant = tenant(300, 0);
    let mut admitted = 0;
    for life in 0..10_u64 {
        let bench = Bench::start(place, |_| {}).await;
        let entry = entry(tenant.id(), 300, 0);
        spend(&bench.meter(&entry), API, NOON, 7 + life).await;
        admitted += 7 + life;
        assert_eq!(
            bench.quota.usage(tenant.id(), Default::default()).await.unwrap().api_calls_this_month,
            admitted
        );
        place = bench.crash().await;
    }
    let bench = Bench::start(place, |_| {}).await;
    admitted += spend_all(&bench.meter(&entry(tenant.id(), 300, 0)), API, NOON).await.0;
    assert_eq!(admitted, 300);
    bench.audit().await;
}
