//! What every dispatcher has to do: the same tests run on the one in this process and on
//! the scripts in a real Redis.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use model::{
    clock::UnixMs,
    ledger::{
        Bounds, Dispatcher, DispatcherError, EpochRef, Fence, HolderId, InstallPermit, LeaseAnswer,
        LeaseRequest, WindowKey,
    },
    quota::Metric,
    tenant::TenantId,
    window::Window,
};
use uuid::Uuid;

/// Wide enough for every epoch.
const ALL: Bounds = Bounds { floor: 0, latest: u64::MAX >> 12 };

/// A dispatcher, an account, and two holders.
pub(crate) struct Bench {
    dispatcher: Arc<dyn Dispatcher>,
    pub(crate) key: WindowKey,
    pub(crate) holders: [HolderId; 2],
    seq: AtomicU64,
}

pub(crate) fn bench(dispatcher: Arc<dyn Dispatcher>) -> Bench {
    let window = Window { start: UnixMs(0), end: UnixMs(4_000_000_000_000) };
    let key = WindowKey { tenant: TenantId(Uuid::new_v4()), metric: Metric::ApiCalls, window };
    let holders = [HolderId::random(), HolderId::random()];
    Bench { dispatcher, key, holders, seq: AtomicU64::new(0) }
}

impl Bench {
    fn fence(&self) -> Fence {
        self.dispatcher.fence(&self.key).expect("a dispatcher that answers")
    }

    fn of(&self, epoch: u64) -> EpochRef {
        EpochRef { key: self.key, epoch }
    }

    fn seq(&self) -> u64 {
        self.seq.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) async fn install(
        &self,
        epoch: u64,
        tranche: u64,
        beyond: u64,
    ) -> Result<(), DispatcherError> {
        self.install_for(self.fence(), epoch, tranche, beyond).await
    }

    async fn install_for(
        &self,
        fence: Fence,
        epoch: u64,
        tranche: u64,
        beyond: u64,
    ) -> Result<(), DispatcherError> {
        let permit = InstallPermit::issue(self.of(epoch), fence, tranche, beyond, UnixMs(0));
        self.dispatcher.install(permit).await
    }

    pub(crate) fn message(&self, holder: usize, want: u64) -> LeaseRequest {
        LeaseRequest {
            key: self.key,
            holder: self.holders[holder],
            seq: self.seq(),
            want,
            returned: 0,
            returned_epoch: 0,
            bounds: ALL,
        }
    }

    pub(crate) async fn send(&self, message: LeaseRequest) -> LeaseAnswer {
        self.dispatcher.lease(message).await.expect("an answer")
    }

    pub(crate) async fn lease(&self, holder: usize, want: u64) -> LeaseAnswer {
        self.send(self.message(holder, want)).await
    }

    async fn give_back(&self, holder: usize, epoch: u64, tokens: u64) -> LeaseAnswer {
        let message = self.message(holder, 0);
        self.send(LeaseRequest { returned: tokens, returned_epoch: epoch, ..message }).await
    }

    /// Tokens and epoch of a grant.
    async fn granted(&self, holder: usize, want: u64) -> (u64, u64) {
        granted(self.lease(holder, want).await)
    }
}

#[track_caller]
fn granted(answer: LeaseAnswer) -> (u64, u64) {
    let LeaseAnswer::Granted(grant) = answer else { panic!("no grant: {answer:?}") };
    (grant.tokens, grant.epoch)
}

pub(crate) async fn nothing_is_granted_of_nothing(bench: Bench) {
    assert_eq!(bench.lease(0, 5).await, LeaseAnswer::Next);
}

pub(crate) async fn a_tranche_of_another_life_is_refused(bench: Bench) {
    let foreign = Fence::Holder(HolderId::random());
    assert_eq!(bench.install_for(foreign, 1, 8, 0).await, Err(DispatcherError::Fenced));
    assert_eq!(bench.lease(0, 5).await, LeaseAnswer::Next);
}

pub(crate) async fn grants_halve_near_the_end_of_the_window_and_stop_at_its_end(bench: Bench) {
    bench.install(1, 8, 0).await.expect("installed");
    for tokens in [4, 2, 1, 1] {
        assert_eq!(bench.granted(0, 100).await, (tokens, 1));
    }
    assert_eq!(bench.lease(0, 100).await, LeaseAnswer::Next);
}

