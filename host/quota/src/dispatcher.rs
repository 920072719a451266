//! The dispatcher of embedded mode: divides open tranches inside this process.
//!
//! Called once per refill. Its fence is the holder, so its tranches die with the process
//! and nobody else can have their tokens. Invariant: of each account at most two tranches
//! are installed, and a token is granted once; nothing is taken back by timeout.

use std::{
    collections::HashMap,
    future::ready,
    sync::{Mutex, MutexGuard, PoisonError},
};

use model::{
    BoxFuture,
    ledger::{
        Dispatcher, DispatcherError, Fence, HolderId, InstallPermit, LeaseAnswer, LeaseRequest,
        WindowKey,
        rules::{State, grant_size},
    },
};

/// One process is one edge.
const ACTIVE_EDGES: u64 = 1;

/// The in-process dispatcher.
pub(crate) struct InProcess {
    fence: Fence,
    ledgers: Mutex<HashMap<WindowKey, Ledger>>,
}

struct Ledger {
    current: Tranche,
    next: Option<Tranche>,
    beyond: u64,
}

#[derive(Clone, Copy)]
struct Tranche {
    epoch: u64,
    size: u64,
    free: u64,
}

impl InProcess {
    pub(crate) fn new(holder: HolderId) -> Self {
        Self { fence: Fence::Holder(holder), ledgers: Mutex::default() }
    }

    fn ledgers(&self) -> MutexGuard<'_, HashMap<WindowKey, Ledger>> {
        self.ledgers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn install_now(&self, permit: &InstallPermit) -> Result<(), DispatcherError> {
        if permit.fence() != self.fence {
            return Err(DispatcherError::Fenced);
        }
        let (epoch, size) = (permit.epoch(), permit.tranche());
        let new = Tranche { epoch, size, free: size };
        let mut ledgers = self.ledgers();
        let Some(ledger) = ledgers.get_mut(&permit.key()) else {
            let ledger = Ledger { current: new, next: None, beyond: permit.beyond() };
            ledgers.insert(permit.key(), ledger);
            return Ok(());
        };
        if ledger.next.is_some() || ledger.current.epoch >= epoch {
            return Err(DispatcherError::OutOfOrder);
        }
        ledger.beyond = permit.beyond();
        if ledger.current.free == 0 {
            ledger.current = new;
        } else {
            ledger.next = Some(new);
        }
        Ok(())
    }

    fn lease_now(&self, request: &LeaseRequest) -> LeaseAnswer {
        let mut ledgers = self.ledgers();
        let Some(ledger) = ledgers.get_mut(&request.key) else { return LeaseAnswer::Next };
        if ledger.current.free == 0
            && let Some(next) = ledger.next.take()
        {
            ledger.current = next;
        }
        let free = ledger.current.free + ledger.next.map_or(0, |next| next.free);
        let pool = free.saturating_add(ledger.beyond);
        let current = &mut ledger.current;
        let tokens = grant_size(request.want.max(1), current.free, pool, ACTIVE_EDGES);
        if tokens == 0 {
            return LeaseAnswer::Next;
        }
        current.free -= tokens;
        let (epoch, tranche) = (current.epoch, current.size);
        let has_next = ledger.next.is_some();
        let state = State::of(tranche, current.free, has_next, ledger.beyond, 0);
        let low = matches!(state, State::Low)
            || (state == State::Next && tranche > model::ledger::rules::PREOPEN_ABOVE);
        LeaseAnswer::Granted {
            tokens,
            epoch,
            tranche,
            free: free - tokens,
            beyond: ledger.beyond,
            low,
        }
    }
}

impl Dispatcher for InProcess {
    fn fence(&self) -> Fence {
        self.fence
    }

    fn install(&self, permit: InstallPermit) -> BoxFuture<'_, Result<(), DispatcherError>> {
        Box::pin(ready(self.install_now(&permit)))
    }

    fn lease(&self, request: LeaseRequest) -> BoxFuture<'_, Result<LeaseAnswer, DispatcherError>> {
        Box::pin(ready(Ok(self.lease_now(&request))))
    }

    fn close(&self, key: WindowKey) -> BoxFuture<'_, Result<Vec<(u64, u64)>, DispatcherError>> {
        let closed = self.ledgers().remove(&key);
        let tranches = closed.map(|ledger| {
            let mut tranches = vec![(ledger.current.epoch, ledger.current.size)];
            tranches.extend(ledger.next.map(|next| (next.epoch, next.size)));
            tranches
        });
        Box::pin(ready(Ok(tranches.unwrap_or_default())))
    }
}

#[cfg(test)]
mod tests;
