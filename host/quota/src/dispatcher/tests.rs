//! The in-process dispatcher under the contract that it shares with the Redis scripts.

use model::{clock::ManualClock, ledger::Fence};

use super::*;
use crate::contract::{self, Bench};

fn bench() -> Bench {
    let fence = Fence::Holder(HolderId::random());
    let clock = Arc::new(ManualClock::default());
    contract::bench(Arc::new(InProcess::new(fence, clock)))
}

contract::contract!(bench());

#[tokio::test]
async fn a_third_tranche_is_refused_so_that_none_of_an_edges_own_is_lost() {
    let bench = bench();
    for epoch in [1, 2] {
        bench.install(epoch, 8, 9).await.expect("installed");
    }
    assert_eq!(bench.install(3, 8, 9).await, Err(DispatcherError::OutOfOrder));
}

#[tokio::test]
async fn a_forgotten_account_grants_nothing_and_names_its_tranches() {
    let dispatcher = Arc::new(InProcess::new(
        Fence::Holder(HolderId::random()),
        Arc::new(ManualClock::default()),
    ));
    let bench = contract::bench(Arc::clone(&dispatcher) as _);
    bench.install(1, 8, 9).await.expect("installed");
    bench.install(2, 9, 0).await.expect("installed");
    let forgotten = dispatcher.forget(&bench.key);
    assert_eq!(forgotten.iter().map(|of| of.epoch).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(bench.lease(0, 1).await, LeaseAnswer::Next);
}