pub(crate) async fn two_edges_get_a_quarter_each_of_what_is_left(bench: Bench) {
    bench.install(1, 80, 0).await.expect("installed");
    assert_eq!(bench.granted(0, 100).await, (40, 1));
    assert_eq!(bench.granted(1, 100).await, (10, 1));
    assert_eq!(bench.granted(0, 100).await, (8, 1));
}

pub(crate) async fn a_grant_is_of_one_tranche_and_the_next_follows(bench: Bench) {
    bench.install(1, 100, 1_000).await.expect("installed");
    let LeaseAnswer::Granted(first) = bench.lease(0, 40).await else { panic!("no grant") };
    assert_eq!((first.tokens, first.free, first.beyond, first.low), (40, 60, 1_000, false));
    let LeaseAnswer::Granted(half) = bench.lease(0, 30).await else { panic!("no grant") };
    assert!(half.low, "half is gone");
    bench.install(2, 100, 900).await.expect("installed");
    assert_eq!(bench.granted(0, 50).await, (30, 1));
    assert_eq!(bench.granted(0, 50).await, (50, 2));
}

pub(crate) async fn only_newer_tranches_are_taken_in(bench: Bench) {
    bench.install(2, 8, 9).await.expect("installed");
    for epoch in [1, 2] {
        assert_eq!(bench.install(epoch, 8, 9).await, Err(DispatcherError::OutOfOrder));
    }
    bench.install(3, 8, 9).await.expect("installed");
    assert_eq!(bench.install(3, 8, 9).await, Err(DispatcherError::OutOfOrder));
}

pub(crate) async fn the_same_message_again_brings_the_same_grant_and_an_older_one_nothing(
    bench: Bench,
) {
    bench.install(1, 100, 0).await.expect("installed");
    let (older, message) = (bench.message(0, 7), bench.message(0, 7));
    assert_eq!(granted(bench.send(message).await), (7, 1));
    assert_eq!(granted(bench.send(message).await), (7, 1));
    assert_eq!(bench.send(older).await, LeaseAnswer::Old);
    let LeaseAnswer::Granted(next) = bench.lease(0, 1).await else { panic!("no grant") };
    assert_eq!(next.free, 100 - 7 - 1, "granted once");
}

pub(crate) async fn tokens_come_back_once_and_only_to_their_own_tranche(bench: Bench) {
    bench.install(1, 8, 0).await.expect("installed");
    assert_eq!(bench.granted(0, 4).await, (4, 1));
    let mut back = bench.message(0, 0);
    (back.returned, back.returned_epoch) = (3, 1);
    assert_eq!(bench.send(back).await, LeaseAnswer::Returned);
    assert_eq!(bench.send(back).await, LeaseAnswer::Returned, "a duplicate");
    assert_eq!(bench.granted(1, 100).await, (4, 1), "half of the seven that are free");
    assert_eq!(bench.give_back(0, 9, 1).await, LeaseAnswer::Returned);
    assert_eq!(bench.give_back(0, 1, 50).await, LeaseAnswer::Returned, "it has one left");
    assert_eq!(bench.granted(1, 100).await, (2, 1), "half of the four that are free");
}

pub(crate) async fn nobody_gets_tokens_outside_the_bounds_it_confirmed(bench: Bench) {
    bench.install(5, 8, 0).await.expect("installed");
    let with = |bounds| LeaseRequest { bounds, ..bench.message(0, 3) };
    let behind = bench.send(with(Bounds { floor: 0, latest: 4 })).await;
    assert_eq!(behind, LeaseAnswer::Stale { epoch: 5 });
    let within = bench.send(with(Bounds { floor: 4, latest: 5 })).await;
    assert_eq!(granted(within), (3, 5));
    // Closed at the authority: the next has to be opened, whatever is left of it here.
    let bounds = Bounds { floor: 5, latest: 5 };
    assert_eq!(bench.send(with(bounds)).await, LeaseAnswer::Next);
    bench.install(6, 8, 0).await.expect("installed");
    let next = bench.send(with(Bounds { floor: 5, latest: 6 })).await;
    assert_eq!(granted(next), (3, 6));
}

