//! Redis servers made of the in-process dispatcher's rules, and what happens to them.
//!
//! A server has one life at a time; its fence names it. Data of another life counts for
//! nothing, so a correct restart or failover begins without any. Invariant: a server
//! executes one message at a time; a recall is told to whoever listens, or lost.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use futures_util::FutureExt as _;
use model::ledger::{
    Dispatcher as _, DispatcherError, EpochRef, Fence, HolderId, InstallPermit, LeaseAnswer,
    LeaseRequest, RedisFence, RedisId, Shares, WindowKey,
};

use super::{clock::SimClock, rules::Rules, trace::trace};
use crate::dispatcher::InProcess;

pub(super) struct Server(Mutex<State>);

struct State {
    ledger: InProcess,
    fence: Fence,
    /// A life of this or another server that no other had.
    lives: u64,
    /// Answers; else it hangs.
    up: bool,
    master: bool,
    dump: Option<InProcess>,
    clock: SimClock,
    rules: Rules,
    /// Only without [`Rules::seq_rises`]: numbers that never fall.
    seq: HashMap<(WindowKey, HolderId), u64>,
}

/// What a server says to a message.
#[derive(Clone)]
pub(super) enum Said<T> {
    Answer(T, Fence),
    NotMaster,
}

fn fence(life: u64) -> Fence {
    let id: RedisId = format!("{life:040x}").parse().unwrap();
    Fence::Redis(RedisFence { run_id: id, replid: id })
}

impl Server {
    pub(super) fn new(number: u64, master: bool, clock: SimClock, rules: Rules) -> Arc<Self> {
        let lives = number << 32;
        let fence = fence(lives);
        let ledger = InProcess::new(fence, Arc::new(clock));
        let (up, dump, seq) = (true, None, HashMap::new());
        Arc::new(Self(Mutex::new(State {
            ledger,
            fence,
            lives,
            up,
            master,
            dump,
            clock,
            rules,
            seq,
        })))
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> Option<Said<T>> {
        let mut state = self.0.lock().unwrap();
        if !state.up {
            return None;
        }
        if !state.master {
            return Some(Said::NotMaster);
        }
        let answer = act(&mut state);
        Some(Said::Answer(answer, state.fence))
    }

    /// Whether it is a master, and its fence.
    pub(super) fn probe(&self) -> Option<Said<()>> {
        self.with(|_| ())
    }

    pub(super) fn lease(&self, request: LeaseRequest) -> Option<Said<LeaseAnswer>> {
        self.with(|state| {
            let mut request = request;
            if !state.rules.seq_rises {
                let last = state.seq.entry((request.key, request.holder)).or_default();
                *last += 1;
                request.seq = *last;
            }
            let answer = state.ledger.lease(request).now_or_never().unwrap();
            trace(
                &state.clock,
                format_args!("{}: {request:?}\n          -> {answer:?}", state.lives),
            );
            answer.unwrap_or(LeaseAnswer::Next)
        })
    }

    pub(super) fn install(
        &self,
        permit: InstallPermit,
    ) -> Option<Said<Result<(), DispatcherError>>> {
        self.with(|state| {
            let told = format!("{permit:?}");
            let answer = state.ledger.install(permit).now_or_never().unwrap();
            trace(&state.clock, format_args!("{}: {told} -> {answer:?}", state.lives));
            answer
        })
    }

    pub(super) fn close(&self, of: EpochRef, fence: Fence) -> Option<Said<Option<Shares>>> {
        self.with(|state| state.ledger.close(of, fence).now_or_never().unwrap().unwrap_or_default())
    }

    /// FLUSHALL: the same life, without any data.
    pub(super) fn flush(&self) {
        let mut state = self.0.lock().unwrap();
        state.ledger = InProcess::new(state.fence, Arc::new(state.clock));
    }

    pub(super) fn save(&self) {
        let mut state = self.0.lock().unwrap();
        state.dump = Some(state.ledger.copied(state.fence));
    }

    /// A new life, with what the last dump had: which is of another life, and so nothing.
    pub(super) fn restart(&self) {
        let mut state = self.0.lock().unwrap();
        if state.rules.fence {
            state.begin_life();
        } else if let Some(dump) = &state.dump {
            let copy = dump.copied(state.fence);
            state.ledger = copy;
        }
    }

    /// Becomes master of another history.
    pub(super) fn promote(&self) {
        let mut state = self.0.lock().unwrap();
        state.begin_life();
        (state.master, state.up) = (true, true);
    }

    pub(super) fn demote(&self) {
        self.0.lock().unwrap().master = false;
    }

    pub(super) fn set_up(&self, up: bool) {
        self.0.lock().unwrap().up = up;
    }

    pub(super) fn is_master(&self) -> bool {
        self.0.lock().unwrap().master
    }
}

impl State {
    fn begin_life(&mut self) {
        self.lives += 1;
        self.fence = fence(self.lives);
        self.ledger = InProcess::new(self.fence, Arc::new(self.clock));
    }
}
