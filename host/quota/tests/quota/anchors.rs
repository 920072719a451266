//! An edge that has seen another anchor than the account was opened under.

use model::{
    clock::UnixMs,
    ledger::{Authority as _, BootId, Fence, Holder, HolderId, OpenRequest, Opening, WindowKey},
    quota::Metric,
    window::Window,
};
use uuid::Uuid;

use crate::bench::{API, Bench, NOON, is_exhausted, spend_all, tenant};

const DAY_MS: u64 = 86_400_000;

#[tokio::test]
async fn an_edge_with_another_anchor_spends_from_the_window_that_the_account_has() {
    let bench = Bench::new().await;
    let tenant = tenant(100, 0);
    let window = Window { start: UnixMs(NOON.0 - 20 * DAY_MS), end: UnixMs(NOON.0 + 10 * DAY_MS) };
    let key = WindowKey { tenant: tenant.id(), metric: Metric::ApiCalls, window };
    let store = &bench.authority.store;
    let (id, boot) = (HolderId::random(), BootId(Uuid::new_v4()));
    store.register(Holder { id, edge: "other".into(), boot }).await.unwrap();
    let fence = Fence::Holder(id);
    let request = OpenRequest { key, fence, latest: 0, limit: 100, above: None, rate_per_s: 0 };
    let opened = store.open(id, vec![request]).await.unwrap();
    assert!(matches!(opened[..], [Opening::Opened(_)]), "{opened:?}");
    let meter = bench.meter(&tenant);
    let (admitted, denial) = spend_all(&meter, API, NOON).await;
    assert_eq!(admitted, 100 - 8, "the other has a tranche of 8");
    assert!(is_exhausted(denial), "{denial:?}");
    assert_eq!(meter.status(Metric::ApiCalls, NOON).unwrap().window, window);
    let account = store.accounts(vec![key]).await.unwrap()[0].unwrap();
    assert_eq!(account.granted - account.credited, 100);
    bench.audit().await;
}