pub(crate) async fn the_last_tokens_of_others_are_waited_for_while_their_lease_holds(bench: Bench) {
    bench.install(1, 2, 0).await.expect("installed");
    assert_eq!(bench.granted(0, 2).await, (1, 1));
    assert_eq!(bench.granted(0, 2).await, (1, 1));
    assert_eq!(bench.lease(1, 2).await, LeaseAnswer::Soft);
    assert_eq!(bench.lease(0, 2).await, LeaseAnswer::Next, "its own are no reason to wait");
    assert_eq!(bench.give_back(0, 1, 1).await, LeaseAnswer::Returned);
    assert_eq!(bench.granted(1, 2).await, (1, 1));
    assert_eq!(bench.lease(1, 2).await, LeaseAnswer::Next, "nobody else has any");
}

pub(crate) async fn a_closed_epoch_grants_nothing_and_tells_who_has_what(bench: Bench) {
    bench.install(1, 100, 0).await.expect("installed");
    bench.granted(0, 7).await;
    bench.granted(1, 5).await;
    bench.give_back(1, 1, 2).await;
    let mut shares = bench.close(1).await.expect("a known epoch");
    shares.retain(|(_, tokens)| *tokens > 0);
    shares.sort_by_key(|(_, tokens)| *tokens);
    assert_eq!(shares, [(bench.holders[1], 3), (bench.holders[0], 7)]);
    bench.give_back(0, 1, 7).await;
    assert_eq!(bench.close(1).await.expect("a known epoch").len(), 2);
    let kept = bench.close(1).await.expect("a known epoch");
    assert!(kept.contains(&(bench.holders[0], 7)), "nothing comes back after it");
    assert!(!matches!(bench.lease(0, 5).await, LeaseAnswer::Granted(_)));
    bench.install(2, 10, 0).await.expect("installed");
    assert_eq!(bench.granted(0, 1).await, (1, 2));
    assert_eq!(bench.close(9).await, None, "never installed here");
}

impl Bench {
    async fn close(&self, epoch: u64) -> Option<Vec<(HolderId, u64)>> {
        self.dispatcher.close(self.of(epoch), self.fence()).await.expect("an answer")
    }
}

/// Random messages of two holders: what is out never exceeds what was installed.
pub(crate) async fn no_token_is_out_twice(bench: Bench) {
    let (mut out, mut installed) = ([[0_u64; 2]; 40], [0_u64; 40]);
    let mut epoch = 0;
    for step in 0..400 {
        let holder = rand::random_range(0..2);
        match rand::random_range(0..10) {
            0 if epoch < 39 => {
                let tranche = rand::random_range(1..30);
                if bench.install(epoch + 1, tranche, 5).await.is_ok() {
                    epoch += 1;
                    installed[epoch as usize] = tranche;
                }
            }
            1..=3 => {
                let of = rand::random_range(0..=epoch);
                let held = &mut out[of as usize][holder];
                let back = rand::random_range(0..=*held);
                *held -= back;
                bench.give_back(holder, of, back).await;
            }
            _ => {
                if let LeaseAnswer::Granted(grant) =
                    bench.lease(holder, rand::random_range(1..12)).await
                {
                    out[grant.epoch as usize][holder] += grant.tokens;
                }
            }
        }
        for (of, size) in out.iter().zip(installed) {
            assert!(of.iter().sum::<u64>() <= size, "step {step}: {of:?} of {size}");
        }
    }
}

/// Makes a test of every part of the contract.
macro_rules! contract {
    ($bench:expr) => {
        $crate::contract::contract! { $bench,
            nothing_is_granted_of_nothing,
            a_tranche_of_another_life_is_refused,
            grants_halve_near_the_end_of_the_window_and_stop_at_its_end,
            two_edges_get_a_quarter_each_of_what_is_left,
            a_grant_is_of_one_tranche_and_the_next_follows,
            only_newer_tranches_are_taken_in,
            the_same_message_again_brings_the_same_grant_and_an_older_one_nothing,
            tokens_come_back_once_and_only_to_their_own_tranche,
            nobody_gets_tokens_outside_the_bounds_it_confirmed,
            the_last_tokens_of_others_are_waited_for_while_their_lease_holds,
            a_closed_epoch_grants_nothing_and_tells_who_has_what,
            no_token_is_out_twice,
        }
    };
    ($bench:expr, $($name:ident,)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                $crate::contract::$name($bench).await;
            }
        )*
    };
}
pub(crate) use contract;
