//! The in-process dispatcher: divides open tranches by the steps of the Redis scripts.
//!
//! In embedded mode it is the only one; beside Redis it divides the direct tranches of one
//! edge. Its fence dies with the process, so nobody else can have its tokens. Called once
//! per refill. Invariant: of each account at most two tranches are installed, and a token
//! is granted once; nothing is taken back by timeout.

use std::{
    collections::HashMap,
    future::ready,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use model::{
    BoxFuture,
    clock::Clock,
    ledger::{
        Dispatcher, DispatcherError, EpochRef, Fence, Grant, HolderId, InstallPermit, LeaseAnswer,
        LeaseRequest, WindowKey,
        rules::{LEASE_TTL_MS, State, grant_size},
    },
};

/// The in-process dispatcher.
pub(crate) struct InProcess {
    fence: Fence,
    clock: Arc<dyn Clock>,
    ledgers: Mutex<HashMap<WindowKey, Ledger>>,
}

/// One account: the hash of the Redis scripts.
#[derive(Clone)]
struct Ledger {
    current: Tranche,
    next: Option<Tranche>,
    beyond: u64,
    closed: u64,
    holders: HashMap<HolderId, Known>,
}

/// One tranche and who has how much of it.
#[derive(Clone)]
struct Tranche {
    epoch: u64,
    size: u64,
    granted: u64,
    out: HashMap<HolderId, u64>,
}

/// A holder's last message, and until when its lease holds.
#[derive(Clone, Copy, Default)]
struct Known {
    seq: u64,
    tokens: u64,
    epoch: u64,
    tranche: u64,
    lease_end: u64,
}

impl InProcess {
    pub(crate) fn new(fence: Fence, clock: Arc<dyn Clock>) -> Self {
        Self { fence, clock, ledgers: Mutex::default() }
    }

    fn ledgers(&self) -> MutexGuard<'_, HashMap<WindowKey, Ledger>> {
        self.ledgers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn install_now(&self, permit: &InstallPermit) -> Result<(), DispatcherError> {
        if permit.fence() != self.fence {
            return Err(DispatcherError::Fenced);
        }
        let mut ledgers = self.ledgers();
        match ledgers.get_mut(&permit.key()) {
            Some(ledger) => ledger.install(permit),
            None => {
                ledgers.insert(permit.key(), Ledger::new(permit));
                Ok(())
            }
        }
    }

    fn lease_now(&self, request: &LeaseRequest) -> LeaseAnswer {
        let now = self.clock.monotonic_ms();
        let mut ledgers = self.ledgers();
        ledgers.get_mut(&request.key).map_or(LeaseAnswer::Next, |ledger| ledger.lease(request, now))
    }

    fn close_now(&self, of: EpochRef, fence: Fence) -> Option<Vec<(HolderId, u64)>> {
        if fence != self.fence {
            return None;
        }
        self.ledgers().get_mut(&of.key)?.close(of.epoch)
    }

    /// Forgets an account: its tranches, oldest first, of which no token is granted from
    /// here on.
    pub(crate) fn forget(&self, key: &WindowKey) -> Vec<EpochRef> {
        let Some(ledger) = self.ledgers().remove(key) else { return Vec::new() };
        let tranches = [Some(ledger.current), ledger.next];
        tranches.into_iter().flatten().map(|t| EpochRef { key: *key, epoch: t.epoch }).collect()
    }
}

impl Ledger {
    fn new(permit: &InstallPermit) -> Self {
        Self {
            current: Tranche::new(permit),
            next: None,
            beyond: permit.beyond(),
            closed: 0,
            holders: HashMap::new(),
        }
    }

    fn install(&mut self, permit: &InstallPermit) -> Result<(), DispatcherError> {
        let newest = self.next.as_ref().map_or(self.current.epoch, |next| next.epoch);
        if permit.epoch() <= newest.max(self.closed) {
            return Err(DispatcherError::OutOfOrder);
        }
        let new = Tranche::new(permit);
        if self.free() == 0 {
            self.next = None;
            self.current = new;
        } else if matches!(permit.fence(), Fence::Holder(_)) && self.next.is_some() {
            return Err(DispatcherError::OutOfOrder);
        } else if let Some(next) = self.next.replace(new) {
            // The authority closed the current one when it opened a third.
            self.current = next;
        }
        self.beyond = permit.beyond();
        Ok(())
    }

    /// Tokens left in the current tranche.
    const fn free(&self) -> u64 {
        if self.current.epoch <= self.closed { 0 } else { self.current.free() }
    }

    fn lease(&mut self, request: &LeaseRequest, now: u64) -> LeaseAnswer {
        let known = self.holders.get(&request.holder).copied().unwrap_or_default();
        if request.seq < known.seq {
            return LeaseAnswer::Old;
        }
        if request.seq == known.seq {
            return self.answer(request, known.tokens, (known.epoch, known.tranche), now);
        }
        // The authority's floor never falls: what the caller knows to be closed is.
        self.closed = self.closed.max(request.bounds.floor);
        self.take_back(request);
        self.promote();
        let free = self.free();
        let allowed = request.bounds.allow(self.current.epoch);
        if request.want > 0 && free > 0 && !allowed {
            return LeaseAnswer::Stale { epoch: self.current.epoch };
        }
        if request.want > 0 && free == 0 && self.beyond == 0 && self.others(request, now) > 0 {
            return LeaseAnswer::Soft;
        }
        let next = self.next.as_ref().map_or(0, |next| next.size);
        let pool = free.saturating_add(next).saturating_add(self.beyond);
        let edges = self.others(request, now) + 1;
        let tokens = match request.want {
            0 => 0,
            want => grant_size(want, free, pool, edges),
        };
        let current = &mut self.current;
        current.granted += tokens;
        *current.out.entry(request.holder).or_default() += tokens;
        let of = (current.epoch, current.size);
        let seq = request.seq;
        let last = Known { seq, tokens, epoch: of.0, tranche: of.1, lease_end: known.lease_end };
        self.holders.insert(request.holder, last);
        self.answer(request, tokens, of, now)
    }

    fn take_back(&mut self, request: &LeaseRequest) {
        let current = &mut self.current;
        if request.returned_epoch != current.epoch || current.epoch <= self.closed {
            return;
        }
        let out = current.out.entry(request.holder).or_default();
        let back = request.returned.min(*out).min(current.granted);
        *out -= back;
        current.granted -= back;
    }

    fn promote(&mut self) {
        if self.free() == 0
            && let Some(next) = self.next.take_if(|next| next.epoch > self.closed)
        {
            self.current = next;
        }
    }

    /// Other holders whose lease may still hold.
    fn others(&self, request: &LeaseRequest, now: u64) -> u64 {
        let mut others = self.holders.iter().filter(|(holder, _)| **holder != request.holder);
        others.by_ref().filter(|(_, known)| known.lease_end > now).count() as u64
    }

    fn answer(
        &mut self,
        request: &LeaseRequest,
        tokens: u64,
        (epoch, tranche): (u64, u64),
        now: u64,
    ) -> LeaseAnswer {
        let lease_end = if tokens > 0 { now + LEASE_TTL_MS } else { 0 };
        if let Some(known) = self.holders.get_mut(&request.holder)
            && (tokens > 0 || request.want == 0)
        {
            known.lease_end = lease_end;
        }
        if tokens == 0 {
            return if request.want == 0 { LeaseAnswer::Returned } else { LeaseAnswer::Next };
        }
        let free = self.free();
        let has_next = self.next.is_some();
        let state = State::of(self.current.size, free, has_next, self.beyond, 0);
        let low = state == State::Low
            || (state == State::Next && self.current.size > model::ledger::rules::PREOPEN_ABOVE);
        let free = free + self.next.as_ref().map_or(0, |next| next.size);
        let (beyond, ttl_ms) = (self.beyond, LEASE_TTL_MS);
        LeaseAnswer::Granted(Grant { tokens, epoch, tranche, free, beyond, low, ttl_ms })
    }

    fn close(&mut self, epoch: u64) -> Option<Vec<(HolderId, u64)>> {
        let tranches = [Some(&self.current), self.next.as_ref()];
        let of = tranches.into_iter().flatten().find(|tranche| tranche.epoch == epoch)?;
        let shares = of.out.iter().map(|(holder, tokens)| (*holder, *tokens)).collect();
        self.closed = self.closed.max(epoch);
        Some(shares)
    }
}

impl Tranche {
    fn new(permit: &InstallPermit) -> Self {
        let (epoch, size) = (permit.epoch(), permit.tranche());
        Self { epoch, size, granted: 0, out: HashMap::new() }
    }

    const fn free(&self) -> u64 {
        self.size - self.granted
    }
}

impl Dispatcher for InProcess {
    fn fence(&self, _: &WindowKey) -> Option<Fence> {
        Some(self.fence)
    }

    fn install(&self, permit: InstallPermit) -> BoxFuture<'_, Result<(), DispatcherError>> {
        Box::pin(ready(self.install_now(&permit)))
    }

    fn lease(&self, request: LeaseRequest) -> BoxFuture<'_, Result<LeaseAnswer, DispatcherError>> {
        Box::pin(ready(Ok(self.lease_now(&request))))
    }

    fn close(
        &self,
        of: EpochRef,
        fence: Fence,
    ) -> BoxFuture<'_, Result<Option<Vec<(HolderId, u64)>>, DispatcherError>> {
        Box::pin(ready(Ok(self.close_now(of, fence))))
    }
}

#[cfg(test)]
mod dump;
#[cfg(test)]
mod tests;
