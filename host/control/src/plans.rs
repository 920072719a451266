//! Gives the plans in force their versions.
//!
//! Stands between the publisher, which knows no database, and the API. Invariant: a catalog
//! is passed on whatever the database does; then plans that are not recorded yet are without
//! a version until it is back.

use std::{sync::Arc, time::Duration};

use model::catalog::Catalog;
use tokio::sync::watch;

use crate::store::Store;

/// How long to wait before the plans are recorded again after a failure, in ms.
const RETRY_MS: u64 = 1_000;

/// The catalogs of `declared` with the versions of their plans; content that was never in
/// force before is recorded. Waits for the first attempt at the first one.
pub async fn numbered(
    store: Arc<Store>,
    mut declared: watch::Receiver<Arc<Catalog>>,
) -> watch::Receiver<Arc<Catalog>> {
    let first = Arc::clone(&declared.borrow_and_update());
    let (first, mut recorded) = number(&store, &first).await;
    let (sender, receiver) = watch::channel(first);
    tokio::spawn(async move {
        while changed(&mut declared, recorded).await {
            let next = Arc::clone(&declared.borrow_and_update());
            let (next, done) = number(&store, &next).await;
            recorded = done;
            sender.send_replace(next);
        }
    });
    receiver
}

/// Waits for a change, or for the next attempt; false when there will be no change.
async fn changed(declared: &mut watch::Receiver<Arc<Catalog>>, recorded: bool) -> bool {
    if recorded {
        return declared.changed().await.is_ok();
    }
    let retry = Duration::from_millis(RETRY_MS);
    // A timeout is the next attempt.
    tokio::time::timeout(retry, declared.changed()).await.map_or(true, |changed| changed.is_ok())
}

/// A catalog with versions, and whether it has all.
async fn number(store: &Arc<Store>, declared: &Arc<Catalog>) -> (Arc<Catalog>, bool) {
    match store.record_plans(&declared.plans).await {
        Ok(plan_versions) => {
            (Arc::new(Catalog { plan_versions, ..Catalog::clone(declared) }), true)
        }
        Err(error) => {
            tracing::warn!(%error, "the plans in force are not recorded yet");
            (Arc::clone(declared), false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Backend, Control, on_both};

    on_both![every_catalog_is_passed_on_with_the_versions_of_its_plans];

    async fn every_catalog_is_passed_on_with_the_versions_of_its_plans(on: Backend) {
        let control = Control::start(on).await;
        let mut catalog = numbered(Arc::clone(&control.store), control.catalog.subscribe()).await;
        let team = |catalog: &Catalog| catalog.plan_versions.get("team").copied();
        assert_eq!(team(&catalog.borrow()), Some(1));
        control.catalog.send_modify(|catalog| {
            let mut changed = Catalog::clone(catalog);
            let team = Arc::make_mut(changed.plans.get_mut("team").expect("a plan"));
            team.quotas.max_users += 1;
            *catalog = Arc::new(changed);
        });
        catalog.changed().await.expect("a catalog");
        assert_eq!(team(&catalog.borrow_and_update()), Some(2));
        // Without its database the store cannot say, and the catalog comes all the same.
        control.store.close().await;
        control.catalog.send_modify(|catalog| {
            let mut fewer = Catalog::clone(catalog);
            fewer.plans.remove("developer");
            *catalog = Arc::new(fewer);
        });
        catalog.changed().await.expect("a catalog");
        assert!(!catalog.borrow().plans.contains_key("developer"));
        assert_eq!(team(&catalog.borrow()), None);
    }
}
