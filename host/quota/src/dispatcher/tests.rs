//! The contract of a dispatcher, on the in-process one.

use model::{clock::UnixMs, quota::Metric, tenant::TenantId, window::Window};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

struct Bench {
    dispatcher: InProcess,
    holder: HolderId,
    key: WindowKey,
}

impl Bench {
    fn new() -> Self {
        let holder = HolderId::random();
        let window = Window { start: UnixMs(0), end: UnixMs(1_000) };
        let tenant = TenantId(Uuid::from_u128(1));
        let key = WindowKey { tenant, metric: Metric::ApiCalls, window };
        Self { dispatcher: InProcess::new(holder), holder, key }
    }

    fn permit(&self, epoch: u64, tranche: u64, beyond: u64) -> InstallPermit {
        InstallPermit::issue(self.key, Fence::Holder(self.holder), epoch, tranche, beyond)
    }

    fn install(&self, epoch: u64, tranche: u64, beyond: u64) -> Result<(), DispatcherError> {
        self.dispatcher.install_now(&self.permit(epoch, tranche, beyond))
    }

    /// Tokens, epoch, and whether the next tranche is asked for.
    fn lease(&self, want: u64) -> Option<(u64, u64, bool)> {
        let request = LeaseRequest { key: self.key, holder: self.holder, want };
        match self.dispatcher.lease_now(&request) {
            LeaseAnswer::Granted { tokens, epoch, low, .. } => Some((tokens, epoch, low)),
            LeaseAnswer::Next => None,
        }
    }
}

#[test]
fn nothing_is_granted_of_nothing() {
    assert_eq!(Bench::new().lease(5), None);
}

#[test]
fn a_tranche_of_another_life_is_refused() {
    let bench = Bench::new();
    let foreign = Fence::Holder(HolderId::random());
    let permit = InstallPermit::issue(bench.key, foreign, 1, 8, 0);
    assert_eq!(bench.dispatcher.install_now(&permit), Err(DispatcherError::Fenced));
    assert_eq!(bench.lease(5), None);
}

#[test]
fn grants_halve_near_the_end_of_the_window_and_stop_at_its_end() {
    let bench = Bench::new();
    bench.install(1, 8, 0).expect("installed");
    let grants: Vec<_> = std::iter::from_fn(|| bench.lease(100)).map(|(n, ..)| n).collect();
    assert_eq!(grants, [4, 2, 1, 1]);
}

#[test]
fn a_grant_is_of_one_tranche_and_the_next_follows() {
    let bench = Bench::new();
    bench.install(1, 100, 1_000).expect("installed");
    assert_eq!(bench.lease(40), Some((40, 1, false)));
    assert_eq!(bench.lease(30), Some((30, 1, true)), "half is gone");
    bench.install(2, 100, 900).expect("installed");
    assert_eq!(bench.lease(50), Some((30, 1, false)));
    assert_eq!(bench.lease(50), Some((50, 2, true)));
}

#[test]
fn at_most_two_tranches_and_only_newer_ones() {
    let bench = Bench::new();
    bench.install(2, 8, 9).expect("installed");
    assert_eq!(bench.install(2, 8, 9), Err(DispatcherError::OutOfOrder));
    assert_eq!(bench.install(1, 8, 9), Err(DispatcherError::OutOfOrder));
    bench.install(3, 8, 9).expect("installed");
    assert_eq!(bench.install(4, 8, 9), Err(DispatcherError::OutOfOrder));
}

#[test]
fn a_closed_account_grants_nothing_and_names_its_tranches() {
    let bench = Bench::new();
    bench.install(1, 8, 9).expect("installed");
    bench.install(2, 9, 0).expect("installed");
    let mut close = bench.dispatcher.close(bench.key);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let closed = close.as_mut().poll(&mut context);
    assert_eq!(closed, std::task::Poll::Ready(Ok(vec![(1, 8), (2, 9)])));
    assert_eq!(bench.lease(1), None);
}

proptest! {
    #[test]
    fn every_token_of_every_tranche_is_granted_once(
        tranches in prop::collection::vec(1_u64..200, 1..12), want in 1_u64..50,
    ) {
        let bench = Bench::new();
        let mut granted = vec![0; tranches.len() + 1];
        let mut beyond: u64 = tranches.iter().sum();
        for (index, tranche) in tranches.iter().enumerate() {
            beyond -= tranche;
            let epoch = index as u64 + 1;
            while bench.install(epoch, *tranche, beyond).is_err() {
                let (tokens, epoch, _) = bench.lease(want).expect("two tranches are there");
                granted[epoch as usize] += tokens;
            }
        }
        while let Some((tokens, epoch, _)) = bench.lease(want) {
            granted[epoch as usize] += tokens;
        }
        prop_assert_eq!(&granted[1..], &tranches[..]);
    }
}
