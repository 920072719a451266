//! A gate with a little room, that remembers what it was asked and told.

use std::sync::{Arc, Mutex, MutexGuard};

use model::{
    BoxFuture,
    pool::Bound,
    quota::{BYTES_PER_MB, Metric},
    reservation::{Amount, Exceeded, Keeper, Outcome, Refused, Reservation, StorageGate, Wanted},
};

#[derive(Default)]
pub(in crate::tests) struct FakeStorage(Arc<Mutex<State>>);

struct State {
    room: u64,
    away: bool,
    lapsed: bool,
    asked: Vec<(Metric, Amount)>,
    settled: Vec<Outcome>,
}

impl Default for State {
    fn default() -> Self {
        let (asked, settled) = (Vec::new(), Vec::new());
        Self { room: 1 << 30, away: false, lapsed: false, asked, settled }
    }
}

impl FakeStorage {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("the storage")
    }

    /// From now on there is so much room.
    pub(super) fn leave(&self, room: u64) {
        self.state().room = room;
    }

    pub(super) fn go_away(&self) {
        self.state().away = true;
    }

    /// What is set aside is no longer vouched for.
    pub(super) fn lapse(&self) {
        self.state().lapsed = true;
    }

    pub(super) fn asked(&self) -> Vec<(Metric, Amount)> {
        self.state().asked.clone()
    }

    pub(super) fn settled(&self) -> Vec<Outcome> {
        self.state().settled.clone()
    }

    pub(super) fn forget(&self) {
        self.state().settled.clear();
    }

    /// A settlement may follow its answer.
    pub(super) fn await_settled(&self, want: &[Outcome]) {
        for _ in 0..2_000 {
            if self.settled() == want {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert_eq!(self.settled(), want);
    }
}

impl State {
    fn give(&mut self, metric: Metric, amount: Amount) -> Result<u64, Refused> {
        self.asked.push((metric, amount));
        if self.away {
            return Err(Refused::Unavailable);
        }
        if amount.least > self.room {
            let limit = 3 * BYTES_PER_MB;
            let (used, reserved, by) = (limit - 4, 0, Bound::Plan);
            return Err(Refused::Exceeded(Exceeded { metric, used, reserved, limit, by }));
        }
        let given = amount.most.min(self.room);
        self.room -= given;
        Ok(given)
    }
}

impl StorageGate for FakeStorage {
    fn reserve(&self, wanted: Wanted) -> BoxFuture<'static, Result<Reservation, Refused>> {
        let state = Arc::clone(&self.0);
        Box::pin(async move {
            tokio::task::yield_now().await;
            let given = state.lock().expect("the storage").give(wanted.metric, wanted.amount)?;
            Ok(Reservation::new(Arc::new(Kept(state, wanted.metric)), given))
        })
    }
}

struct Kept(Arc<Mutex<State>>, Metric);

impl Keeper for Kept {
    fn extend(&self, more: Amount) -> BoxFuture<'static, Result<u64, Refused>> {
        let (state, metric) = (Arc::clone(&self.0), self.1);
        Box::pin(async move {
            tokio::task::yield_now().await;
            state.lock().expect("the storage").give(metric, more)
        })
    }

    fn is_live(&self) -> bool {
        !self.0.lock().expect("the storage").lapsed
    }

    fn settle(&self, outcome: Outcome) {
        self.0.lock().expect("the storage").settled.push(outcome);
    }
}
